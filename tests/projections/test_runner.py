import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.projections.fakes import FakeLog, some_events

from smartgrid_adapters.memory.checkpoints import MemoryCheckpoints, MemoryProjection
from smartgrid_projections.ports import Claim, Fenced, Move, Unavailable
from smartgrid_projections.projection import Projection
from smartgrid_projections.runtime.runner import Pace, Runner, Stopped
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event


@dataclass
class Seen:
    positions: list[int] = field(default_factory=list[int])
    batches: list[int] = field(default_factory=list[int])


async def remember(batch: Sequence[Recorded[Event]], tables: Seen) -> None:
    tables.positions += [recorded.position for recorded in batch]
    tables.batches.append(len(batch))


SEEN = Projection(name="seen", version=1, logs=("telemetry",), project=remember)


class Time:
    """A clock that moves only when someone waits."""

    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    def pace(self, batch_events: int = 500) -> Pace:
        return Pace(
            batch_events=batch_events, sleep=self.sleep, monotonic=lambda: self.now, jitter=lambda: 0.5, poll_s=0.01
        )


def stored() -> MemoryProjection[Seen]:
    return MemoryProjection(name="seen", version=1, positions={"telemetry": 0}, tables=Seen())


def runner_on(
    table: MemoryProjection[Seen], log: FakeLog, time: Time, *, owner: str = "a", projection: Projection[Seen] = SEEN
) -> Runner[Seen]:
    checkpoints = MemoryCheckpoints(table, owner=owner, monotonic=lambda: time.now)
    return Runner(projection, log, checkpoints, time.pace(batch_events=3))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 10), max_size=5))
def test_every_event_is_folded_once_in_order(appends: list[int]) -> None:
    async def scenario() -> list[int]:
        table, log, time = stored(), FakeLog(), Time()
        runner = runner_on(table, log, time)
        for number in appends:
            some_events(log, number)
            while await runner.step():
                pass
        return table.tables.positions

    assert asyncio.run(scenario()) == list(range(1, sum(appends) + 1))


def until(position: int, stop: asyncio.Event) -> Projection[Seen]:
    async def project(batch: Sequence[Recorded[Event]], tables: Seen) -> None:
        await remember(batch, tables)
        if batch[-1].position == position:
            stop.set()

    return Projection(name="seen", version=1, logs=("telemetry",), project=project)


async def test_a_waiting_runner_wakes_up_with_the_log() -> None:
    table, log, time, stop = stored(), FakeLog(), Time(), asyncio.Event()
    running = asyncio.create_task(runner_on(table, log, time, projection=until(7, stop)).run(stop))
    await asyncio.sleep(0)
    some_events(log, 7)
    await log.announce()

    await running

    assert table.tables.positions == [1, 2, 3, 4, 5, 6, 7]
    assert table.owner is None


async def test_a_second_runner_goes_on_where_the_first_one_left() -> None:
    table, log, time = stored(), FakeLog(), Time()
    some_events(log, 6)
    first, second = runner_on(table, log, time), runner_on(table, log, time, owner="b")
    await first.step()

    assert await second.step() == 0
    time.now += 60
    await second.step()

    with pytest.raises(Fenced):
        await first.step()
    assert table.tables.positions == [1, 2, 3, 4, 5, 6]


async def test_what_cannot_be_folded_stops_the_projection_and_is_not_skipped() -> None:
    table, log, time, stop = stored(), FakeLog(), Time(), asyncio.Event()
    some_events(log, 5)

    async def choke(batch: Sequence[Recorded[Event]], tables: Seen) -> None:
        await remember(batch, tables)
        if any(recorded.position == 5 for recorded in batch):
            raise LookupError("no such unit")

    projection = Projection(name="seen", version=1, logs=("telemetry",), project=choke)
    with pytest.raises(Stopped, match="telemetry@4…5: LookupError: no such unit"):
        await runner_on(table, log, time, projection=projection).run(stop)

    assert table.last_error == "telemetry@4…5: LookupError: no such unit"
    assert table.positions == {"telemetry": 3}
    assert table.tables.positions == [1, 2, 3]


async def test_an_error_that_passes_is_tried_again_and_leaves_no_trace() -> None:
    table, log, time = stored(), FakeLog(), Time()
    some_events(log, 3)
    failures = [LookupError("once"), LookupError("twice")]

    async def hiccup(batch: Sequence[Recorded[Event]], tables: Seen) -> None:
        await remember(batch, tables)
        if failures:
            raise failures.pop()

    projection = Projection(name="seen", version=1, logs=("telemetry",), project=hiccup)
    runner = runner_on(table, log, time, projection=projection)
    await runner.step()

    assert table.tables.positions == [1, 2, 3]
    assert (table.last_error, runner.last_error) == (None, None)


class Cut(MemoryCheckpoints[Seen]):
    """Loses its connection after the rows were written, before the commit."""

    cuts = 3

    @asynccontextmanager
    async def step(self, claim: Claim, move: Move) -> AsyncGenerator[Seen]:
        async with super().step(claim, move) as tables:
            yield tables
            if self.cuts:
                self.cuts -= 1
                await self.close()
                raise Unavailable("the connection was cut")


async def test_a_cut_connection_is_healed_and_nothing_counts_twice() -> None:
    table, log, time, stop = stored(), FakeLog(), Time(), asyncio.Event()
    some_events(log, 4)
    checkpoints = Cut(table, owner="a", monotonic=lambda: time.now)

    async def project(batch: Sequence[Recorded[Event]], tables: Seen) -> None:
        await remember(batch, tables)
        if not checkpoints.cuts:
            stop.set()

    projection = Projection(name="seen", version=1, logs=("telemetry",), project=project)
    await Runner(projection, log, checkpoints, Pace(backoff_s=0.001, takeover_s=0.001)).run(stop)

    assert table.tables.positions == [1, 2, 3, 4]


async def test_an_event_that_cannot_be_read_stops_the_projection_too() -> None:
    table, time = stored(), Time()

    class Damaged(FakeLog):
        async def read_log(
            self, log: str, *, after: int = 0, limit: int = 1000, up_to: int | None = None
        ) -> list[Recorded[Event]]:
            raise ValueError(f"{log} is damaged between {after} and {up_to or limit}")

    with pytest.raises(Stopped, match="telemetry@1: ValueError: telemetry is damaged between 0 and 3"):
        await runner_on(table, Damaged(), time).run(asyncio.Event())

    assert (table.last_error, table.positions) == (
        "telemetry@1: ValueError: telemetry is damaged between 0 and 3",
        {"telemetry": 0},
    )
