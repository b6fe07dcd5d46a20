"""Another version of a read model beside the one in use, over PostgreSQL: build, compare, switch, return."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from psycopg import sql
from tests.projections.facts import EPOCH, START_US, Fact, Reading, Recorder, arrivals, chains
from tests.projections.stored import store
from tests.projections.test_aggregates import recorded

from smartgrid_adapters.postgres.checkpoints import PostgresCheckpoints, PostgresStandings
from smartgrid_adapters.postgres.pool import Pool, conninfo_of, open_pool
from smartgrid_adapters.postgres.rollups import PostgresRollups
from smartgrid_adapters.postgres.stats import PostgresStats
from smartgrid_adapters.postgres.versions import PostgresVersions
from smartgrid_ops.tending import Tending
from smartgrid_projections.projection import Projection
from smartgrid_projections.queries.standing import Waiting
from smartgrid_projections.queries.stats import StatsQuery, stats
from smartgrid_projections.read_models.aggregates import AGGREGATES, RollupTables, project
from smartgrid_projections.runtime.runner import Pace, Runner
from smartgrid_projections.versions import NoSuchRebuild, Rebuild, RebuildConflict
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event

NAME = "aggregates"
SLOW = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def readings(number: int, sensor: str = "s1", first: int = 0) -> list[Fact]:
    return [
        Fact(Reading(sensor, "power", None, START_US + second * 1_000_000, -1), "read", float(second), "W")
        for second in range(first, first + number)
    ]


class World:
    """One log, one database, and workers that may be killed."""

    def __init__(self, database: str, pool: Pool, recorder: Recorder) -> None:
        self.database = database
        self.pool = pool
        self.recorder = recorder
        self.versions = PostgresVersions(pool)
        self.rules: dict[int, Projection[RollupTables]] = {}
        self.batch_events = 2
        self._tasks: list[tuple[asyncio.Task[None], asyncio.Event]] = []
        self._ids = 0

    def work(self) -> None:
        stop = asyncio.Event()
        tending = Tending(NAME, self.versions, self._runner)
        self._tasks.append((asyncio.create_task(tending.run(stop)), stop))

    def _runner(self, version: int, pace: Pace | None) -> Runner[RollupTables]:
        async def connect() -> psycopg.AsyncConnection[Any]:
            return await psycopg.AsyncConnection.connect(conninfo_of(self.database), autocommit=True)

        checkpoints = PostgresCheckpoints(
            connect,
            name=NAME,
            version=version,
            owner="test",
            tables=lambda connection: PostgresRollups(connection, version),
        )
        attempts = 5 if pace is None else pace.attempts
        pace = Pace(batch_events=self.batch_events, attempts=attempts, poll_s=0.02, takeover_s=0.02)
        return Runner(self.rules.get(version, AGGREGATES), self.recorder.log, checkpoints, pace)

    async def kill(self) -> None:
        """End all workers where they are: their connections just end."""
        for task, _ in self._tasks:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._tasks.clear()

    async def stop(self) -> None:
        for task, stop in self._tasks:
            stop.set()
            await asyncio.wait_for(task, 10)
        self._tasks.clear()

    async def followed(self) -> None:
        """Wait until the version in use is at the end of the log."""
        head = len(self.recorder.log.events["telemetry"])
        assert await Waiting(PostgresStandings(self.pool)).until([NAME], {"telemetry": head}, 20_000)

    async def start(self, *, auto_switch: bool = False) -> str:
        self._ids += 1
        rebuild_id = f"rb_{self._ids}"
        await self.versions.start(NAME, rebuild_id, auto_switch=auto_switch)
        return rebuild_id

    async def until(self, rebuild_id: str, *states: str) -> Rebuild:
        async with asyncio.timeout(20):
            # The database tells, no event of ours.
            while (rebuild := await self.versions.rebuild(NAME, rebuild_id)).state not in states:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return rebuild

    async def tables(self, version: int) -> list[list[tuple[Any, ...]]]:
        """Return all rows of a version, byte for byte."""
        found: list[list[tuple[Any, ...]]] = []
        async with await psycopg.AsyncConnection.connect(self.database) as connection:
            for base in ("rollups", "rollup_sensors"):
                query = sql.SQL('SELECT * FROM {} t ORDER BY t::text COLLATE "C"').format(
                    sql.Identifier(f"{base}_v{version}")
                )
                found.append(await (await connection.execute(query)).fetchall())
        return found

    async def scalar(self, query: str) -> Any:  # noqa: ANN401  # whatever it selects
        async with await psycopg.AsyncConnection.connect(self.database) as connection:
            row = await (await connection.execute(query.encode())).fetchone()
            return None if row is None else row[0]

    async def count(self) -> tuple[int, int]:
        """Return how many readings the statistics count, and at which position."""
        wanted = StatsQuery(start=EPOCH, end=datetime(2027, 1, 1, tzinfo=UTC), zone=ZoneInfo("UTC"))
        rows, position = await stats(PostgresStats(self.pool), wanted)
        return sum(row.count for row in rows), position


@asynccontextmanager
async def world_of(database: str, recorder: Recorder) -> AsyncGenerator[World]:
    await store(database, recorder)
    pool = await open_pool(database)
    world = World(database, pool, recorder)
    try:
        yield world
    finally:
        await world.kill()
        await pool.close()


@pytest.fixture
async def world(database: str) -> AsyncIterator[World]:
    recorder = Recorder()
    for second in range(40):
        recorder.record(readings(1, first=second))
    async with world_of(database, recorder) as world:
        yield world


async def test_a_rebuilt_version_equals_the_one_in_use_byte_for_byte(world: World) -> None:
    world.work()
    await world.followed()
    rebuild = await world.until(await world.start(), "ready", "failed")

    assert rebuild.state == "ready"
    assert rebuild.verify is not None
    assert (rebuild.verify.rows_differing, rebuild.verify.max_deviation) == (0, 0.0)
    assert rebuild.verify.rows_new == rebuild.verify.rows_active > 0
    assert await world.tables(2) == await world.tables(1)


@SLOW
@given(data=st.data())
def test_any_facts_in_any_order_and_batches_are_rebuilt_byte_for_byte(database: str, data: st.DataObject) -> None:
    recorder = recorded(data.draw(arrivals(data.draw(chains()))))
    batches = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))

    async def scenario() -> None:
        async with world_of(database, recorder) as world:
            await reset(database)
            world.batch_events = batches[0]
            world.work()
            await world.followed()
            world.batch_events = batches[1]
            rebuild = await world.until(await world.start(), "ready", "failed")
            assert rebuild.verify is not None, rebuild.error
            assert rebuild.verify.rows_differing == 0
            assert await world.tables(2) == await world.tables(1)

    asyncio.run(scenario())


async def reset(database: str) -> None:
    """Forget all versions but the first, as in a fresh database."""
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("UPDATE projection_versions SET state = 'discarded' WHERE version > 1")
        await connection.execute("UPDATE projection_versions SET state = 'active', owner = NULL WHERE version = 1")
        await connection.execute("SELECT projection_sweep('aggregates')")
        await connection.execute("TRUNCATE projection_rebuilds CASCADE")
        await connection.execute("DELETE FROM projection_versions WHERE version > 1")


async def doubled_first(batch: Sequence[Recorded[Event]], tables: RollupTables) -> None:
    """Fold by a rule that counts the first event twice."""
    await project(batch, tables)
    if batch[0].position == 1:
        await project(batch[:1], tables)


async def test_a_version_that_differs_by_one_rule_shows_the_rows_and_how_much(world: World) -> None:
    world.rules[2] = Projection(name=NAME, version=2, logs=("telemetry",), project=doubled_first)
    world.recorder.record(readings(1, sensor="s2", first=90_000))
    world.recorder.log.events["telemetry"].insert(0, world.recorder.log.events["telemetry"].pop())
    for place, event in enumerate(world.recorder.log.events["telemetry"]):
        world.recorder.log.events["telemetry"][place] = replace(event, position=place + 1)
    await store(world.database, world.recorder)
    world.work()
    await world.followed()
    rebuild_id = await world.start()
    verify = (await world.until(rebuild_id, "ready")).verify

    assert verify is not None
    assert (verify.rows_active, verify.rows_new, verify.rows_differing) == (6, 6, 3)
    assert verify.max_deviation == 90_000.0
    differences = await world.versions.differences(NAME, rebuild_id, after=0, limit=10)
    assert [(one.number, one.table) for one in differences] == [(1, "rollups"), (2, "rollups"), (3, "rollups")]
    assert [(one.active["n"], one.new["n"]) for one in differences if one.active and one.new] == [(1, 2)] * 3
    assert [one.number for one in await world.versions.differences(NAME, rebuild_id, after=2, limit=10)] == [3]


async def test_a_switch_changes_who_answers_and_a_rollback_changes_it_back(world: World) -> None:
    world.rules[2] = Projection(name=NAME, version=2, logs=("telemetry",), project=doubled_first)
    world.work()
    await world.followed()
    rebuild_id = await world.start()
    await world.until(rebuild_id, "ready")
    before = await world.count()
    await world.versions.switch(NAME, rebuild_id)
    switched = await world.count()
    view = await world.scalar("SELECT sum(count) FROM sensor_aggregates WHERE interval = '1d'")
    state = (await world.versions.rebuild(NAME, rebuild_id)).state
    world.recorder.record(readings(1, first=50))
    await world.followed()
    await world.versions.rollback(NAME)
    back = await world.count()

    assert (before, switched, view, state) == ((40, 40), (41, 40), 41, "switched")
    assert back == (41, 41)
    assert (await world.versions.rebuild(NAME, rebuild_id)).state == "rolled_back"
    with pytest.raises(RebuildConflict, match="no version of aggregates to return to"):
        await world.versions.rollback(NAME)
    async with asyncio.timeout(10):
        while await world.scalar("SELECT to_regclass('rollups_v2')") is not None:  # noqa: ASYNC110  # another process tells
            await asyncio.sleep(0.02)


async def test_answers_never_fail_nor_go_back_while_versions_change_under_writes(world: World) -> None:
    world.batch_events = 100
    world.work()
    await world.followed()
    answers: list[tuple[int, int]] = []
    views: list[int] = []
    done = asyncio.Event()

    async def read() -> None:
        while not done.is_set():
            answers.append(await world.count())
            views.append(
                await world.scalar("SELECT coalesce(sum(count), 0) FROM sensor_aggregates WHERE interval = '1d'")
            )

    async def write() -> None:
        second = 40
        while not done.is_set():
            world.recorder.record(readings(1, first=second))
            await world.recorder.log.announce()
            second += 1
            await asyncio.sleep(0.02)

    tasks = [asyncio.create_task(read()), asyncio.create_task(write())]
    try:
        for _ in range(2):
            rebuild_id = await world.start()
            await world.until(rebuild_id, "ready")
            await world.versions.switch(NAME, rebuild_id)
        await world.versions.rollback(NAME)
        await world.until(await world.start(auto_switch=True), "switched")
    finally:
        done.set()
        await asyncio.gather(*tasks)

    assert len(answers) > 20
    assert answers[-1][0] > answers[0][0]
    assert all(a[1] <= b[1] and a[0] <= b[0] for a, b in pairwise(answers))
    assert all(a <= b for a, b in pairwise(views))
    assert all(count == position for count, position in answers)


async def test_killed_in_the_middle_a_rebuild_goes_on_where_it_was(world: World) -> None:
    turns = 0

    async def dying(batch: Sequence[Recorded[Event]], tables: RollupTables) -> None:
        nonlocal turns
        turns += 1
        await project(batch, tables)
        if turns in (3, 8):
            killed.set()
            await asyncio.Event().wait()

    world.work()
    await world.followed()
    world.rules[2] = Projection(name=NAME, version=2, logs=("telemetry",), project=dying)
    rebuild_id = await world.start()
    for _ in range(2):
        killed = asyncio.Event()
        await asyncio.wait_for(killed.wait(), 10)
        await world.kill()
        world.work()
    rebuild = await world.until(rebuild_id, "ready", "failed")

    assert rebuild.verify is not None
    assert rebuild.verify.rows_differing == 0
    assert turns == 22  # 20 batches, and two that died once
    assert await world.tables(2) == await world.tables(1)


async def test_a_rebuild_stops_at_the_first_error_and_the_version_in_use_goes_on(world: World) -> None:
    async def broken(batch: Sequence[Recorded[Event]], tables: RollupTables) -> None:
        if batch[0].position > 20:
            raise ValueError("no such unit")
        await project(batch, tables)

    world.rules[2] = Projection(name=NAME, version=2, logs=("telemetry",), project=broken)
    world.work()
    await world.followed()
    failed = await world.until(await world.start(), "failed", "ready")
    world.recorder.record(readings(1, first=50))
    await world.followed()
    del world.rules[2]
    again = await world.until(await world.start(), "ready", "failed")

    assert (failed.state, failed.error) == ("failed", "telemetry@21…22: ValueError: no such unit")
    assert (again.state, again.version, await world.count()) == ("ready", 3, (41, 41))


async def test_one_rebuild_at_a_time_and_an_aborted_one_leaves_nothing(world: World) -> None:
    rebuild_id = await world.start()
    with pytest.raises(RebuildConflict, match="is under way"):
        await world.start()
    with pytest.raises(RebuildConflict, match="is building, not ready"):
        await world.versions.switch(NAME, rebuild_id)
    with pytest.raises(NoSuchRebuild):
        await world.versions.abort("users", rebuild_id)
    await world.versions.abort(NAME, rebuild_id)
    with pytest.raises(RebuildConflict, match="is aborted"):
        await world.versions.abort(NAME, rebuild_id)
    await world.versions.sweep(NAME)

    assert await world.scalar("SELECT to_regclass('rollups_v2')") is None
    assert (await world.versions.rebuild(NAME, rebuild_id)).state == "aborted"
    await world.start()


async def test_a_paused_projection_stands_still_until_it_is_resumed(world: World) -> None:
    world.work()
    await world.followed()
    await world.versions.pause(NAME)
    world.recorder.record(readings(5, first=50))
    await world.recorder.log.announce()
    await asyncio.sleep(0.2)
    paused = await world.count()
    (standing,) = [one for one in await PostgresStandings(world.pool).standings() if one.name == NAME]
    await world.versions.resume(NAME)
    await world.followed()

    assert (paused, standing.paused) == ((40, 40), True)
    assert await world.count() == (45, 41)
