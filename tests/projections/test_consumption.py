from collections.abc import Iterator, Sequence
from itertools import pairwise

import anyio
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.projections.facts import START_US
from tests.projections.meters import QUARTER, MeterRecorder, Step, steps

from smartgrid_adapters.memory.consumption import MemoryConsumption, Numbers
from smartgrid_domain.maths.registers import fold
from smartgrid_projections.read_models.consumption import project
from smartgrid_projections.read_models.windows import register_readings

HOUR = 4 * QUARTER
Rows = dict[tuple[object, int], Numbers]
NEVER = 2**63


def folded(recorder: MeterRecorder, cuts: Sequence[int]) -> MemoryConsumption:
    events = recorder.log.events["telemetry"]
    tables = MemoryConsumption(recorder.register)

    async def scenario() -> None:
        bounds = sorted({0, len(events), *(cut % (len(events) + 1) for cut in cuts)})
        for start, end in pairwise(bounds):
            await project(events[start:end], tables)

    anyio.run(scenario)
    return tables


class Sums(dict[tuple[object, int], list[int]]):
    """Wh, estimated Wh and readings by key."""

    def add(self, key: tuple[object, int], numbers: Numbers) -> None:
        sums = self.setdefault(key, [0, 0, 0])
        for i, number in enumerate(numbers):
            sums[i] += number


def oracle(recorder: MeterRecorder) -> tuple[Rows, Rows]:
    """Rows and customers by the book: one fold of all that counts, spread Wh by Wh."""
    rows, customers = Sums(), Sums()
    for series, (_, name) in recorder.register.names.items():
        links = recorder.links.get(name.subject_id, [])
        for at_us, *numbers in counted(recorder, series):
            wh, estimated, number = numbers
            start = max([at_us // HOUR * HOUR, *(cut for cut, _ in links if cut <= at_us)])
            rows.add((series, start), (wh, estimated, number))
            holder = next((who for since, who in reversed(links) if since <= at_us), None)
            if holder is not None:
                customers.add((holder.encode(), start // HOUR * HOUR), (wh, estimated, number))
    first, second = (
        {key: (sums[0], sums[1], sums[2]) for key, sums in table.items() if any(sums)} for table in (rows, customers)
    )
    return first, second


def counted(recorder: MeterRecorder, series: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield instant, Wh, estimated Wh and readings of pieces that cross neither an hour nor a change of customer."""
    name = recorder.register.names[series][1]
    end = len(recorder.log.events["telemetry"])
    own = register_readings(anyio.run(recorder.register.stretches, [(series, 0, NEVER)], end))
    breaks = [item for (meter, _, _), item in recorder.breaks.items() if meter == name.subject_id]
    intervals = fold(own, breaks, rollover_at_wh=recorder.rollovers.get(name.subject_id)).intervals
    for at_us in own.at_us.tolist():
        yield at_us, 0, 0, 1
    for a, b, wh in zip(intervals.start_us.tolist(), intervals.end_us.tolist(), intervals.wh.tolist(), strict=True):
        if a == b:
            yield a, wh, 0, 0
            continue
        cuts = [at for at, _ in recorder.links.get(name.subject_id, []) if a < at < b]
        for s, e in pairwise(sorted({a, b, *range(-(-a // HOUR) * HOUR, b, HOUR), *cuts})):
            share = wh * (e - a) // (b - a) - wh * (s - a) // (b - a)
            yield s, share, share if b - a > 2 * HOUR else 0, 0


@settings(max_examples=100, deadline=None)
@given(steps(), st.lists(st.integers(0, 60), max_size=6))
def test_any_split_gives_the_rows_of_one_fold_of_everything(what: list[Step], cuts: list[int]) -> None:
    recorder = MeterRecorder()
    recorder.record(what)

    tables = folded(recorder, cuts)

    rows, customers = oracle(recorder)
    assert tables.rows == rows
    assert tables.customers == customers


@settings(deadline=None, max_examples=60)
@given(st.permutations(list(range(24))), st.lists(st.integers(0, 24), max_size=4))
def test_any_order_of_arrival_gives_the_same_rows(order: list[int], cuts: list[int]) -> None:
    recorder = MeterRecorder()
    recorder.record([Step("read", "m1", START_US + i * QUARTER, i * i * 10) for i in order])

    tables = folded(recorder, cuts)

    assert sum(wh for wh, _, _ in tables.rows.values()) == 23 * 23 * 10
    assert tables.rows == oracle(recorder)[0]


def test_many_registers_that_go_on_are_added_at_once() -> None:
    recorder = MeterRecorder()
    for hour in range(6):
        for meter in ("m1", "m2", "m3"):
            recorder.read(meter, [(START_US + hour * HOUR + i * QUARTER, hour + i / 4) for i in range(4)])

    tables = folded(recorder, [3, 6, 9])

    assert tables.rows == oracle(recorder)[0]
    assert {(series, wh) for (series, _), (wh, _, _) in tables.rows.items()} == {
        (i, wh) for i in (1, 2, 3) for wh in (1000, 750)
    }
    assert set(tables.last) == {1, 2, 3}
    assert np.all([tail.wh == 5750 for tail in tables.last.values()])
