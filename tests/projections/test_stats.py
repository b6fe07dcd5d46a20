from collections.abc import Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from math import sqrt
from zoneinfo import ZoneInfo

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.projections.facts import EPOCH, START_US, Fact, Reading, Recorder, arrivals, chains
from tests.projections.test_aggregates import quanta_of, recorded

from smartgrid_adapters.memory.rollups import MemoryRollups
from smartgrid_adapters.memory.stats import MemoryStats
from smartgrid_domain.maths.histograms import WIDTHS, doubled_percentile
from smartgrid_domain.maths.quantities import MEASURANDS
from smartgrid_projections.queries.stats import (
    UTC_ZONE,
    BucketStatsRow,
    Span,
    StatsQuery,
    StatsRow,
    TooManyBuckets,
    Wanted,
    percentile_bins,
    spans_of,
    stats,
)
from smartgrid_projections.read_models.aggregates import LEVELS_US, project

SECOND = 1_000_000
ZONES = st.sampled_from([ZoneInfo(name) for name in ("UTC", "Europe/Tirane", "Asia/Kolkata")])


def source_of(recorder: Recorder) -> MemoryStats:
    tables = MemoryRollups(recorder.register)
    events = recorder.log.events["telemetry"]

    async def scenario() -> None:
        if events:
            await project(events, tables)

    anyio.run(scenario)
    return MemoryStats(tables, len(events))


def asked(source: MemoryStats, query: StatsQuery) -> Sequence[StatsRow]:
    async def scenario() -> Sequence[StatsRow]:
        return (await stats(source, query))[0]

    return anyio.run(scenario)


def at(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


@st.composite
def queries(draw: st.DrawFn) -> StatsQuery:
    start = START_US + draw(st.integers(-3 * 86_400, 3 * 86_400)) * SECOND
    return StatsQuery(
        start=at(start),
        end=at(start + draw(st.integers(1, 5 * 86_400)) * SECOND),
        interval=draw(st.sampled_from([None, "15m", "1h", "1d", "1w", "1mo"])),
        zone=draw(ZONES),
        sensor_id=draw(st.sampled_from([None, "s1"])),
        measurand=draw(st.sampled_from([None, "voltage"])),
        phase=draw(st.sampled_from([None, "L1"])),
    )


def local_start(moment: datetime, query: StatsQuery) -> datetime | None:
    local = moment.astimezone(query.zone)
    day = local.replace(hour=0, minute=0, second=0, microsecond=0)
    match query.interval:
        case "15m":
            return local.replace(minute=local.minute // 15 * 15, second=0, microsecond=0)
        case "1h":
            return local.replace(minute=0, second=0, microsecond=0)
        case "1d":
            return day
        case "1w":
            return day - timedelta(days=day.weekday())
        case "1mo":
            return day.replace(day=1)
        case _:
            return None


def oracle(of: Sequence[Sequence[Fact]], query: StatsQuery) -> list[tuple[object, ...]]:
    """Count, mean, extremes, deviation and buckets by the book."""
    groups: dict[tuple[str, str, datetime | None], list[int]] = {}
    for chain in of:
        reading, last = chain[0].reading, chain[-1]
        moment = at(reading.at_us)
        if (
            last.kind != "retract"
            and query.start <= moment < query.end
            and query.sensor_id in (None, reading.sensor_id)
            and query.measurand in (None, reading.measurand)
            and query.phase in (None, reading.phase)
        ):
            key = reading.sensor_id, reading.measurand, local_start(moment, query)
            groups.setdefault(key, []).append(quanta_of(last))
    rows: list[tuple[object, ...]] = []
    for (sensor_id, measurand, start), values in sorted(groups.items(), key=lambda item: str(item[0])):
        scale = MEASURANDS[measurand].scale
        mean = Fraction(sum(values), len(values))
        variance = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1) / scale**2
        rows.append(
            (
                sensor_id,
                measurand,
                start,
                len(values),
                float(mean / scale),
                min(values) / scale,
                max(values) / scale,
                None if len(values) == 1 else sqrt(float(variance)),
            )
        )
    return rows


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_rows_are_those_of_an_oracle_that_counts_readings_one_by_one(data: st.DataObject) -> None:
    of = data.draw(chains())
    source = source_of(recorded(data.draw(arrivals(of))))
    query = data.draw(queries())

    rows = asked(source, query)

    assert [
        (
            row.sensor_id,
            row.sensor_type,
            row.bucket_start if isinstance(row, BucketStatsRow) else None,
            row.count,
            row.avg_value,
            row.min_value,
            row.max_value,
            row.stddev_value,
        )
        for row in rows
    ] == oracle(of, query)
    for row in rows:
        width = (WIDTHS[row.sensor_type] or 1) / MEASURANDS[row.sensor_type].scale
        slack = width + 0.01 * max(abs(row.min_value), abs(row.max_value))
        assert row.min_value - slack <= row.p05_value <= row.median_value <= row.p95_value <= row.max_value + slack


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 10**12), min_size=2, unique=True).map(sorted))
def test_spans_cover_the_range_once_and_keep_to_stored_buckets(edges: list[int]) -> None:
    spans = spans_of(edges)

    assert [span.start_us for span in spans] == [edges[0], *(span.end_us for span in spans[:-1])]
    assert spans[-1].end_us == edges[-1]
    for span in spans:
        if span.level >= 0:
            length = LEVELS_US[span.level]
            assert span.start_us % length == span.end_us % length == 0


def day(name: str, hour: int = 0) -> datetime:
    return datetime.fromisoformat(name).replace(hour=hour, tzinfo=ZoneInfo("Europe/Tirane"))


def minutely(count: int, start: datetime) -> Recorder:
    recorder = Recorder()
    first = (start - EPOCH) // timedelta(microseconds=1)

    recorder.record(
        [
            Fact(Reading("s1", "voltage", None, first + i * 60 * SECOND, -1), "read", 230.0 + i % 3, "V")
            for i in range(count)
        ]
    )
    return recorder


def test_a_day_of_a_clock_change_has_its_own_length() -> None:
    source = source_of(minutely(25 * 60, day("2026-03-29")))

    rows = asked(
        source,
        StatsQuery(start=day("2026-03-29"), end=day("2026-03-31"), interval="1d", zone=ZoneInfo("Europe/Tirane")),
    )

    assert [row.count for row in rows] == [23 * 60, 2 * 60]


def test_coverage_is_received_by_expected_readings_and_null_without_an_interval() -> None:
    source = source_of(minutely(90, day("2026-01-15")))
    query = StatsQuery(start=day("2026-01-15"), end=day("2026-01-15", 2), zone=UTC_ZONE)
    before = asked(source, query)
    source.tables.intervals["s1"] = 60.0

    after = asked(source, query)

    assert [row.coverage for row in before] == [None]
    assert [row.coverage for row in after] == [0.75]


def test_minutes_come_from_the_readings() -> None:
    source = source_of(minutely(3, day("2026-01-15")))

    rows = asked(source, StatsQuery(start=day("2026-01-15"), end=day("2026-01-15", 1), interval="1m", zone=UTC_ZONE))

    assert [(row.count, row.avg_value) for row in rows] == [(1, 230.0), (1, 231.0), (1, 232.0)]


def test_more_buckets_than_an_answer_holds_are_refused() -> None:
    query = StatsQuery(start=day("2020-01-01"), end=day("2026-01-01"), interval="1m", zone=UTC_ZONE)

    with pytest.raises(TooManyBuckets):
        asked(MemoryStats(MemoryRollups(Recorder().register)), query)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_percentiles_of_many_buckets_are_those_of_each(data: st.DataObject) -> None:
    of = data.draw(chains())
    source = source_of(recorded(data.draw(arrivals(of))))
    span = Span(0, START_US - 40 * 86_400 * SECOND, START_US + 40 * 86_400 * SECOND)
    snapshot = anyio.run(source.read, Wanted(sensor_id=None, measurand=None, phase=None, spans=[span]))
    rollups = snapshot.rollups

    expected = [
        [doubled_percentile(*rollups.histograms.of(row), 1, percent) // 2 for percent in (5, 50, 95)]
        for row in range(len(rollups))
    ]

    assert percentile_bins(rollups) == expected
