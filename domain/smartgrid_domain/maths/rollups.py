"""
Rollups: what is kept of the readings of one series in one span of time, exact and in any order.

A bucket is ``n``, the sum ``S`` and the sum of squares ``Q`` of whole quanta, the extremes and a histogram. Buckets
add and (but for the extremes) subtract exactly, so late readings, corrections and any grouping give the same bytes.
The stored bucket is (series, UTC 15 minutes); hours, local days, weeks and months are sums of these.
A statistic is one correctly rounded division of integers at the very end.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from smartgrid_domain.maths.exact import Numbers, added, small, sums
from smartgrid_domain.maths.histograms import Histograms, doubled_percentile, grouped
from smartgrid_domain.maths.quantities import Flags, Ints

QUARTER_US: Final = 900_000_000
"""Length of a stored bucket [µs]."""

_INT64: Final = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollups:
    """
    Buckets as arrays of one length, sorted by series, then start; none is empty.

    Attributes:
        series: Of each bucket (int64).
        start_us: When it begins [µs since 1970] (int64).
        n: Number of readings, ≥ 1 (int64).
        s: Sum of the readings [quanta].
        q: Sum of their squares [quanta²].
        low: Least reading [quanta].
        high: Greatest reading [quanta].
        histograms: One of each bucket.
    """

    series: Ints
    start_us: Ints
    n: Ints
    s: Numbers
    q: Numbers
    low: Numbers
    high: Numbers
    histograms: Histograms

    def __len__(self) -> int:
        return len(self.n)

    def only(self, rows: Flags) -> "Rollups":
        """Return the buckets that are marked."""
        offsets = self.histograms.offsets
        kept = np.repeat(rows, np.diff(offsets))
        return Rollups(
            series=self.series[rows],
            start_us=self.start_us[rows],
            n=self.n[rows],
            s=small(self.s[rows]),
            q=small(self.q[rows]),
            low=small(self.low[rows]),
            high=small(self.high[rows]),
            histograms=Histograms(
                np.concatenate((np.zeros(1, np.int64), np.cumsum(np.diff(offsets)[rows]))),
                self.histograms.bins[kept],
                self.histograms.counts[kept],
            ),
        )


def empty() -> Rollups:
    """Return no bucket."""
    none = np.zeros(0, np.int64)
    return Rollups(
        series=none,
        start_us=none,
        n=none,
        s=none,
        q=none,
        low=none,
        high=none,
        histograms=Histograms(np.zeros(1, np.int64), none, none),
    )


def quarters(measured_at_us: Ints) -> Ints:
    """
    Return the start of the UTC quarter of an hour that holds each instant [µs since 1970].

    Example:
        >>> quarters(np.array([0, 899_999_999, 900_000_000, -1]))
        array([         0,          0,  900000000, -900000000])
    """
    return measured_at_us - measured_at_us % QUARTER_US


def fold(series: Ints, start_us: Ints, values: Numbers, bins: Ints) -> Rollups:
    """
    Return the buckets of readings in any order.

    Args:
        series: Of each reading.
        start_us: Start of the bucket that it falls into, such as :func:`quarters` gives [µs since 1970].
        values: The readings [quanta], as :func:`~smartgrid_domain.maths.quantities.quanta` gives them.
        bins: Their bins, as :func:`~smartgrid_domain.maths.histograms.bins_of` gives them.

    Guarantees:
        Equal to sums of fractions, for any values; any order and any split with :func:`merge` give the same.

    Example:
        >>> r = fold(np.array([1, 1]), np.array([0, 0]), np.array([3, -4]), np.array([3, -4]))
        >>> r.n, r.s, r.q, r.low, r.high
        (array([2]), array([-1]), array([25]), array([-4]), array([3]))
    """
    if not len(values):
        return empty()
    order, starts = _groups(series, start_us)
    if order is not None:
        series, start_us, values, bins = series[order], start_us[order], values[order], bins[order]
    n = np.diff(starts, append=len(values))
    s, q = sums(values, starts, n)
    return Rollups(
        series=series[starts],
        start_us=start_us[starts],
        n=n,
        s=s,
        q=q,
        low=np.minimum.reduceat(values, starts),
        high=np.maximum.reduceat(values, starts),
        histograms=grouped(np.repeat(np.arange(len(n), dtype=np.int64), n), bins, None, len(n)),
    )


def _groups(series: Ints, start_us: Ints) -> tuple[Ints | None, Ints]:
    """Return the order that sorts rows by series and start (None: they are), and where each bucket begins then."""
    steps, jumps = np.diff(series), np.diff(start_us)
    order: Ints | None = None
    if bool(np.any((steps < 0) | ((steps == 0) & (jumps < 0)))):
        order = _order(series, start_us)
        steps, jumps = np.diff(series[order]), np.diff(start_us[order])
    return order, np.concatenate((np.zeros(1, np.int64), np.flatnonzero((steps != 0) | (jumps != 0)) + 1))


def _order(series: Ints, start_us: Ints) -> Ints:
    first, least = int(series.min()), int(start_us.min())
    slots = (start_us - least) // QUARTER_US
    span = int(slots.max()) + 1
    if (int(series.max()) - first + 1) * span < _INT64 and not (start_us % QUARTER_US).any():
        return np.argsort((series - first) * span + slots, kind="stable")
    return np.lexsort((start_us, series))


def merge(*parts: Rollups) -> Rollups:
    """
    Return the sum of some buckets: those of one series and start become one.

    Guarantees:
        Associative and commutative; equal to one :func:`fold` of all their readings.

    Example:
        >>> part = fold(np.array([1]), np.array([0]), np.array([3]), np.array([3]))
        >>> merge(part, part).q
        array([18])
    """
    return regroup(joined(*parts))


def joined(*parts: Rollups) -> Rollups:
    """Return the buckets of some parts, part after part: what :func:`regroup` takes, not yet sorted or added up."""
    filled = [part for part in parts if len(part)]
    if not filled:
        return empty()
    if len(filled) == 1:
        return filled[0]
    sizes = np.cumsum([0, *(len(part.histograms.bins) for part in filled)])[:-1].tolist()
    return Rollups(
        series=np.concatenate([part.series for part in filled]),
        start_us=np.concatenate([part.start_us for part in filled]),
        n=np.concatenate([part.n for part in filled]),
        s=np.concatenate([part.s for part in filled]),
        q=np.concatenate([part.q for part in filled]),
        low=np.concatenate([part.low for part in filled]),
        high=np.concatenate([part.high for part in filled]),
        histograms=Histograms(
            np.concatenate(
                [
                    np.zeros(1, np.int64),
                    *(part.histograms.offsets[1:] + size for part, size in zip(filled, sizes, strict=True)),
                ]
            ),
            np.concatenate([part.histograms.bins for part in filled]),
            np.concatenate([part.histograms.counts for part in filled]),
        ),
    )


def regroup(rollups: Rollups, *, series: Ints | None = None, start_us: Ints | None = None) -> Rollups:
    """
    Return buckets added up under other keys: quarters of an hour to local days, the phases of a sensor to one.

    Args:
        rollups: Buckets, here in any order and with repeats.
        series: New series of each, of the same measurand; absent: its own.
        start_us: New start of each [µs since 1970]; absent: its own.

    Example:
        >>> r = fold(np.array([1, 1]), np.array([0, QUARTER_US]), np.array([3, 4]), np.array([3, 4]))
        >>> regroup(r, start_us=np.zeros(2, np.int64)).s
        array([7])
    """
    if not len(rollups):
        return rollups
    series = rollups.series if series is None else series
    start_us = rollups.start_us if start_us is None else start_us
    order, starts = _groups(series, start_us)
    if order is None:
        order = np.arange(len(series))
    firsts = order[starts]
    group = np.empty(len(series), np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(series)))
    histograms = rollups.histograms
    return Rollups(
        series=series[firsts],
        start_us=start_us[firsts],
        n=np.add.reduceat(rollups.n[order], starts),
        s=added(rollups.s[order], starts),
        q=added(rollups.q[order], starts),
        low=small(np.minimum.reduceat(rollups.low[order], starts)),
        high=small(np.maximum.reduceat(rollups.high[order], starts)),
        histograms=grouped(group[histograms.owners()], histograms.bins, histograms.counts, len(starts)),
    )


def subtract(whole: Rollups, part: Rollups) -> tuple[Rollups, Flags]:
    """
    Return buckets without some of their readings, and which of them lost an extreme.

    Args:
        whole: Buckets.
        part: The same buckets or fewer, of readings that are all among those of *whole*.

    Returns:
        What is left, without empty buckets; and of each whether its *low* and *high* may be those of a reading that
        is gone. Such a bucket has to be folded again from its readings; the others are exact.

    Raises:
        ValueError: *part* holds what *whole* does not.

    Guarantees:
        ``subtract(merge(a, b), b)`` equals *a* but for the extremes of marked buckets.

    Example:
        >>> a = fold(np.array([1, 1, 1]), np.zeros(3, np.int64), np.array([1, 2, 3]), np.array([1, 2, 3]))
        >>> b = fold(np.array([1]), np.zeros(1, np.int64), np.array([2]), np.array([2]))
        >>> left, stale = subtract(a, b)
        >>> left.s, stale
        (array([4]), array([False]))
    """
    if not len(part):
        return whole, np.zeros(len(whole), np.bool_)
    histograms = part.histograms
    taken = Rollups(
        series=part.series,
        start_us=part.start_us,
        n=-part.n,
        s=small(-part.s.astype(object)),
        q=small(-part.q.astype(object)),
        low=part.low,
        high=part.high,
        histograms=Histograms(histograms.offsets, histograms.bins, -histograms.counts),
    )
    left = merge(whole, taken)
    if len(left) != len(whole) or int(left.n.min()) < 0 or np.any(left.histograms.counts < 0):
        raise ValueError("what is taken away was never added")
    stale = np.zeros(len(whole), np.bool_)
    rows = np.searchsorted(_ranks(whole, whole), _ranks(whole, part))
    stale[rows] = (part.low <= whole.low[rows]) | (part.high >= whole.high[rows])
    full = left.n > 0
    kept = Rollups(
        series=left.series,
        start_us=left.start_us,
        n=left.n,
        s=left.s,
        q=left.q,
        low=whole.low,
        high=whole.high,
        histograms=left.histograms,
    )
    return kept.only(full), stale[full]


def _ranks(universe: Rollups, rollups: Rollups) -> Ints:
    """Return one number for each (series, start), in their order."""
    starts = np.unique(universe.start_us)
    names = np.unique(universe.series)
    return np.searchsorted(names, rollups.series) * len(starts) + np.searchsorted(starts, rollups.start_us)


def mean(n: int, s: int, scale: int) -> float:
    """
    Return S / (n · scale), rounded once, in the canonical unit.

    Args:
        n: Number of readings, ≥ 1.
        s: Their sum [quanta].
        scale: Quanta per unit.

    Example:
        >>> mean(60, 14459730, 1000)
        240.9955
    """
    return s / (n * scale)


def variance(n: int, s: int, q: int, scale: int) -> float | None:
    """
    Return the sample variance (n·Q - S²) / (n·(n - 1)·scale²), rounded once; None of a single reading.

    Args:
        n: Number of readings, ≥ 1.
        s: Their sum [quanta].
        q: The sum of their squares [quanta²].
        scale: Quanta per unit.

    Example:
        >>> variance(3, 6, 14, 1), variance(1, 6, 36, 1)
        (1.0, None)
    """
    if n == 1:
        return None
    return (n * q - s * s) / (n * (n - 1) * scale * scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """
    What is answered of a bucket, in the canonical unit of its measurand.

    Attributes:
        n: Number of readings.
        mean: Correctly rounded.
        low: Least reading.
        high: Greatest reading.
        variance: Of the sample, correctly rounded; None of a single reading.
        stddev: Square root of *variance*.
        percentiles: In the order that was asked for, within half a bin.
    """

    n: int
    mean: float
    low: float
    high: float
    variance: float | None
    stddev: float | None
    percentiles: tuple[float, ...]


def statistics(
    rollups: Rollups, row: int, *, scale: int, width: int, percents: Sequence[int] = (5, 50, 95)
) -> Statistics:
    """
    Return the statistics of one bucket.

    Args:
        rollups: Some buckets.
        row: Which of them.
        scale: Quanta per unit, :attr:`~smartgrid_domain.maths.quantities.Measurand.scale`.
        width: Of the bins, :data:`~smartgrid_domain.maths.histograms.WIDTHS`.
        percents: Which percentiles, 0…100.

    Raises:
        OverflowError: A value is beyond float64, which no physically possible one is.

    Example:
        >>> r = fold(np.array([1, 1]), np.zeros(2, np.int64), np.array([230000, 230100]), np.array([2300, 2301]))
        >>> statistics(r, 0, scale=1000, width=100)  # doctest: +NORMALIZE_WHITESPACE
        Statistics(n=2, mean=230.05, low=230.0, high=230.1, variance=0.005, stddev=0.07071067811865475,
            percentiles=(230.05, 230.05, 230.15))
    """
    n, s, q = int(rollups.n[row]), int(rollups.s[row]), int(rollups.q[row])
    bins, counts = rollups.histograms.of(row)
    spread = variance(n, s, q, scale)
    return Statistics(
        n=n,
        mean=mean(n, s, scale),
        low=int(rollups.low[row]) / scale,
        high=int(rollups.high[row]) / scale,
        variance=spread,
        stddev=None if spread is None else math.sqrt(spread),
        percentiles=tuple(doubled_percentile(bins, counts, width, percent) / (2 * scale) for percent in percents),
    )
