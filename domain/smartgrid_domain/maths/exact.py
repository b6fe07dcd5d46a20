"""Sums of integers that are exact at any size, and fast while 64 bits provably suffice."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smartgrid_domain.maths.quantities import Ints

Numbers = NDArray[Any]
"""int64 while every number fits, else Python integers (dtype object)."""

_INT64: Final = 2**63


def sums(values: Numbers, starts: Ints, n: Ints) -> tuple[Numbers, Numbers]:
    """
    Return the sum and the sum of squares of each run: in 64 bits where they provably fit, else about a pivot.

    Args:
        values: The numbers, run after run.
        starts: First row of each run.
        n: Length of each run.

    Example:
        >>> sums(np.array([3, 4, 5]), np.array([0, 2]), np.array([2, 1]))
        (array([7, 5]), array([25, 25]))
    """
    if values.dtype != object:
        most = int(n.max())
        size = max(int(values.max()), -int(values.min()))
        if size * size * most < _INT64:
            return np.add.reduceat(values, starts), np.add.reduceat(values * values, starts)
        pivots = values[starts]
        rest = values - np.repeat(pivots, n)  # may wrap around; then it is not used
        low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        spread = int((high.astype(object) - low.astype(object)).max())
        if spread * spread * most < _INT64:
            first, second = np.add.reduceat(rest, starts).astype(object), np.add.reduceat(rest * rest, starts)
            center, number = pivots.astype(object), n.astype(object)
            return (
                small(number * center + first),
                small(number * center * center + 2 * center * first + second.astype(object)),
            )
        values = values.astype(object)
    return small(np.add.reduceat(values, starts)), small(np.add.reduceat(values * values, starts))


def small(numbers: Numbers) -> Numbers:
    """Return the same numbers, as int64 if all fit, so that equal numbers are equal arrays."""
    if numbers.dtype != object:
        return numbers
    fits = all(-_INT64 <= number < _INT64 for number in numbers.tolist())
    return numbers.astype(np.int64) if fits else numbers


def added(numbers: Numbers, starts: Ints) -> Numbers:
    """
    Return the sum of each run.

    Example:
        >>> added(np.array([2**62, 2**62, 1]), np.array([0, 2]))
        array([9223372036854775808, 1], dtype=object)
    """
    if numbers.dtype != object:
        counts = np.diff(starts, append=len(numbers))
        if max(int(numbers.max()), -int(numbers.min())) * int(counts.max()) < _INT64:
            return np.add.reduceat(numbers, starts)
        numbers = numbers.astype(object)
    return small(np.add.reduceat(numbers, starts))
