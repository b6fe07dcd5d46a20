"""
Die at every port call of the projection runtime, before and after it: nothing is lost, doubled or torn.

A run with no fault counts the calls; they are discovered, so a new one is covered the day it appears.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from tests.kit import checkers
from tests.kit.checkers import Tables, Trace
from tests.kit.filling import fill
from tests.kit.history import History
from tests.kit.tables import Connection, buckets, dump, forget, traces

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import Pool, dedicated
from smartgrid_adapters.postgres.sealing import PostgresDataKeys
from smartgrid_adapters.sealing import KeySealer
from smartgrid_ops.failpoints import Calls, Failpoint, How, When
from smartgrid_ops.worker import PROJECTIONS, runner_of
from smartgrid_projections.ports import EventLog, Unavailable
from smartgrid_projections.runtime.runner import Pace, Runner
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

BATCH = 4
EVERY = int(os.environ.get("SGA_TEST_EVERY", "4"))
"""Outages come at every so many calls, hangs at every so many more; deaths at every one."""

LEASE_S = 0.1
WHEN: tuple[When, When] = ("before", "after")


class Died(BaseException):
    """The end of a process: nothing handles it."""


def die() -> None:
    raise Died


class UntilIdle:
    """The log; tells when a runner has nothing left to read."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.idle = asyncio.Event()

    async def read_log(
        self, log: str, *, after: int = 0, limit: int = 1000, up_to: int | None = None
    ) -> list[Recorded[Event]]:
        return await self._log.read_log(log, after=after, limit=limit, up_to=up_to)

    async def head(self, log: str) -> int:
        return await self._log.head(log)

    async def wait_for(self, log: str, position: int, *, timeout_s: float) -> bool:
        _ = log, position, timeout_s
        self.idle.set()
        return False


def pace(events: int = BATCH) -> Pace:
    """Return a pace at which the lease is renewed now and then, whatever the machine does meanwhile."""
    ticks = iter(range(1_000_000))
    return Pace(
        batch_events=events,
        renew_s=1.0,
        monotonic=lambda: next(ticks) * 0.15,
        jitter=lambda: 0.5,
        takeover_s=0.01,
        backoff_s=0.001,
        poll_s=0.01,
    )


@dataclass
class World:
    """A filled log; what each projection holds at each position; and what was seen of the runs."""

    pool: Pool
    store: PostgresEventStore
    sealer: KeySealer
    watch: Connection
    history: History
    log: list[Recorded[Event]]
    heads: dict[str, int]
    folds: dict[tuple[str, int], Tables] = field(default_factory=dict[tuple[str, int], Tables])
    seen: list[Trace] = field(default_factory=list[Trace])

    @asynccontextmanager
    async def worker(
        self, name: str, calls: Calls | None = None, events: int = BATCH
    ) -> AsyncGenerator[tuple[Runner[object], UntilIdle]]:
        """Make a worker whose connections end with it, as those of a process do."""
        source = UntilIdle(self.store)
        made: list[Connection] = []

        async def connect() -> Connection:
            made.append(await dedicated(self.pool)())
            return made[-1]

        lease_s = LEASE_S if calls else 5.0
        try:
            yield runner_of(name, connect, source, self.sealer, calls=calls, pace=pace(events), lease_s=lease_s), source
        finally:
            for connection in made:
                await connection.close()

    async def run(self, name: str, calls: Calls | None = None) -> bool:
        """Run a worker until there is nothing to do; return False if it died. Its connections end either way."""
        async with self.worker(name, calls) as (runner, source):
            try:
                await runner.run(source.idle)
            except (Died, Unavailable):
                return False
        return True

    async def learn(self, name: str) -> None:
        """Fold the log event by event and keep the rows of each position."""
        await forget(self.watch)
        [log] = PROJECTIONS[name][0].logs
        self.folds[name, 0] = await dump(self.watch)
        async with self.worker(name, events=1) as (runner, _):
            while await runner.step():
                self.folds[name, runner.positions[log]] = await dump(self.watch)

    async def check(self, name: str) -> None:
        """Check I3, I5 and I6 of what is stored now."""
        trace = (await traces(self.watch))[name]
        self.seen.append(trace)
        checkers.never_back(self.seen)
        [position] = trace.positions.values()
        checkers.is_fold(name, position, await dump(self.watch), self.folds[name, position])
        counted = await buckets(self.watch) if name == "aggregates" else None
        checkers.one_effect(self.history, self.log[:position], counted)

    async def check_end(self, name: str) -> None:
        """Check I1 … I7 when a worker says it has nothing left to do."""
        await self.check(name)
        [position] = self.seen[-1].positions.values()
        head = self.heads[PROJECTIONS[name][0].logs[0]]
        checkers.converged(name, position, head, await dump(self.watch), self.folds[name, head])
        log = await self.store.read_log("telemetry")
        checkers.in_order(log)
        checkers.no_lost_ack(self.history, log)
        checkers.no_phantom(self.history, log)

    async def start_over(self) -> None:
        await forget(self.watch)
        self.seen.clear()


@pytest.fixture
async def world(database: str, pool: Pool) -> AsyncIterator[World]:
    sealer = KeySealer(PostgresDataKeys(pool), b"m" * 32)
    store = PostgresEventStore(pool, sealer=sealer)
    history = await fill(pool, store, sealer)
    log = await store.read_log("telemetry")
    heads = {"telemetry": len(log), "identity": await store.head("identity")}
    async with await Connection.connect(database, autocommit=True) as watch:
        yield World(pool, store, sealer, watch, history, log, heads)
    await store.stop()


async def calls_of_a_run(world: World, name: str) -> Calls:
    """Return the port calls of a whole run with no fault."""
    await world.start_over()
    calls = Calls(None, error=Unavailable)
    assert await world.run(name, calls)
    await world.check_end(name)
    return calls


@pytest.mark.parametrize("name", sorted(PROJECTIONS))
async def test_dying_at_any_port_call_leaves_nothing_torn(
    world: World, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await world.learn(name)
    names = (await calls_of_a_run(world, name)).names

    died = 0
    for number in range(1, len(names) + 1):
        for when in WHEN:
            await world.start_over()
            calls = failing(number, when, "die")
            died += not await world.run(name, calls)
            assert calls.names == names[:number]
            await world.check(name)
            assert await world.run(name)
            await world.check_end(name)

    say(capsys, f"{name}: {len(names)} port calls ({len(set(names))} kinds), died {died} times, all sound")
    assert died == 2 * len(names)


@pytest.mark.parametrize("name", sorted(PROJECTIONS))
async def test_an_outage_at_any_port_call_is_waited_out(
    world: World, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await world.learn(name)
    names = (await calls_of_a_run(world, name)).names

    given_up = 0
    numbers = sorted({*range(1, len(names) + 1, EVERY), len(names) - 1, len(names)})
    for number in numbers:
        for when in WHEN:
            await world.start_over()
            if not await world.run(name, failing(number, when, "raise")):
                given_up += 1  # the call was the last that a worker makes
                assert number >= len(names) - 1
                assert await world.run(name)
            await world.check_end(name)

    say(capsys, f"{name}: an outage at {2 * len(numbers)} points, {given_up} of them at the last call, all sound")


@pytest.mark.parametrize("name", sorted(PROJECTIONS))
async def test_whoever_hangs_is_replaced_and_cannot_write_any_more(
    world: World, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await world.learn(name)
    run = await calls_of_a_run(world, name)

    numbers = [n for n in range(1, len(run.names) + 1) if n not in run.blocking][:: 2 * EVERY]
    points: list[tuple[int, When]] = [(n, when) for n in numbers for when in WHEN]
    for number, when in points:
        await world.start_over()
        calls = failing(number, when, "hang")
        hanging = asyncio.create_task(world.run(name, calls))
        while len(calls.names) < number:  # noqa: ASYNC110  # the port knows of no event
            await asyncio.sleep(0.002)
        heir = asyncio.create_task(world.run(name))
        await asyncio.wait([heir], timeout=LEASE_S * 2)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        assert await heir
        await world.check_end(name)

    say(capsys, f"{name}: hung at {len(points)} points, each time replaced")


def failing(number: int, when: When, how: How) -> Calls:
    point = Failpoint(component="projections", call=number, when=when, how=how)
    return Calls(point, error=Unavailable, die=die)


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n  {text}", end="")  # noqa: T201  # counts to show
