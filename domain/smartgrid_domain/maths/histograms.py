"""
Histograms of whole quanta: bins that are the same on every machine, counts that add and subtract exactly.

Voltage has bins of 100 mV; frequency, temperature and power factor one bin a quantum. Power, current and energy have
bins that are 2 % wide, from a table of integers: e₀ = 1, eⱼ₊₁ = eⱼ + max(1, eⱼ div 50); zero has its own bin, negative
values mirror the positive ones. A *width* tells the bins of a value: quanta for linear bins, 0 for the table.

The histograms of many buckets are three arrays (:class:`Histograms`); one at rest is a short run of bytes.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smartgrid_domain.maths.quantities import Ints

WIDTHS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "voltage": 100,
        "current": 0,
        "power": 0,
        "reactive_power": 0,
        "energy": 0,
        "frequency": 1,
        "power_factor": 1,
        "temperature": 1,
    }
)
"""Width of the bins of each measurand [quanta]; 0 stands for the 2 % table."""

_STEEPNESS: Final = 50  # an edge is at most 1/50 above the one before
_INT64: Final = 2**63
_LAST: Final = 0x80  # a varint's bytes but the last have this bit
_DENSE: Final = 4  # so many places for each row, and adding into all of them is less work than sorting the rows
_EXACT: Final = 2**53  # whole numbers up to here are float64 too


@cache
def edges_to(limit: int) -> tuple[int, ...]:
    """
    Return the edges of the 2 % table up to the first one beyond *limit*.

    Example:
        >>> edges_to(4), edges_to(10**6)[50:54]
        ((1, 2, 3, 4, 5), (51, 52, 53, 54))
    """
    edges = [1]
    while edges[-1] <= limit:
        edges.append(edges[-1] + max(1, edges[-1] // _STEEPNESS))
    return tuple(edges)


_EDGES: Final[Sequence[int]] = edges_to(_INT64)
_TABLE: Final[Ints] = np.array([edge for edge in _EDGES if edge < _INT64], np.int64)
_ENDS: Final[Ints] = np.append(_TABLE - 1, _INT64 - 1)  # greatest value of each bin
_CELL_BITS: Final = 10  # of the mantissa of a float64: a cell is 0.1 % wide, so it holds at most one edge
_FIRST_CELL: Final = 1023 << _CELL_BITS  # that of 1.0


def _least_bins() -> NDArray[np.int16]:
    """Return the bin of the least integer that may round into each cell, from 1 to 2**63."""
    power, step = np.divmod(np.arange((63 << _CELL_BITS) + 1, dtype=np.int64), 1 << _CELL_BITS)
    mantissa = step + (1 << _CELL_BITS)
    fine = np.maximum(power - _CELL_BITS, 0)
    coarse = np.maximum(_CELL_BITS - power, 0)
    starts = np.where(power < _CELL_BITS, -(-mantissa >> coarse), mantissa << fine)
    starts -= np.where(power > 52, np.int64(1) << np.maximum(power - 53, 0), 0)  # noqa: PLR2004  # bits of a float64
    return np.asarray(np.searchsorted(_TABLE, starts, side="right"), np.int16)


_CELLS: Final = _least_bins()


def bins_of(values: NDArray[Any], widths: int | NDArray[np.integer[Any]]) -> Ints:
    """
    Return the bin of each value.

    Args:
        values: Whole quanta, int64 or Python integers.
        widths: Of :data:`WIDTHS`; one for all, or one of each value.

    Returns:
        int64 in the same order. Greater values never have a lesser bin.

    Raises:
        OverflowError: A linear bin needs more than 64 bits; no physically possible value does.

    Example:
        >>> bins_of(np.array([229999, 230000, -1]), 100), bins_of(np.array([0, 99, 3031, 3090, -3031]), 0)
        (array([2299, 2300,   -1]), array([   0,   99,  285,  285, -285]))
    """
    if values.dtype == object:
        each = np.broadcast_to(widths, values.shape).tolist()
        return np.array([_bin_of(int(value), width) for value, width in zip(values, each, strict=True)], np.int64)
    if not isinstance(widths, np.ndarray):
        return _table_bins(values) if widths == 0 else np.asarray(values // widths, np.int64)
    bins: Ints = values // np.maximum(widths, 1)
    rows = np.flatnonzero(widths == 0)
    if len(rows):
        bins[rows] = _table_bins(values[rows])
    return bins


def _table_bins(values: Ints) -> Ints:
    sizes = np.abs(values)
    # The cell of the nearest float64 tells the bin or the one before; integers decide. A search takes far longer.
    cells = (np.maximum(sizes, 1).astype(np.float64).view(np.int64) >> (52 - _CELL_BITS)) - _FIRST_CELL
    bins: Ints = _CELLS[cells].astype(np.int64)
    bins += sizes > _ENDS[bins]
    bins[sizes < 1] = 0
    bins[sizes < 0] = len(_TABLE)  # the least int64 has no absolute value
    return np.asarray(np.where(values < 0, -bins, bins), np.int64)


def _bin_of(value: int, width: int) -> int:
    if width:
        return value // width
    size = abs(value)
    bin_ = bisect_right(edges_to(1 << max(63, size.bit_length())), size)
    return -bin_ if value < 0 else bin_


def doubled_midpoint(bin_: int, width: int) -> int:
    """
    Return twice the value that stands for a bin [quanta], an integer because the middle may be a half.

    Example:
        >>> doubled_midpoint(2300, 100), doubled_midpoint(285, 0), doubled_midpoint(-3, 0)
        (460100, 6121, -6)
    """
    if width:
        return 2 * (bin_ * width + width // 2)
    if bin_ == 0:
        return 0
    size = abs(bin_)
    edges = _EDGES if size < len(_EDGES) else edges_to(1 << (size // 30 + 8))  # 35 bins of 2 % double
    doubled = edges[size - 1] + edges[size] - 1
    return -doubled if bin_ < 0 else doubled


@dataclass(frozen=True, slots=True)
class Histograms:
    """
    The histograms of a row of buckets.

    Attributes:
        offsets: Bins of bucket *i* are rows ``offsets[i]`` … ``offsets[i + 1] - 1`` of the other two (int64).
        bins: Ascending within a bucket (int64).
        counts: Readings in each bin, none 0 (int64).
    """

    offsets: Ints
    bins: Ints
    counts: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def owners(self) -> Ints:
        """Return the bucket of each row of *bins*."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    def of(self, bucket: int) -> tuple[Ints, Ints]:
        """Return bins and counts of one bucket."""
        rows = slice(int(self.offsets[bucket]), int(self.offsets[bucket + 1]))
        return self.bins[rows], self.counts[rows]


def grouped(owners: Ints, bins: Ints, counts: Ints | None, number: int) -> Histograms:
    """
    Return the histograms of *number* buckets from rows in any order, with the counts of equal bins added.

    Args:
        owners: Bucket of each row, 0 … *number* - 1.
        bins: Bin of each row.
        counts: How often it counts, negative to take away; absent: once.
        number: How many buckets there are.

    Guarantees:
        The order of the rows does not matter; bins that add up to nothing are dropped.

    Example:
        >>> grouped(np.array([0, 1, 0, 0]), np.array([7, 3, 5, 7]), None, 2)
        Histograms(offsets=array([0, 2, 3]), bins=array([5, 7, 3]), counts=array([1, 2, 1]))
    """
    if not len(bins):
        return Histograms(np.zeros(number + 1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))
    least = int(bins.min())
    span = int(bins.max()) - least + 1
    if counts is not None and span * number <= _DENSE * len(bins):
        dense = _dense(owners * span + (bins - least), counts, span * number)
        if dense is not None:
            filled = np.flatnonzero(dense)
            ends = np.searchsorted(filled, np.arange(number + 1, dtype=np.int64) * span)
            return Histograms(ends.astype(np.int64), filled % span + least, dense[filled])
    if span * number < _INT64:  # one number tells bucket and bin: sorting it is all the work
        keys = owners * span + (bins - least)
        if counts is None:
            keys.sort()
            rows = _firsts(keys)
            counts = np.diff(rows, append=len(keys))
        else:
            order = np.argsort(keys, kind="stable")
            keys = keys[order]
            rows = _firsts(keys)
            counts = np.add.reduceat(counts[order], rows)
        owners, bins = np.divmod(keys[rows], span)
        bins += least
    else:
        order = np.lexsort((bins, owners))
        owners, bins = owners[order], bins[order]
        rows = np.flatnonzero(np.concatenate(([True], (np.diff(owners) != 0) | (bins[1:] != bins[:-1]))))
        counts = np.add.reduceat(np.ones(len(order), np.int64) if counts is None else counts[order], rows)
        owners, bins = owners[rows], bins[rows]
    full = counts != 0
    if not full.all():
        owners, bins, counts = owners[full], bins[full], counts[full]
    offsets = np.searchsorted(owners, np.arange(number + 1, dtype=np.int64))
    return Histograms(offsets.astype(np.int64), bins, counts)


def _dense(keys: Ints, counts: Ints, number: int) -> Ints | None:
    """Return the sum of the *counts* of each key below *number*, None where floating point might round one."""
    most = max(int(counts.max()), -int(counts.min()))
    if most * len(counts) >= _EXACT:
        return None
    return np.bincount(keys, counts, number).astype(np.int64)


def _firsts(keys: Ints) -> Ints:
    return np.concatenate((np.zeros(1, np.int64), np.flatnonzero(keys[1:] != keys[:-1]) + 1))


def rank(percent: int, number: int) -> int:
    """
    Return the rank of a percentile among *number* values, from 1: ⌈percent · number / 100⌉, at least 1.

    Example:
        >>> rank(50, 5), rank(5, 5), rank(0, 5)
        (3, 1, 1)
    """
    return max(1, -(-percent * number // 100))


def doubled_percentile(bins: Ints, counts: Ints, width: int, percent: int) -> int:
    """
    Return twice the middle of the bin that holds the percentile's rank [quanta].

    Args:
        bins: Of one histogram that is not empty, ascending.
        counts: Likewise.
        width: Of its measurand.
        percent: 0…100.

    Guarantees:
        At most half a bin from the value of that rank; exact where bins are one quantum.

    Example:
        >>> doubled_percentile(np.array([2299, 2300]), np.array([1, 3]), 100, 50)
        460100
    """
    running = np.cumsum(counts)
    row = int(np.searchsorted(running, rank(percent, int(running[-1]))))
    return doubled_midpoint(int(bins[row]), width)


def encoded(histograms: Histograms) -> list[bytes]:
    r"""
    Return the bytes at rest of each histogram: the first bin and the gaps to the next, each with its count.

    Raises:
        ValueError: A count is negative: more was taken away than was there.

    Guarantees:
        Equal histograms have equal bytes, and only they have.

    Example:
        >>> encoded(grouped(np.array([0, 0, 0]), np.array([2300, 2301, 2300]), None, 1))
        [b'\xf8#\x02\x01\x01']
    """
    if not len(histograms.bins):
        return [b""] * len(histograms)
    if int(histograms.counts.min()) < 1:
        raise ValueError("a histogram cannot hold less than nothing")
    values = np.empty(2 * len(histograms.bins), np.uint64)
    gaps = np.diff(histograms.bins, prepend=0)
    firsts = histograms.offsets[:-1][np.diff(histograms.offsets) > 0]
    bins = histograms.bins[firsts]
    gaps[firsts] = bins << 1 ^ bins >> 63
    values[0::2] = gaps.view(np.uint64)
    values[1::2] = histograms.counts.view(np.uint64)
    lengths = np.ones(len(values), np.int64)
    for bits in range(7, 64, 7):
        more = values >= np.uint64(1 << bits)
        if not more.any():
            break
        lengths += more
    ends = np.cumsum(lengths)
    data = np.zeros(int(ends[-1]), np.uint8)
    for place in range(int(lengths.max())):
        rows = np.flatnonzero(lengths > place)
        part = (values[rows] >> np.uint64(7 * place)).astype(np.uint8) & np.uint8(_LAST - 1)
        part |= np.where(lengths[rows] > place + 1, np.uint8(_LAST), np.uint8(0))
        data[ends[rows] - lengths[rows] + place] = part
    raw = data.tobytes()
    cuts = np.concatenate((np.zeros(1, np.int64), ends))[2 * histograms.offsets].tolist()
    return [raw[start:end] for start, end in pairwise(cuts)]


def decoded(each: Sequence[bytes]) -> Histograms:
    r"""
    Return the histograms that :func:`encoded` gave these bytes for.

    Raises:
        ValueError: Bytes are not those of a histogram: fold the bucket again.

    Example:
        >>> decoded([b"", b"\xf8#\x02\x01\x01"])
        Histograms(offsets=array([0, 0, 2]), bins=array([2300, 2301]), counts=array([2, 1]))
    """
    return decoded_run(b"".join(each), np.fromiter(map(len, each), np.int64, len(each)))


def decoded_run(run: bytes, sizes: Ints) -> Histograms:
    """
    Return the histograms whose bytes stand one after the other.

    Args:
        run: All their bytes.
        sizes: Length of each [B].

    Raises:
        ValueError: As for :func:`decoded`.
    """
    data = np.frombuffer(run, np.uint8)
    cuts = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
    if not len(data):
        return Histograms(np.zeros(len(cuts), np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))
    # Nearly all gaps and counts are one byte: it is their value. What more there is to the others is added.
    more = data >= _LAST
    values = data[~more].astype(np.uint64)
    places = np.flatnonzero(more)
    marks = cuts - np.searchsorted(places, cuts)
    if np.any(data[cuts[cuts > 0] - 1] >= _LAST) or np.any(marks & 1):
        raise ValueError("a histogram is damaged")
    if len(places):
        _lengthen(values, places, data[places] & np.uint8(_LAST - 1))
    offsets = marks // 2
    numbers = values.view(np.int64)
    gaps, counts = numbers[0::2].copy(), numbers[1::2].copy()
    firsts = offsets[:-1][np.diff(offsets) > 0]
    first_bins = (values[0::2][firsts] >> np.uint64(1)).astype(np.int64) ^ -(gaps[firsts] & 1)
    gaps[firsts] = 1
    if int(counts.min()) < 1 or int(gaps.min()) < 1:
        raise ValueError("a histogram is damaged")
    gaps[firsts] = 0
    widths = np.add.reduceat(gaps, firsts)  # from the first bin of each to its last
    gaps[firsts] = first_bins
    gaps[firsts[1:]] -= first_bins[:-1] + widths[:-1]
    return Histograms(offsets, np.cumsum(gaps), counts)


def _lengthen(values: NDArray[np.uint64], places: Ints, parts: NDArray[np.uint8]) -> None:
    """
    Add to *values*, which are their last seven bits so far, what stands before these.

    Args:
        values: Of all numbers of a run.
        places: Of those bytes in the run that are not the last of their number.
        parts: The seven bits of each.

    Raises:
        ValueError: A number has more bytes than it needs, or more than 64 bits.
    """
    numbers = np.arange(len(places), dtype=np.int64)
    owners = places - numbers  # so many bytes before this one ended a number
    heads = _firsts(owners)
    lengths = np.diff(heads, append=len(places))
    longer = owners[heads]
    lasts = values[longer]
    if np.any((lasts == 0) | (lengths > 8) & (lasts > 1) | (lengths > 9)):  # noqa: PLR2004  # 64 bits in sevens
        raise ValueError("a histogram is damaged")
    shifts = 7 * (numbers - np.repeat(heads, lengths))
    values[longer] = (lasts << (7 * lengths).astype(np.uint64)) + np.add.reduceat(
        parts.astype(np.uint64) << shifts.astype(np.uint64), heads
    )
