"""Consumption of a meter or a customer in local buckets. Energy is positive when delivered to the customer."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict

from smartgrid_domain.maths.calendar import HOUR_US, bounds, instant, microseconds, splits_hours
from smartgrid_domain.maths.quantities import Ints
from smartgrid_projections.queries.stats import MOST_BUCKETS, TooManyBuckets

TrendInterval = Literal["1h", "1d", "1w", "1mo"]
Compare = Literal["previous", "year_ago"]

_LEAST_US: Final = {"1h": HOUR_US}


class Holding(NamedTuple):
    """
    When a meter counts, and how often it should be read.

    Attributes:
        since_us: From [µs since 1970].
        until_us: Up to, not included [µs since 1970].
        expected_interval_s: Time between two readings [s]; None when it is not known.
    """

    since_us: int
    until_us: int
    expected_interval_s: float | None


class TrendsWanted(Struct, frozen=True, kw_only=True):
    """
    What is asked for.

    Attributes:
        customer_id: The customer, or else
        meter_id: the meter.
        only_customer: Leave out what a meter counted while it was not this customer's.
        ranges: Stretches of time [µs since 1970]; they may overlap.
        bounds: When the buckets do not begin on UTC hours, or as of a position: their bounds, to which energy is
            spread.
        as_of: As it was at this position, whatever the read model includes; absent: as it is in it.
    """

    customer_id: str | None
    meter_id: str | None
    only_customer: str | None
    ranges: Sequence[tuple[int, int]]
    bounds: Ints | None = None
    as_of: int | None = None


class TrendsSnapshot(Struct, frozen=True, kw_only=True):
    """
    What the read model holds of it, all as of one position.

    Attributes:
        position: Last event that is folded in.
        holdings: Meters that count, and when; none means that there is no such meter or customer.
        start_us: Begin of each row, a UTC hour or less, ascending [µs since 1970].
        wh: Energy of each [Wh].
        estimated_wh: Part of it that was spread over more than two hours [Wh].
        readings: Readings in it.
    """

    position: int
    holdings: Sequence[Holding]
    start_us: Ints
    wh: Ints
    estimated_wh: Ints
    readings: Ints


@runtime_checkable
class TrendsSource(Protocol):
    """The read model of consumption."""

    async def read(self, wanted: TrendsWanted) -> TrendsSnapshot:
        """
        Return the rows that begin in one of the ranges.

        Raises:
            Unavailable: The database cannot be reached.
        """
        ...


class TrendsQuery(Struct, frozen=True, kw_only=True):
    """
    A question; the buckets are those that hold an instant of the range, each as a whole.

    Attributes:
        start: Begin of the range.
        end: End of the range, not included.
        interval: Length of buckets.
        zone: Whose clock they follow.
        customer_id: The customer, or else
        meter_id: the meter.
        only_customer: Leave out what a meter counted while it was not this customer's.
        compare: With what.
        price_eur_per_kwh: Price of a kWh [€], if one is set.
        as_of: What was recorded after this position does not exist.
    """

    start: datetime
    end: datetime
    interval: TrendInterval
    zone: ZoneInfo
    customer_id: str | None = None
    meter_id: str | None = None
    only_customer: str | None = None
    compare: Compare | None = None
    price_eur_per_kwh: float | None = None
    as_of: int | None = None


class Trend(Struct, frozen=True, kw_only=True):
    """
    One local bucket.

    Attributes:
        date: Its begin, with the zone's offset.
        hours: Its length [h]: 23 or 25 of a day on which the clock changes.
        total_consumption_kwh: Energy [kWh], whole Wh.
        avg_reading: Energy per hour [kWh/h].
        reading_count: Readings in it.
        coverage: Received ÷ expected readings, at most 1; null when the interval between them is not known.
        estimated_kwh: Part that was spread over more than two hours [kWh].
        cost_eur: At the configured price [€]; null without one.
    """

    date: datetime
    hours: int | float
    total_consumption_kwh: float
    avg_reading: float
    reading_count: int
    coverage: float | None
    estimated_kwh: float
    cost_eur: float | None


class ComparedTrend(Trend, frozen=True, kw_only=True):
    """
    One local bucket beside another one.

    Attributes:
        compared_kwh: Energy of the bucket it is compared with [kWh]; null without data.
    """

    compared_kwh: float | UnsetType | None = UNSET


async def trends(source: TrendsSource, query: TrendsQuery) -> tuple[list[Trend] | None, int]:
    """
    Return buckets from the first to the last one with data, and the position that they include.

    Returns:
        None for the buckets when there is no such meter or customer.

    Raises:
        TooManyBuckets: Ask for a shorter range or a longer interval.
        OverflowError: The range is outside the calendar.
        Unavailable: The database cannot be reached.
    """
    start_us, end_us = microseconds(query.start), microseconds(query.end)
    if (end_us - start_us) // _LEAST_US.get(query.interval, 23 * HOUR_US) > MOST_BUCKETS:
        raise TooManyBuckets
    edges = bounds(start_us, end_us, query.interval, query.zone)
    others = [] if query.compare is None else _compared(edges, query)
    ranges = [(int(edges[0]), int(edges[-1]))]
    dated = [(start, end) for start, end in others if start < end]
    if dated:
        ranges.append((min(start for start, _ in dated), max(end for _, end in dated)))
    fine = any(splits_hours(query.zone, start, end) for start, end in ranges)
    cuts = np.unique(np.array([*edges.tolist(), *(at for other in dated for at in other)], np.int64))
    snapshot = await source.read(
        TrendsWanted(
            customer_id=query.customer_id,
            meter_id=query.meter_id,
            only_customer=query.only_customer,
            ranges=ranges,
            bounds=cuts if fine or query.as_of is not None else None,
            as_of=query.as_of,
        )
    )
    if not snapshot.holdings and not len(snapshot.start_us):
        return None, snapshot.position
    return _rows(snapshot, query, edges, others), snapshot.position


def _compared(edges: Ints, query: TrendsQuery) -> list[tuple[int, int]]:
    """Return the span that each bucket is compared with; an empty one when there is no such date."""
    starts = [instant(at, query.zone) for at in edges.tolist()]
    moved = [_moved(start, query) for start in starts]
    if query.interval == "1h":
        return [
            (at, at + int(end - start)) if at is not None else (0, 0)
            for at, start, end in zip(moved, edges, edges[1:], strict=False)
        ]
    return [(start, end) if start is not None and end is not None else (0, 0) for start, end in pairwise(moved)]


def _moved(local: datetime, query: TrendsQuery) -> int | None:
    if query.interval == "1mo":
        months = 12 if query.compare == "year_ago" else 1
        year, month = divmod(local.year * 12 + local.month - 1 - months, 12)
        return microseconds(local.replace(year=year, month=month + 1))
    if query.compare == "previous":
        return microseconds(local - timedelta(days=7))
    if query.interval == "1w":
        return microseconds(local - timedelta(weeks=52))
    try:
        return microseconds(local.replace(year=local.year - 1))
    except ValueError:  # the 29th of February
        return None


def _rows(snapshot: TrendsSnapshot, query: TrendsQuery, edges: Ints, others: Sequence[tuple[int, int]]) -> list[Trend]:
    places = np.searchsorted(snapshot.start_us, edges)
    filled = np.flatnonzero(np.diff(places))
    if not len(filled):
        return []
    wh, estimated, readings = (
        np.concatenate((np.zeros(1, np.int64), np.cumsum(column)))
        for column in (snapshot.wh, snapshot.estimated_wh, snapshot.readings)
    )
    expected = _expected(snapshot.holdings, edges)
    rows: list[Trend] = []
    for i in range(int(filled[0]), int(filled[-1]) + 1):
        first, last = int(places[i]), int(places[i + 1])
        total_wh, length_us = int(wh[last] - wh[first]), int(edges[i + 1] - edges[i])
        kwh = total_wh / 1000
        count = int(readings[last] - readings[first])
        hours = length_us / HOUR_US
        row = Trend(
            date=instant(int(edges[i]), query.zone),
            hours=int(hours) if hours.is_integer() else hours,
            total_consumption_kwh=kwh,
            avg_reading=total_wh * HOUR_US / (1000 * length_us),
            reading_count=count,
            coverage=None if expected is None else min(1.0, round(count / expected[i], 6)) if expected[i] else 0.0,
            estimated_kwh=int(estimated[last] - estimated[first]) / 1000,
            cost_eur=None if query.price_eur_per_kwh is None else kwh * query.price_eur_per_kwh,
        )
        if others:
            low, high = np.searchsorted(snapshot.start_us, others[i]).tolist()
            compared = int(wh[high] - wh[low]) / 1000 if high > low else None
            row = ComparedTrend(**asdict(row), compared_kwh=compared)
        rows.append(row)
    return rows


def _expected(holdings: Sequence[Holding], edges: Ints) -> list[float] | None:
    """Return how many readings each bucket should have, None when that is not known of a meter."""
    if any(not holding.expected_interval_s for holding in holdings):
        return None
    total = np.zeros(len(edges) - 1, np.float64)
    for since_us, until_us, interval_s in sorted(holdings):  # floats add up to the same in one order only
        inside = np.diff(np.clip(edges, since_us, until_us)).astype(np.float64)
        total += inside / (1e6 * (interval_s or 1.0))
    return [float(number) for number in total.tolist()]
