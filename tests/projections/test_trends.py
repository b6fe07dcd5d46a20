from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import anyio
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.projections.facts import START_US
from tests.projections.meters import QUARTER, MeterRecorder, Step, at, steps
from tests.projections.test_consumption import HOUR, folded, oracle

from smartgrid_adapters.memory.trends import MemoryTrends
from smartgrid_domain.maths.calendar import microseconds
from smartgrid_projections.queries.fine_trends import Source, fine_rows
from smartgrid_projections.queries.trends import ComparedTrend, Holding, Trend, TrendsQuery, trends
from smartgrid_projections.read_models.consumption_tables import FIRST_US, FOREVER

TIRANE = ZoneInfo("Europe/Tirane")


def asked(recorder: MeterRecorder, query: TrendsQuery) -> list[Trend] | None:
    source = MemoryTrends(folded(recorder, []), len(recorder.log.events["telemetry"]))

    async def scenario() -> list[Trend] | None:
        return (await trends(source, query))[0]

    return anyio.run(scenario)


def quarterly(
    start: datetime, number: int, wh: int = 250, meter: str = "m1", skip: Sequence[int] = ()
) -> MeterRecorder:
    recorder = MeterRecorder()
    first = microseconds(start)
    recorder.read(meter, [(first + i * QUARTER, i * wh / 1000) for i in range(number) if i not in skip])
    return recorder


def day(name: str) -> datetime:
    return datetime.fromisoformat(name).replace(tzinfo=TIRANE)


def test_days_follow_the_local_clock_and_add_up_to_the_register() -> None:
    recorder = quarterly(day("2026-03-28"), 3 * 96 + 1)

    rows = asked(
        recorder, TrendsQuery(start=day("2026-03-28"), end=day("2026-03-31"), interval="1d", zone=TIRANE, meter_id="m1")
    )

    assert rows is not None
    assert [(row.date.isoformat(), row.hours, row.total_consumption_kwh) for row in rows] == [
        ("2026-03-28T00:00:00+01:00", 24, 24.0),
        ("2026-03-29T00:00:00+01:00", 23, 23.0),
        ("2026-03-30T00:00:00+02:00", 24, 24.0),
    ]
    assert [row.reading_count for row in rows] == [96, 92, 96]
    assert [row.avg_reading for row in rows] == [1.0, 1.0, 1.0]


def test_energy_over_a_long_gap_is_estimated() -> None:
    recorder = quarterly(day("2026-01-15"), 97, skip=range(40, 60))

    (row,) = (
        asked(
            recorder,
            TrendsQuery(start=day("2026-01-15"), end=day("2026-01-16"), interval="1d", zone=TIRANE, meter_id="m1"),
        )
        or []
    )

    assert (row.total_consumption_kwh, row.estimated_kwh, row.reading_count) == (24.0, 21 * 0.25, 76)


def test_coverage_counts_readings_against_the_meters_interval() -> None:
    recorder = quarterly(day("2026-01-15"), 97, skip=range(40, 64))
    query = TrendsQuery(start=day("2026-01-15"), end=day("2026-01-16"), interval="1d", zone=TIRANE, meter_id="m1")
    tables = folded(recorder, [])
    state = (anyio.run(tables.states, ["m1"]))["m1"]
    state.meter = state.meter._replace(expected_interval_s=900.0)
    anyio.run(tables.save_states, {"m1": state})

    async def scenario() -> list[Trend] | None:
        return (await trends(MemoryTrends(tables, 1), query))[0]

    assert [row.coverage for row in anyio.run(scenario) or []] == [0.75]
    assert [row.coverage for row in asked(recorder, query) or []] == [None]


def test_comparing_takes_the_same_weekday_or_the_same_date() -> None:
    recorder = quarterly(day("2026-01-08"), 8 * 96 + 1)
    query = TrendsQuery(
        start=day("2026-01-14"), end=day("2026-01-16"), interval="1d", zone=TIRANE, meter_id="m1", compare="previous"
    )

    rows = asked(recorder, query) or []

    compared = [row for row in rows if isinstance(row, ComparedTrend)]
    assert [(row.date.day, row.compared_kwh) for row in compared] == [(14, None), (15, 24.0)]


def test_cost_is_energy_times_the_price() -> None:
    recorder = quarterly(day("2026-01-15"), 97)
    query = TrendsQuery(
        start=day("2026-01-15"), end=day("2026-01-16"), interval="1d", zone=TIRANE, meter_id="m1", price_eur_per_kwh=0.5
    )

    assert [row.cost_eur for row in asked(recorder, query) or []] == [12.0]


def test_a_customer_sees_what_was_counted_while_the_meter_was_his() -> None:
    recorder = MeterRecorder()
    recorder.record(
        [
            Step("customer", "m1", START_US, customer="c1"),
            Step("read", "m1", START_US + HOUR, 0),
            Step("customer", "m1", START_US + HOUR + 2 * QUARTER, customer="c2"),
            Step("read", "m1", START_US + 2 * HOUR, 1000),
        ]
    )
    start, end = at(START_US), at(START_US + 24 * HOUR)

    def total(customer_id: str | None = None, meter_id: str | None = None, only_customer: str | None = None) -> object:
        query = TrendsQuery(
            start=start,
            end=end,
            interval="1d",
            zone=ZoneInfo("UTC"),
            customer_id=customer_id,
            meter_id=meter_id,
            only_customer=only_customer,
        )
        rows = asked(recorder, query)
        return None if rows is None else sum(row.total_consumption_kwh for row in rows)

    assert (total(customer_id="c1"), total(customer_id="c2"), total(meter_id="m1")) == (0.5, 0.5, 1.0)
    assert (total(meter_id="m1", only_customer="c1"), total(meter_id="m1", only_customer="c3")) == (0.5, None)
    assert total(customer_id="c9") is None


@settings(max_examples=60, deadline=None)
@given(steps(), st.integers(0, 23), st.integers(1, 40))
def test_rows_from_readings_equal_the_stored_ones(what: list[Step], first: int, number: int) -> None:
    recorder = MeterRecorder()
    recorder.record(what)
    start = START_US // HOUR * HOUR + first * HOUR
    edges = [start + i * HOUR for i in range(number + 1)]
    sources = [
        Source(
            series=series,
            breaks=[item for (meter, _, _), item in recorder.breaks.items() if meter == name.subject_id],
            rollover_at_wh=recorder.rollovers.get(name.subject_id),
            holdings=[Holding(FIRST_US, FOREVER, None)],
        )
        for series, (_, name) in recorder.register.names.items()
    ]

    async def scenario() -> dict[int, tuple[int, int, int]]:
        rows = await fine_rows(
            recorder.register, len(recorder.log.events["telemetry"]), sources, np.array(edges, np.int64)
        )
        columns = (rows.start_us, rows.wh, rows.estimated_wh, rows.readings)
        return {s: (w, e, n) for s, w, e, n in zip(*(column.tolist() for column in columns), strict=True)}

    expected: dict[int, list[int]] = {}
    for (_, at_us), numbers in oracle(recorder)[0].items():
        if edges[0] <= at_us < edges[-1]:
            sums = expected.setdefault(at_us // HOUR * HOUR, [0, 0, 0])
            for i, number_ in enumerate(numbers):
                sums[i] += number_

    assert anyio.run(scenario) == {key: tuple(sums) for key, sums in expected.items()}


def test_days_of_a_zone_with_half_hours_are_exact() -> None:
    kolkata = ZoneInfo("Asia/Kolkata")
    start = datetime(2026, 1, 15, tzinfo=kolkata)
    recorder = quarterly(start, 2 * 96 + 1)
    query = TrendsQuery(
        start=start, end=datetime(2026, 1, 17, tzinfo=kolkata), interval="1d", zone=kolkata, meter_id="m1"
    )

    assert [row.total_consumption_kwh for row in asked(recorder, query) or []] == [24.0, 24.0]
