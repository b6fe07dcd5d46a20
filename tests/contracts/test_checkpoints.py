"""What every adapter of the Checkpoints port promises."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import psycopg
import pytest

from smartgrid_adapters.memory.checkpoints import MemoryCheckpoints, MemoryProjection
from smartgrid_adapters.postgres.checkpoints import PostgresCheckpoints
from smartgrid_adapters.postgres.pool import Connection, Pool, dedicated
from smartgrid_projections.ports import Checkpoints, Claim, Fenced, Move


class Rows(Protocol):
    async def add(self, number: int) -> None: ...


@dataclass
class MemoryRows:
    numbers: list[int] = field(default_factory=list[int])

    async def add(self, number: int) -> None:
        self.numbers.append(number)


class PostgresRows:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, number: int) -> None:
        await self._connection.execute("INSERT INTO toy VALUES (%s)", (number,))


@dataclass
class World:
    """Two workers of one projection, the rows as anyone sees them, and a clock."""

    worker: Callable[[str], Checkpoints[Rows]]
    rows: Callable[[], Awaitable[list[int]]]
    lease_runs_out: Callable[[], Awaitable[None]]


@pytest.fixture(params=["memory_world", "postgres_world"])
def world(request: pytest.FixtureRequest) -> World:
    chosen: World = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def memory_world() -> World:
    tables: Rows = MemoryRows()
    stored = MemoryProjection(name="toy", version=1, positions={"telemetry": 0, "identity": 0}, tables=tables)
    now = [0.0]

    def worker(owner: str) -> Checkpoints[Rows]:
        return MemoryCheckpoints(stored, owner=owner, monotonic=lambda: now[0])

    async def numbers() -> list[int]:
        assert isinstance(stored.tables, MemoryRows)
        return list(stored.tables.numbers)

    async def later() -> None:
        now[0] += 60

    return World(worker, numbers, later)


@pytest.fixture
async def postgres_world(database: str, pool: Pool) -> AsyncIterator[World]:
    opened: list[PostgresCheckpoints[Rows]] = []
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as setup:
        await setup.execute("CREATE TABLE toy (number int)")
        await setup.execute("GRANT ALL ON toy TO smartgrid_app")
        await setup.execute("INSERT INTO projection_versions (name, version) VALUES ('toy', 1)")
        for log in ("telemetry", "identity"):
            await setup.execute("INSERT INTO projection_checkpoints (name, version, log) VALUES ('toy', 1, %s)", (log,))

    def worker(owner: str) -> Checkpoints[Rows]:
        opened.append(PostgresCheckpoints(dedicated(pool), name="toy", version=1, owner=owner, tables=PostgresRows))
        return opened[-1]

    async def numbers() -> list[int]:
        async with pool.connection() as connection:
            cursor = await connection.execute("SELECT number FROM toy ORDER BY number")
            return [row[0] for row in await cursor.fetchall()]

    async def expire() -> None:
        async with pool.connection() as connection:
            await connection.execute("UPDATE projection_versions SET lease_until = '-infinity' WHERE name = 'toy'")

    yield World(worker, numbers, expire)
    for checkpoints in opened:
        await checkpoints.close()


async def claimed(checkpoints: Checkpoints[Rows]) -> Claim:
    claim = await checkpoints.claim()
    assert claim is not None
    return claim


def move(old: int, new: int) -> Move:
    return Move(log="telemetry", old=old, new=new)


async def test_rows_and_checkpoint_move_together(world: World) -> None:
    worker = world.worker("a")
    claim = await claimed(worker)

    async with worker.step(claim, move(0, 7)) as rows:
        await rows.add(1)
    await worker.release(claim)

    assert await world.rows() == [1]
    assert (await claimed(world.worker("b"))).positions == {"telemetry": 7, "identity": 0}


async def test_a_failed_step_keeps_neither_rows_nor_checkpoint(world: World) -> None:
    worker = world.worker("a")
    claim = await claimed(worker)

    async def fails() -> None:
        async with worker.step(claim, move(0, 7)) as rows:
            await rows.add(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    async with worker.step(claim, move(0, 3)) as rows:
        await rows.add(2)

    assert await world.rows() == [2]


async def test_a_second_worker_waits_while_the_first_one_lives(world: World) -> None:
    first, second = world.worker("a"), world.worker("b")
    claim = await claimed(first)

    assert await second.claim() is None
    await first.release(claim)
    assert (await claimed(second)).epoch == claim.epoch + 1


async def test_a_worker_whose_connection_ended_is_followed_at_once(world: World) -> None:
    first, second = world.worker("a"), world.worker("b")
    await claimed(first)

    await first.close()

    claim: Claim | None = None
    while claim is None:  # the server needs a moment to see that the connection ended
        claim = await second.claim()


async def test_a_worker_that_was_taken_over_can_keep_nothing(world: World) -> None:
    zombie, heir = world.worker("a"), world.worker("b")
    old = await claimed(zombie)
    await world.lease_runs_out()
    new = await claimed(heir)
    async with heir.step(new, move(0, 5)) as rows:
        await rows.add(1)

    with pytest.raises(Fenced):
        async with zombie.step(old, move(5, 6)) as rows:
            await rows.add(2)
    with pytest.raises(Fenced):
        await zombie.renew(old)
    await zombie.release(old)
    await zombie.failed(old, "too late")

    assert await world.rows() == [1]
    assert await zombie.claim() is None
    await heir.renew(new)


async def test_a_step_from_another_position_is_refused(world: World) -> None:
    worker = world.worker("a")
    claim = await claimed(worker)
    async with worker.step(claim, move(0, 5)) as rows:
        await rows.add(1)

    with pytest.raises(Fenced):
        async with worker.step(claim, move(0, 6)) as rows:
            await rows.add(2)

    assert await world.rows() == [1]


async def test_a_renewed_claim_outlives_its_first_lease(world: World) -> None:
    first, second = world.worker("a"), world.worker("b")
    claim = await claimed(first)
    await world.lease_runs_out()

    await first.renew(claim)

    assert await second.claim() is None


async def test_a_stopped_projection_can_be_claimed_again(world: World) -> None:
    worker = world.worker("a")
    claim = await claimed(worker)

    await worker.failed(claim, "no such unit")

    assert (await claimed(world.worker("b"))).epoch == claim.epoch + 1
