"""
Energy over spans of time, cut to the Wh at any bounds. Positive energy is delivered to the customer.

The share of an interval [t₀, t₁) with Δ Wh up to an instant b is ⌊Δ·(b - t₀)/(t₁ - t₀)⌋, and a bucket gets the
difference of two such numbers. So quarters add up to the hour's own share, hours to days, and all to the register,
whatever the bounds are.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from smartgrid_domain.maths.quantities import Flags, Ints

ESTIMATED_FROM_US: Final = 7_200_000_000
"""Energy that is spread over more than this [µs] counts as estimated."""

_INT64: Final = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """
    What a register counted in spans of time that do not overlap, in their order.

    Attributes:
        start_us: First instant [µs since 1970] (int64).
        end_us: First instant after it [µs since 1970]; equal to *start_us* of readings at one instant (int64).
        wh: Counted in it [Wh], ≥ 0 (int64).
        row: Index of the reading that told it; -1 when an exchange did and no reading has followed yet (int64).
    """

    start_us: Ints
    end_us: Ints
    wh: Ints
    row: Ints

    def __len__(self) -> int:
        return len(self.wh)

    @property
    def estimated(self) -> Flags:
        """Which are longer than two hours, so that a bucket's share of them is a guess."""
        return np.asarray(self.end_us - self.start_us > ESTIMATED_FROM_US, np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """
    What falls into each bucket.

    Attributes:
        wh: Energy [Wh] (int64).
        estimated_wh: The part of it from intervals longer than two hours [Wh] (int64).
        covered_us: How much of the bucket lies in some interval [µs] (int64); 0: nothing is known of it.
    """

    wh: Ints
    estimated_wh: Ints
    covered_us: Ints


def spread(intervals: Intervals, bounds: Ints) -> Spread:
    """
    Return what falls between each two neighbours of *bounds*.

    Args:
        intervals: Of one register.
        bounds: Ascending [µs since 1970]: UTC hours, quarters, or the local days of
            :func:`~smartgrid_domain.maths.calendar.bounds`.

    Returns:
        One less than there are bounds.

    Guarantees:
        Over bounds that enclose all intervals *wh* adds up to theirs, for any cuts; the buckets of coarser bounds are
        sums of those of finer ones; no number is negative. The time it takes grows with intervals and bounds, not
        with how long an interval is.

    Example:
        >>> i = np.array
        >>> spread(Intervals(start_us=i([0]), end_us=i([40]), wh=i([10]), row=i([0])), i([-10, 0, 15, 30, 45])).wh
        array([0, 3, 4, 3])
    """
    estimated = intervals.estimated
    return Spread(
        wh=np.diff(_until(intervals, intervals.wh, bounds)),
        estimated_wh=np.diff(_until(intervals, np.where(estimated, intervals.wh, 0), bounds)),
        covered_us=np.diff(_until(intervals, intervals.end_us - intervals.start_us, bounds)),
    )


def _until(intervals: Intervals, amounts: Ints, bounds: Ints) -> Ints:
    """Return the amounts up to each bound: whole ones that ended, and the share of the one that holds the bound."""
    if not len(intervals):
        return np.zeros(len(bounds), np.int64)
    start, end = intervals.start_us, intervals.end_us
    # What happened within one instant belongs to the bucket that begins there.
    done = np.searchsorted(end + (start == end), bounds, side="right")
    result = np.concatenate((np.zeros(1, np.int64), np.cumsum(amounts)))[done]
    inside = np.flatnonzero(done < len(intervals))
    inside = inside[bounds[inside] > start[done[inside]]]
    rows = done[inside]
    passed, length, amount = bounds[inside] - start[rows], end[rows] - start[rows], amounts[rows]
    if len(rows) and int(amount.max()) * int(passed.max()) >= _INT64:
        shares = amount.astype(object) * passed.astype(object) // length.astype(object)
        result[inside] += shares.astype(np.int64)
    else:
        result[inside] += amount * passed // length
    return result


def bounds_around(intervals: Intervals, step_us: int) -> Ints:
    """
    Return the bounds of the UTC buckets from the first interval to the last.

    Args:
        intervals: Of one register.
        step_us: Length of a bucket [µs]: an hour or a quarter of one.

    Example:
        >>> i = np.array
        >>> bounds_around(Intervals(start_us=i([5]), end_us=i([20]), wh=i([1]), row=i([0])), 10)
        array([ 0, 10, 20])
    """
    if not len(intervals):
        return np.zeros(0, np.int64)
    first = int(intervals.start_us[0]) // step_us
    last = -(-max(int(intervals.end_us[-1]), int(intervals.start_us[-1]) + 1) // step_us)
    return np.arange(first, last + 1, dtype=np.int64) * step_us
