"""Statistics of sensor readings over any range, in local buckets or as a whole: few stored buckets, merged exactly."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from math import sqrt
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import UNSET, Struct, UnsetType

from smartgrid_domain.maths.calendar import Interval, bounds, instant, microseconds
from smartgrid_domain.maths.exact import Numbers
from smartgrid_domain.maths.histograms import WIDTHS, doubled_midpoint
from smartgrid_domain.maths.quantities import MEASURANDS, Ints
from smartgrid_domain.maths.rollups import Rollups, joined, mean, regroup, variance
from smartgrid_projections.read_models.aggregates import LEVELS_US, fold_readings
from smartgrid_projections.register import Readings, SeriesName

READINGS_LEVEL: Final = -1
"""Level of a span that is read from the register, reading by reading."""

PERCENTS: Final = (5, 50, 95)
"""Percentiles that are answered."""

MOST_BUCKETS: Final = 100_000
"""No answer has more buckets per series."""


class Span(NamedTuple):
    """
    A stretch of time and where it is read.

    Attributes:
        level: Of :data:`~smartgrid_projections.read_models.aggregates.LEVELS_US`, or :data:`READINGS_LEVEL`.
        start_us: Its begin [µs since 1970].
        end_us: Its end, not included [µs since 1970].
    """

    level: int
    start_us: int
    end_us: int


class Wanted(Struct, frozen=True, kw_only=True):
    """
    Which series are asked for, and which parts of them.

    Attributes:
        sensor_id: Only this sensor.
        measurand: Only this measurand.
        phase: Only this phase.
        spans: Disjoint.
        as_of: As they were at this position, whatever the read model includes; absent: as they are in it.
    """

    sensor_id: str | None
    measurand: str | None
    phase: str | None
    spans: Sequence[Span]
    as_of: int | None = None


class Snapshot(Struct, frozen=True, kw_only=True):
    """
    What the read model holds of it, all as of one position.

    Attributes:
        position: Last event that is folded in.
        series: Names by id, of those asked for; they need not have readings in the spans.
        intervals: Time between two readings of sensors for which it is known [s].
        rollups: Buckets of the spans.
        readings: Readings of the spans of :data:`READINGS_LEVEL`.
    """

    position: int
    series: Mapping[int, SeriesName]
    intervals: Mapping[str, float]
    rollups: Rollups
    readings: Readings


@runtime_checkable
class StatsSource(Protocol):
    """The read model of the aggregates."""

    async def read(self, wanted: Wanted) -> Snapshot:
        """
        Return the parts that are *wanted*.

        Raises:
            Unavailable: The database cannot be reached.
        """
        ...


class StatsRow(Struct, frozen=True, kw_only=True):
    """
    Statistics of one sensor and measurand, in its canonical unit.

    Attributes:
        sensor_id: The sensor.
        sensor_type: The measurand.
        unit: Canonical unit.
        avg_value: Mean, correctly rounded.
        min_value: Least.
        max_value: Greatest.
        stddev_value: Square root of the sample variance; null of one reading.
        count: Number of readings.
        coverage: Received ÷ expected readings, at most 1; null when the interval between them is not known.
        p05_value: Percentile 5, within half a bin.
        median_value: Percentile 50.
        p95_value: Percentile 95.
    """

    sensor_id: str
    sensor_type: str
    unit: str
    avg_value: float
    min_value: float
    max_value: float
    stddev_value: float | None
    count: int
    coverage: float | None
    p05_value: float
    median_value: float
    p95_value: float


class BucketStatsRow(StatsRow, frozen=True, kw_only=True):
    """
    The same of one local bucket; only readings inside the range asked for count.

    Attributes:
        bucket_start: Its begin, with the zone's offset.
        bucket_end: Its end, not included.
    """

    bucket_start: datetime | UnsetType = UNSET
    bucket_end: datetime | UnsetType = UNSET


class StatsQuery(Struct, frozen=True, kw_only=True):
    """
    A question.

    Attributes:
        start: Begin of the range.
        end: End of the range, not included.
        interval: Length of buckets; none for the range as a whole.
        zone: Whose clock buckets follow.
        sensor_id: Only this sensor.
        measurand: Only this measurand.
        phase: Only this phase; else phases count together.
        as_of: What was recorded after this position does not exist.
    """

    start: datetime
    end: datetime
    interval: Interval | None = None
    zone: ZoneInfo
    sensor_id: str | None = None
    measurand: str | None = None
    phase: str | None = None
    as_of: int | None = None


class TooManyBuckets(ValueError):
    """The range has more buckets than an answer may have: ask for a shorter range or a longer interval."""


async def stats(source: StatsSource, query: StatsQuery) -> tuple[list[StatsRow], int]:
    """
    Return the rows, ordered by sensor, measurand and bucket, and the position that they include.

    Raises:
        TooManyBuckets: See there.
        OverflowError: The range is outside the calendar.
        Unavailable: The database cannot be reached.
    """
    start_us, end_us = microseconds(query.start), microseconds(query.end)
    edges = _edges(start_us, end_us, query)
    fine = query.interval == "1m"
    clipped = np.clip(edges, start_us, end_us)
    snapshot = await source.read(
        Wanted(
            sensor_id=query.sensor_id,
            measurand=query.measurand,
            phase=query.phase,
            spans=[Span(READINGS_LEVEL, start_us, end_us)] if fine else spans_of(clipped.tolist()),
            as_of=query.as_of,
        )
    )
    return _rows(snapshot, query, edges, clipped), snapshot.position


def _edges(start_us: int, end_us: int, query: StatsQuery) -> Ints:
    if query.interval is None:
        return np.array([start_us, end_us], np.int64)
    least_us = {"1m": 60, "15m": 900, "1h": 3600}.get(query.interval, 82_800) * 1_000_000
    if (end_us - start_us) // least_us > MOST_BUCKETS:
        raise TooManyBuckets
    return bounds(start_us, end_us, query.interval, query.zone)


def spans_of(edges: Sequence[int]) -> list[Span]:
    """
    Return spans that cover the buckets between *edges*, none across an edge of a bucket, in as few rows as can be.

    Example:
        >>> quarter = LEVELS_US[0]
        >>> [tuple(span) for span in spans_of([0, 5 * quarter, 5 * quarter + 1])] == [
        ...     (1, 0, 4 * quarter), (0, 4 * quarter, 5 * quarter), (-1, 5 * quarter, 5 * quarter + 1)]
        True
    """
    spans: list[Span] = []
    for start, end in pairwise(edges):
        for span in cover(start, end, len(LEVELS_US) - 1):
            if spans and spans[-1].level == span.level and spans[-1].end_us == span.start_us:
                spans[-1] = spans[-1]._replace(end_us=span.end_us)
            else:
                spans.append(span)
    return spans


def cover(start: int, end: int, level: int) -> list[Span]:
    """Return spans that cover a stretch of time [µs since 1970] in buckets of *level* and below, and readings."""
    if start >= end:
        return []
    if level < 0:
        return [Span(READINGS_LEVEL, start, end)]
    length = LEVELS_US[level]
    first, last = -(-start // length) * length, end // length * length
    if first >= last:
        return cover(start, end, level - 1)
    return [*cover(start, first, level - 1), Span(level, first, last), *cover(last, end, level - 1)]


def _rows(snapshot: Snapshot, query: StatsQuery, edges: Ints, clipped: Ints) -> list[StatsRow]:
    measurand_of = {series_id: name.measurand for series_id, name in snapshot.series.items()}
    readings = snapshot.readings
    parts = joined(snapshot.rollups, fold_readings(readings, measurand_of, _starts(edges, readings.measured_at_us)))
    if not len(parts):
        return []
    groups = sorted({(name.subject_id, name.measurand) for name in snapshot.series.values()})
    group_of = {group: i for i, group in enumerate(groups)}
    ids = np.array(sorted(snapshot.series), np.int64)
    own = np.array([group_of[snapshot.series[i].subject_id, snapshot.series[i].measurand] for i in ids.tolist()])
    series = own[np.searchsorted(ids, parts.series)]
    phases = [len(set(parts.series[series == group].tolist())) for group in range(len(groups))]
    merged = regroup(parts, series=series, start_us=_starts(edges, parts.start_us))
    places, of, n_of, s_of, q_of, lows, highs = (
        _whole(column)
        for column in (
            np.searchsorted(edges, merged.start_us),
            merged.series,
            merged.n,
            merged.s,
            merged.q,
            merged.low,
            merged.high,
        )
    )
    lengths_us = _whole(clipped[1:] - clipped[:-1])
    rows: list[StatsRow] = []
    for row, bins in enumerate(percentile_bins(merged)):
        place, group, n, s, q = places[row], of[row], n_of[row], s_of[row], q_of[row]
        sensor_id, name = groups[group]
        measurand, width = MEASURANDS[name], WIDTHS[name]
        scale = measurand.scale
        spread = variance(n, s, q, scale)
        interval_s = snapshot.intervals.get(sensor_id)
        p05, median, p95 = (doubled_midpoint(own, width) / (2 * scale) for own in bins)
        values: dict[str, Any] = {
            "sensor_id": sensor_id,
            "sensor_type": name,
            "unit": measurand.unit,
            "avg_value": mean(n, s, scale),
            "min_value": lows[row] / scale,
            "max_value": highs[row] / scale,
            "stddev_value": None if spread is None else sqrt(spread),
            "count": n,
            "coverage": _coverage(n, interval_s, lengths_us[place] * phases[group]) if interval_s else None,
            "p05_value": p05,
            "median_value": median,
            "p95_value": p95,
        }
        if query.interval is None:
            rows.append(StatsRow(**values))
        else:
            start, end = (instant(int(edge), query.zone) for edge in edges[place : place + 2])
            rows.append(BucketStatsRow(**values, bucket_start=start, bucket_end=end))
    return rows


def _whole(column: Numbers) -> list[int]:
    numbers: list[int] = column.tolist()
    return numbers


def _coverage(received: int, interval_s: float, length_us: int) -> float:
    return min(1.0, round(received * interval_s * 1e6 / length_us, 6))


def percentile_bins(rollups: Rollups) -> list[list[int]]:
    """
    Return the bins of :data:`PERCENTS` of each bucket, of all buckets at once.

    Guarantees:
        Those that ``smartgrid_domain.maths.rollups.statistics`` takes.
    """
    histograms = rollups.histograms
    running = np.cumsum(histograms.counts)
    before = np.concatenate((np.zeros(1, np.int64), running))[histograms.offsets[:-1]]
    ranks = np.maximum(1, -(-np.array(PERCENTS)[:, None] * rollups.n // 100))
    bins: list[list[int]] = histograms.bins[np.searchsorted(running, before + ranks)].T.tolist()
    return bins


def _starts(edges: Ints, at_us: Ints) -> Ints:
    return edges[np.searchsorted(edges, at_us, side="right") - 1]


UTC_ZONE: Final = ZoneInfo("UTC")
"""The default zone of buckets."""
