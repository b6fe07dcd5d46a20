from collections.abc import Sequence
from itertools import pairwise

import anyio
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_adapters.memory.consumption import MemoryConsumption, Numbers
from smartgrid_domain.maths.registers import fold
from smartgrid_projections.read_models.consumption import project
from smartgrid_projections.read_models.windows import register_readings
from tests.projections.facts import START_US
from tests.projections.meters import QUARTER, MeterRecorder, Step, steps

HOUR = 4 * QUARTER
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


def oracle(recorder: MeterRecorder) -> tuple[dict[tuple[int, int], Numbers], dict[tuple[bytes, int], Numbers]]:
    """Rows and customers by the book: one fold of all that counts, spread Wh by Wh."""
    rows: dict[tuple[int, int], list[int]] = {}
    customers: dict[tuple[bytes, int], list[int]] = {}
    end = len(recorder.log.events["telemetry"])
    for series, (_, name) in recorder.register.names.items():
        cuts = [at for at, _ in recorder.links.get(name.subject_id, [])]

        async def readings(series: int = series):  # type: ignore[no-untyped-def]  # a closure of one line
            return await recorder.register.stretches([(series, 0, NEVER)], end)

        own = register_readings(anyio.run(readings))
        breaks = [item for (meter, _, _), item in recorder.breaks.items() if meter == name.subject_id]
        counted = fold(own, breaks, rollover_at_wh=recorder.rollovers.get(name.subject_id))

        def add(at_us: int, wh: int, estimated: int, number: int, name=name, series=series, cuts=cuts) -> None:  # type: ignore[no-untyped-def]  # bound to the loop
            start = max([at_us // HOUR * HOUR, *(cut for cut in cuts if cut <= at_us)])
            holder = next(
                (who for since, who in reversed(recorder.links.get(name.subject_id, [])) if since <= at_us), None
            )
            for table, key in (
                (rows, (series, start)),
                (customers, (holder and holder.encode(), start // HOUR * HOUR)),
            ):
                sums = table.setdefault(key, [0, 0, 0])
                for i, number_ in enumerate((wh, estimated, number)):
                    sums[i] += number_

        for at_us in own.at_us.tolist():
            add(at_us, 0, 0, 1)
        intervals = counted.intervals
        for a, b, wh in zip(intervals.start_us.tolist(), intervals.end_us.tolist(), intervals.wh.tolist(), strict=True):
            if a == b:
                add(a, wh, 0, 0)
                continue
            inner = {*range(-(-a // HOUR) * HOUR, b, HOUR), *(cut for cut in cuts if a < cut < b)}
            edges = sorted({a, b, *inner})
            for s, e in pairwise(edges):
                share = wh * (e - a) // (b - a) - wh * (s - a) // (b - a)
                add(s, share, share if b - a > 2 * HOUR else 0, 0)
    return (
        {key: (s[0], s[1], s[2]) for key, s in rows.items() if any(s)},
        {key: (s[0], s[1], s[2]) for key, s in customers.items() if any(s) and key[0] is not None},
    )


@settings(max_examples=100, deadline=None)
@given(steps(), st.lists(st.integers(0, 60), max_size=6))
def test_any_split_gives_the_rows_of_one_fold_of_everything(what: list[Step], cuts: list[int]) -> None:
    recorder = MeterRecorder()
    recorder.record(what)

    tables = folded(recorder, cuts)

    rows, customers = oracle(recorder)
    assert tables.rows == rows
    assert tables.customers == customers


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
