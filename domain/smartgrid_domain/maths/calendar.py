"""
Local buckets: quarters, hours, days, weeks and months of a time zone, as half-open spans of UTC.

A local day runs from midnight to midnight, so it has 23 or 25 hours where the clock changes; weeks begin on Monday.
Hours and shorter buckets begin where the local clock shows a whole one, and at midnight.
Bounds depend on nothing but the zone and the interval, never on the range that was asked for.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Final, Literal, NamedTuple, cast, get_args
from zoneinfo import ZoneInfo

import numpy as np

from smartgrid_domain.maths.quantities import Ints

Interval = Literal["1m", "15m", "1h", "1d", "1w", "1mo"]
"""Lengths of buckets that can be asked for."""

INTERVALS: Final[tuple[str, ...]] = get_args(Interval)
HOUR_US: Final = 3_600_000_000

_SECOND_US: Final = 1_000_000
_STEPS: Final = {"1m": 60, "15m": 900, "1h": 3600}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = date(1, 1, 3)
_LAST: Final = date(9999, 12, 28)


class UnknownZone(ValueError):
    """No such IANA time zone: write a name such as ``Europe/Tirane``."""


class Bucket(NamedTuple):
    """
    A half-open span of time.

    Attributes:
        start_us: First instant [µs since 1970].
        end_us: First instant after it [µs since 1970].
    """

    start_us: int
    end_us: int

    @property
    def hours(self) -> float:
        """Length [h]: 23.0, 24.0 or 25.0 of a day."""
        return (self.end_us - self.start_us) / HOUR_US


def zone_of(name: str) -> ZoneInfo:
    """
    Return the time zone of a name.

    Raises:
        UnknownZone: There is none.

    Example:
        >>> zone_of("Europe/Tirane").key
        'Europe/Tirane'
    """
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError) as error:  # by the name: with .., a folder, absent
        raise UnknownZone(f"{name!r} is no IANA time zone") from error


def microseconds(at: datetime) -> int:
    """
    Return an instant with offset as µs since 1970.

    Example:
        >>> microseconds(datetime(1970, 1, 1, 1, tzinfo=UTC))
        3600000000
    """
    return (at - _EPOCH) // timedelta(microseconds=1)


def instant(at_us: int, zone: ZoneInfo) -> datetime:
    """
    Return µs since 1970 as an instant with the offset of a zone.

    Raises:
        OverflowError: It is outside the years 1…9999.

    Example:
        >>> instant(1774738800000000, zone_of("Europe/Tirane")).isoformat()
        '2026-03-29T00:00:00+01:00'
    """
    return (_EPOCH + timedelta(microseconds=int(at_us))).astimezone(zone)


def bounds(first_us: int, last_us: int, interval: Interval, zone: ZoneInfo) -> Ints:
    """
    Return the bounds of all buckets that hold an instant from *first_us* up to, but not including, *last_us*.

    Args:
        first_us: Begin of the range [µs since 1970].
        last_us: End of the range; when it is not later, the one bucket that holds *first_us* is meant.
        interval: Length of the buckets.
        zone: Whose clock counts.

    Returns:
        Ascending [µs since 1970] (int64), one more than there are buckets: the first is not after *first_us*, the
        last not before *last_us*.

    Raises:
        OverflowError: The range is outside the years 1…9999.

    Guarantees:
        Bounds of days are bounds of hours, those are bounds of quarters; a part of a range has a part of its bounds.

    Example:
        >>> tirane = zone_of("Europe/Tirane")
        >>> day = microseconds(datetime(2026, 3, 28, 23, tzinfo=UTC))
        >>> np.diff(bounds(day, day + 1, "1d", tirane)) // HOUR_US
        array([23])
    """
    end_us = max(last_us, first_us + 1)
    days = list(_days(first_us, end_us, interval, zone))
    step = _STEPS.get(interval)
    if step is not None:
        fine = [_within_day(start, end, step * _SECOND_US, zone) for start, end in pairwise(days)]
        result = np.concatenate([*fine, np.array(days[-1:], np.int64)])
    else:
        result = np.array(days, np.int64)
    low = int(np.searchsorted(result, first_us, side="right")) - 1
    high = int(np.searchsorted(result, end_us, side="left"))
    return result[low : high + 1]


def _days(first_us: int, end_us: int, interval: Interval, zone: ZoneInfo) -> Iterator[int]:
    """Yield the local midnights of the calendar's buckets from one not after *first_us* to one not before *end_us*."""
    day = _floor(instant(first_us, zone).date() - timedelta(days=1), interval)
    last: int | None = None
    while True:
        if not _FIRST <= day <= _LAST:
            raise OverflowError("the range is outside the calendar")
        at = _midnight(day, zone)
        day = _next(day, interval)
        if last is not None and at <= last:
            continue  # a day that a zone left out when it crossed the date line
        yield at
        if at >= end_us:
            return
        last = at


def _floor(day: date, interval: Interval) -> date:
    if interval == "1mo":
        return day.replace(day=1)
    if interval == "1w":
        return day - timedelta(days=day.weekday())
    return day


def _next(day: date, interval: Interval) -> date:
    if interval == "1mo":
        return (day.replace(day=28) + timedelta(days=4)).replace(day=1)
    return day + timedelta(days=7 if interval == "1w" else 1)


def _midnight(day: date, zone: ZoneInfo) -> int:
    """Return the first instant whose local time is midnight, or the clock change that leaves midnight out."""
    local = datetime(day.year, day.month, day.day, tzinfo=zone)
    at = microseconds(local.astimezone(UTC))
    if instant(at, zone).replace(tzinfo=None) == local.replace(tzinfo=None):
        return at
    # Midnight was skipped. The change is the first instant with the new offset.
    early, late = at - 24 * HOUR_US, at
    before = instant(early, zone).utcoffset()
    while late - early > _SECOND_US:
        middle = (early + late) // 2 // _SECOND_US * _SECOND_US
        if instant(middle, zone).utcoffset() == before:
            early = middle
        else:
            late = middle
    return late


def _within_day(start_us: int, end_us: int, step_us: int, zone: ZoneInfo) -> Ints:
    """Return the bounds inside one local day, its begin but not its end."""
    offset = _offset_us(start_us, zone)
    if offset == _offset_us(end_us - 1, zone):
        first = start_us + step_us - (start_us + offset) % step_us
        return np.concatenate((np.array([start_us], np.int64), np.arange(first, end_us, step_us, dtype=np.int64)))
    result: list[int] = []
    at = start_us
    while at < end_us:
        result.append(at)
        at += step_us - (at + _offset_us(at, zone)) % step_us
    return np.array(result, np.int64)


def _offset_us(at_us: int, zone: ZoneInfo) -> int:
    return cast("timedelta", instant(at_us, zone).utcoffset()) // timedelta(microseconds=1)


def buckets(first_us: int, last_us: int, interval: Interval, zone: ZoneInfo) -> list[Bucket]:
    """
    Return the buckets that hold an instant of a range, in order; as :func:`bounds`.

    Example:
        >>> [b.hours for b in buckets(0, 2 * HOUR_US, "1h", zone_of("Asia/Kolkata"))]
        [1.0, 1.0, 1.0]
    """
    return [Bucket(start, end) for start, end in pairwise(bounds(first_us, last_us, interval, zone).tolist())]


def starts_of(at_us: Ints, interval: Interval, zone: ZoneInfo) -> Ints:
    """
    Return the start of the local bucket that holds each instant [µs since 1970].

    Example:
        >>> starts_of(np.array([0, 23 * HOUR_US]), "1d", zone_of("Europe/Tirane")) // HOUR_US
        array([-1, 23])
    """
    if not len(at_us):
        return at_us
    days = np.unique(at_us // (24 * HOUR_US))
    breaks = np.flatnonzero(np.diff(days) > 1) + 1  # nothing is made for the years between two readings
    runs = [
        bounds(int(run[0]) * 24 * HOUR_US, (int(run[-1]) + 1) * 24 * HOUR_US, interval, zone)
        for run in np.split(days, breaks)
    ]
    edges = np.unique(np.concatenate(runs))
    return edges[np.searchsorted(edges, at_us, side="right") - 1]


def splits_hours(zone: ZoneInfo, first_us: int, last_us: int) -> bool:
    """
    Tell whether local days of a range begin inside a UTC hour, so that they are sums of UTC quarters, not hours.

    Example:
        >>> splits_hours(zone_of("Asia/Kolkata"), 0, HOUR_US), splits_hours(zone_of("Europe/Tirane"), 0, HOUR_US)
        (True, False)
    """
    return bool((bounds(first_us, last_us, "1d", zone) % HOUR_US).any())
