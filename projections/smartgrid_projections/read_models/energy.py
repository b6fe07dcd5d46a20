"""Energy and readings of registers, cut to UTC hours and to the instants at which a meter's customer changed."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from smartgrid_domain.maths.quantities import Ints
from smartgrid_domain.maths.registers import Folded
from smartgrid_domain.maths.spreading import Intervals, bounds_around, spread

HOUR_US: Final = 3_600_000_000
"""Length of a bucket [µs]."""

_OBIS: Final = re.compile(r"(?:[0-9]+-[0-9]+:)?([0-9]+)\.8\.([0-9]+)(?:\*[0-9]+)?\Z", re.ASCII)


def counts(register: str) -> bool:
    """
    Tell whether what a register counted is consumption.

    The total 1.8.0 is. Other energy registers by their OBIS code are not: those of tariffs are parts of it, 2.8.0 is
    energy that the customer delivered. A name that is no such code is taken at its word.

    Example:
        >>> [counts(name) for name in ("1.8.0", "1-0:1.8.0*255", "1.8.1", "2.8.0", "main")]
        [True, True, False, False, True]
    """
    match = _OBIS.match(register)
    return match is None or match.groups() == ("1", "0")


class Bounded(Protocol):
    """Something with a begin and an end [µs since 1970]."""

    @property
    def since_us(self) -> int:
        """First instant."""
        ...

    @property
    def until_us(self) -> int:
        """First instant after it."""
        ...


class Standing(Protocol):
    """Where a register stands."""

    @property
    def at_us(self) -> int:
        """When it was read [µs since 1970]."""
        ...

    @property
    def wh(self) -> int:
        """The reading [Wh]."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """
    Rows of consumption as arrays of one length.

    Attributes:
        series: Register of each (int64).
        start_us: Its begin, a UTC hour or an instant within one [µs since 1970] (int64).
        wh: Energy [Wh] (int64).
        estimated_wh: Part of it that was spread over more than two hours [Wh] (int64).
        readings: Readings in it that count (int64).
    """

    series: Ints
    start_us: Ints
    wh: Ints
    estimated_wh: Ints
    readings: Ints

    def rows(self) -> Iterable[tuple[int, int, int, int, int]]:
        """Yield series, start, Wh, estimated Wh and readings of each row."""
        columns = (self.series, self.start_us, self.wh, self.estimated_wh, self.readings)
        return zip(*(column.tolist() for column in columns), strict=True)

    def negative(self) -> "Parts":
        """Return what takes these away."""
        return Parts(
            series=self.series,
            start_us=self.start_us,
            wh=-self.wh,
            estimated_wh=-self.estimated_wh,
            readings=-self.readings,
        )

    @staticmethod
    def summed(each: Sequence["Parts"]) -> "Parts":
        """Return the sums by series and start, sorted, without rows that change nothing."""
        series = np.concatenate([parts.series for parts in each])
        start = np.concatenate([parts.start_us for parts in each])
        order = np.lexsort((start, series))
        series, start = series[order], start[order]
        firsts = np.flatnonzero(np.concatenate(([True], (np.diff(series) != 0) | (np.diff(start) != 0)))[: len(series)])
        wh, estimated, readings = (
            np.add.reduceat(np.concatenate(columns)[order], firsts) if len(firsts) else np.zeros(0, np.int64)
            for columns in (
                [parts.wh for parts in each],
                [parts.estimated_wh for parts in each],
                [parts.readings for parts in each],
            )
        )
        return _filled(series[firsts], start[firsts], wh, estimated, readings)


def _filled(series: Ints, start: Ints, wh: Ints, estimated: Ints, readings: Ints) -> Parts:
    full = (wh != 0) | (estimated != 0) | (readings != 0)
    return Parts(
        series=series[full], start_us=start[full], wh=wh[full], estimated_wh=estimated[full], readings=readings[full]
    )


def parts_of(series: int, folded: Folded, cuts: Sequence[Bounded]) -> Parts:
    """
    Return the rows of one register.

    Args:
        series: The register.
        folded: What its readings counted.
        cuts: Instants at which a row ends although its hour does not: begin and end of each.
    """
    at_us = folded.readings.at_us
    bounds = bounds_around(folded.intervals, HOUR_US)
    if len(at_us):
        hours = np.unique(at_us // HOUR_US) * HOUR_US
        bounds = np.unique(np.concatenate((bounds, hours, hours + HOUR_US)))
    if not len(bounds):
        return _filled(bounds, bounds, bounds, bounds, bounds)
    inside = {at for cut in cuts for at in (cut.since_us, cut.until_us) if bounds[0] < at < bounds[-1]}
    bounds = np.unique(np.concatenate((bounds, np.array(sorted(inside), np.int64))))
    shares = spread(folded.intervals, bounds)
    counts = np.bincount(np.searchsorted(bounds, at_us, side="right") - 1, minlength=len(bounds) - 1)
    return _filled(
        np.full(len(bounds) - 1, series, np.int64),
        bounds[:-1],
        shares.wh,
        shares.estimated_wh,
        counts.astype(np.int64),
    )


def joint_parts(series: Sequence[int], at_us: Sequence[Ints], wh: Sequence[Ints], tails: Sequence[Standing]) -> Parts:
    """
    Return the rows of many registers that only went on.

    All of them are spread at once on one axis: each register has a stretch of it to itself.

    Args:
        series: The registers.
        at_us: New readings of each, ascending, all after its tail [µs since 1970].
        wh: Where it stood then [Wh], not descending from the tail's value on.
        tails: The reading before them.
    """
    lengths = np.array([len(one) for one in at_us], np.int64)
    ends = np.concatenate(list(at_us))
    firsts = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)[:-1]))
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    starts[firsts] = [tail.at_us for tail in tails]
    stood = np.concatenate(list(wh))
    before = np.concatenate((np.zeros(1, np.int64), stood[:-1]))
    before[firsts] = [tail.wh for tail in tails]
    first_hour = starts[firsts] // HOUR_US
    last_hour = -(-np.maximum.reduceat(ends, firsts) // HOUR_US) + 1  # a reading on the hour belongs to the next one
    number = last_hour - first_hour
    base = (np.cumsum(number) - number) * HOUR_US
    shift = np.repeat(base - first_hour * HOUR_US, lengths)
    intervals = Intervals(
        start_us=starts + shift, end_us=ends + shift, wh=stood - before, row=np.arange(len(ends), dtype=np.int64)
    )
    bounds = np.arange(int(number.sum()) + 1, dtype=np.int64) * HOUR_US
    shares = spread(intervals, bounds)
    counts = np.bincount((ends + shift) // HOUR_US, minlength=len(bounds) - 1)
    return _filled(
        np.repeat(np.array(series, np.int64), number),
        bounds[:-1] - np.repeat(base - first_hour * HOUR_US, number),
        shares.wh,
        shares.estimated_wh,
        counts.astype(np.int64),
    )
