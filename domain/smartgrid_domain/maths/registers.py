"""
What a meter's register counted: differences of its readings, in whole Wh, never negative, never invented.

The readings of one (meter, register), ordered by time, then sequence number, are cut into segments by recorded
exchanges and resets, and by drops that no rollover explains. A drop is *held*: it counts nothing until later readings
decide. Back at or above the last good reading, the drop was a bad reading and stays out; three later readings in a
row at or above the dropped value begin a new segment at the drop.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smartgrid_domain.maths.quantities import QUALITIES, Flags, Ints
from smartgrid_domain.maths.spreading import Intervals

STATES: Final = ("normal", "first", "rollover", "reset_suspected", "exchanged", "late")
"""Names of the states by code."""

NORMAL, FIRST, ROLLOVER, RESET_SUSPECTED, EXCHANGED, LATE = range(6)

NOTHING: Final = -1
"""Stands for no number of Wh: nothing was before it, or it is held."""

_CONVINCING: Final = 3
_HOUR_US: Final = 3_600_000_000
_SUSPECT: Final = QUALITIES["suspect"]


class BeforeTheTail(ValueError):
    """A reading, exchange or reset is not later than all that is decided: fold the whole register again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """
    Readings of one register that count, retracted and replaced ones left out.

    Attributes:
        at_us: When it was read [µs since 1970] (int64).
        seq: Sequence number, -1 without; no two readings agree in both (int64).
        wh: Where the register stood [Wh] (int64).
        quality: Code of :data:`~smartgrid_domain.maths.quantities.QUALITIES` (int8).
    """

    at_us: Ints
    seq: Ints
    wh: Ints
    quality: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.at_us)

    def after(self, row: int) -> "Readings":
        """Return the readings behind a row."""
        rows = slice(row + 1, None)
        return Readings(at_us=self.at_us[rows], seq=self.seq[rows], wh=self.wh[rows], quality=self.quality[rows])


@dataclass(frozen=True, slots=True, order=True)
class Break:
    """
    A recorded exchange or reset. At its instant the new segment counts.

    Attributes:
        at_us: When [µs since 1970].
        initial_wh: Where the register began again [Wh]; 0 after a reset.
        final_wh: Where the old device ended [Wh]; -1 when nobody knows, as with a reset.
    """

    at_us: int
    initial_wh: int = 0
    final_wh: int = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """
    From where a fold can go on: the last reading that is decided, and what is not decided behind it.

    Attributes:
        base: (µs since 1970, sequence number, Wh) of that reading; None when there is none yet.
        readings: Held ones behind it.
        breaks: Exchanges and resets behind it.
        rollover_at_wh: The setting that it was folded with [Wh].
        nominal_w: The setting that it was folded with [W].
    """

    base: tuple[int, int, int] | None
    readings: Readings
    breaks: tuple[Break, ...]
    rollover_at_wh: int | None
    nominal_w: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """
    What readings counted, as arrays of one length, ordered by time, then sequence number.

    Attributes:
        readings: The readings in that order.
        delta_wh: Consumed since the last reading that counts [Wh], ≥ 0, or :data:`NOTHING` (int64).
        state: Code of :data:`STATES`, never ``late`` (int8).
        quality: As sent, or *suspect* for a held drop and for more than the connection can carry (int8).
        too_fast: Which counted more than the connection can carry.
        intervals: When it was consumed. Adds up to *delta_wh* and to what exchanges tell after the last reading.
        tail: From where :func:`extend` goes on.
    """

    readings: Readings
    delta_wh: Ints
    state: NDArray[np.int8]
    quality: NDArray[np.int8]
    too_fast: Flags
    intervals: Intervals
    tail: Tail


def no_readings() -> Readings:
    """Return none."""
    none = np.zeros(0, np.int64)
    return Readings(at_us=none, seq=none, wh=none, quality=np.zeros(0, np.int8))


def fold(
    readings: Readings,
    breaks: Sequence[Break] = (),
    *,
    rollover_at_wh: int | None = None,
    nominal_w: float | None = None,
) -> Folded:
    """
    Return what the readings of one register counted.

    Args:
        readings: In any order.
        breaks: Recorded exchanges and resets, in any order.
        rollover_at_wh: The register restarts at 0 when it reaches this [Wh]; None when it is not known to.
        nominal_w: Power of the connection [W]; None when it is not known.

    Raises:
        ValueError: Two readings share time and sequence number.

    Guarantees:
        Nothing is negative; any order of arrival, and any split with :func:`extend`, gives the same; what is counted
        in one segment is the difference of its last and first good reading, plus *rollover_at_wh* for each rollover.

    Example:
        >>> i = np.array
        >>> r = Readings(at_us=i([0, 1, 2]), seq=i([-1, -1, -1]), wh=i([100, 130, 50]), quality=np.zeros(3, np.int8))
        >>> f = fold(r)
        >>> f.delta_wh, [STATES[s] for s in f.state]
        (array([-1, 30, -1]), ['first', 'normal', 'reset_suspected'])
    """
    return _folded(None, readings, sorted(breaks), rollover_at_wh, nominal_w)


def extend(tail: Tail, readings: Readings, breaks: Sequence[Break] = ()) -> Folded:
    """
    Return what readings that come after a fold counted, and again those that the fold had left undecided.

    Its rows, and its intervals, replace all that end after the reading *tail.base*.

    Raises:
        BeforeTheTail: One is not later than *tail.base*.
        ValueError: Two readings share time and sequence number.

    Guarantees:
        What stands before *tail.base*, and this, are together what :func:`fold` gives of all.
    """
    if tail.base is not None:
        at_us, seq, _ = tail.base
        early = (readings.at_us < at_us) | ((readings.at_us == at_us) & (readings.seq <= seq))
        if early.any() or any(item.at_us <= at_us for item in breaks):
            raise BeforeTheTail("fold the whole register again")
    joined = Readings(
        at_us=np.concatenate((tail.readings.at_us, readings.at_us)),
        seq=np.concatenate((tail.readings.seq, readings.seq)),
        wh=np.concatenate((tail.readings.wh, readings.wh)),
        quality=np.concatenate((tail.readings.quality, readings.quality)),
    )
    return _folded(tail.base, joined, sorted((*tail.breaks, *breaks)), tail.rollover_at_wh, tail.nominal_w)


def late(arrival: Ints) -> Flags:
    """
    Return which readings came after one that is later in time.

    Args:
        arrival: Position at which each reading was recorded, in the order of :class:`Folded`.

    Example:
        >>> late(np.array([1, 3, 2]))
        array([False,  True, False])
    """
    if not len(arrival):
        return np.zeros(0, np.bool_)
    soonest = np.minimum.accumulate(arrival[::-1])[::-1]
    return np.concatenate((arrival[:-1] > soonest[1:], np.zeros(1, np.bool_)))


def _folded(
    base: tuple[int, int, int] | None,
    readings: Readings,
    breaks: list[Break],
    rollover_at_wh: int | None,
    nominal_w: float | None,
) -> Folded:
    readings = _ordered(readings)
    walk = _Walk(readings, rollover_at_wh, (base[0], base[2]) if base else None)
    cuts = np.searchsorted(readings.at_us, np.array([item.at_us for item in breaks], np.int64)).tolist()
    row = 0
    for item, end in zip(breaks, cuts, strict=True):
        walk.segment(row, end, (item.at_us, item.final_wh) if item.final_wh >= 0 else None)
        walk.begin(item)
        row = end
    walk.segment(row, len(readings), None)
    if walk.settled >= 0:
        s = walk.settled
        base = (int(readings.at_us[s]), int(readings.seq[s]), int(readings.wh[s]))
    tail = Tail(
        base=base,
        readings=readings.after(walk.settled),
        breaks=tuple(item for item in breaks if base is None or item.at_us > base[0]),
        rollover_at_wh=rollover_at_wh,
        nominal_w=nominal_w,
    )
    intervals = walk.intervals()
    too_fast = _too_fast(intervals, len(readings), nominal_w)
    suspect = too_fast | (walk.state == RESET_SUSPECTED)
    return Folded(
        readings=readings,
        delta_wh=walk.deltas(),
        state=walk.state,
        quality=np.where(suspect, np.int8(_SUSPECT), readings.quality),
        too_fast=too_fast,
        intervals=intervals,
        tail=tail,
    )


def _ordered(readings: Readings) -> Readings:
    steps = np.diff(readings.at_us)
    if not (steps > 0).all():
        order = np.lexsort((readings.seq, readings.at_us))
        readings = Readings(
            at_us=readings.at_us[order],
            seq=readings.seq[order],
            wh=readings.wh[order],
            quality=readings.quality[order],
        )
        if bool(np.any((np.diff(readings.at_us) == 0) & (np.diff(readings.seq) == 0))):
            raise ValueError("two readings share time and sequence number")
    return readings


def _too_fast(intervals: Intervals, number: int, nominal_w: float | None) -> Flags:
    result = np.zeros(number, np.bool_)
    if nominal_w is not None:
        over = intervals.wh * float(_HOUR_US) > nominal_w * (intervals.end_us - intervals.start_us)
        result[intervals.row[over & (intervals.row >= 0)]] = True
    return result


class _Walk:
    """Goes along the readings of a register, segment by segment, and remembers the last good one."""

    def __init__(self, readings: Readings, rollover_at_wh: int | None, good: tuple[int, int] | None) -> None:
        number = len(readings)
        self.readings = readings
        self.at: list[int] = readings.at_us.tolist()
        self.wh: list[int] = readings.wh.tolist()
        self.drops: list[int] = (np.flatnonzero(readings.wh[1:] < readings.wh[:-1]) + 1).tolist()
        self.rollover = rollover_at_wh or 0
        self.good = good
        self.own = np.full(number, NOTHING, np.int64)
        self.carried = np.full(number, NOTHING, np.int64)
        self.since = np.zeros(number, np.int64)
        self.state = np.zeros(number, np.int8)
        self.settled = -1
        self.fresh = False  # whether the next good reading is the first behind a break
        self.told: list[tuple[int, int, int, int]] = []  # intervals that end at an exchange
        self.unread: list[tuple[int, int, int]] = []  # those of them that no reading has followed yet

    def begin(self, item: Break) -> None:
        """Begin a recorded segment."""
        self.good = (item.at_us, item.initial_wh)
        self.fresh = True

    def segment(self, row: int, end: int, final: tuple[int, int] | None) -> None:
        """Go along rows *row* … *end* - 1, and up to the final value of the device."""
        if self.good is None and row < end:
            self.state[row] = FIRST
            self._settle(row)
            row += 1
        while row < end:
            delta = self._counted(self.wh[row])
            if delta is None:
                row = self._held(row, end, final)
            else:
                self._accept(row, delta)
                row = self._rise(row + 1, end)
        if final is not None and self.good is not None:
            delta = self._counted(final[1])
            if delta is not None:
                self.unread.append((self.good[0], final[0], delta))

    def _counted(self, wh: int) -> int | None:
        """Return what was counted from the last good value to *wh*, None for a drop."""
        assert self.good is not None  # noqa: S101  # the first reading is good
        good = self.good[1]
        if wh >= good:
            return wh - good
        if 9 * self.rollover <= 10 * good <= 10 * self.rollover and 0 <= 10 * wh <= self.rollover:
            return self.rollover - good + wh
        return None

    def _accept(self, row: int, delta: int) -> None:
        assert self.good is not None  # noqa: S101  # it was counted from
        self.own[row] = delta
        self.since[row] = self.good[0]
        rolled = self.wh[row] < self.good[1]
        self.state[row] = EXCHANGED if self.fresh else ROLLOVER if rolled else NORMAL
        self.fresh = False
        self._hear(row)
        self._settle(row)

    def _rise(self, row: int, end: int) -> int:
        """Accept all rows up to the next drop at once; they follow a good one."""
        place = bisect_left(self.drops, row)
        stop = min(end, self.drops[place]) if place < len(self.drops) else end
        if row < stop:
            self.own[row:stop] = np.diff(self.readings.wh[row - 1 : stop])
            self.since[row:stop] = self.readings.at_us[row - 1 : stop - 1]
            self.state[row:stop] = NORMAL
            self._settle(stop - 1)
        return stop

    def _held(self, row: int, end: int, final: tuple[int, int] | None) -> int:
        """Hold a drop and what follows until it is decided; return the row to go on with."""
        drop, above = row, 0
        self.state[row] = RESET_SUSPECTED
        for later in range(row + 1, end):
            if self._counted(self.wh[later]) is not None:
                return later
            self.state[later] = RESET_SUSPECTED
            if self.wh[later] < self.wh[drop]:
                drop, above = later, 0
                continue
            above += 1
            if above == _CONVINCING:
                return self._restart(drop)
        # The final value of a device is a reading as well.
        convinced = final is not None and above == _CONVINCING - 1 and final[1] >= self.wh[drop]
        if final is not None and convinced and self._counted(final[1]) is None:
            return self._restart(drop)
        return end

    def _restart(self, drop: int) -> int:
        """Begin a segment at a drop; nothing of before is open any more, so that a fold can go on from here."""
        self.fresh = False
        self._hear(drop)
        self._settle(drop)
        return drop + 1

    def _hear(self, row: int) -> None:
        """Give a row what exchanges told since the last good reading."""
        if self.unread:
            self.told.extend((*item, row) for item in self.unread)
            self.carried[row] = sum(wh for _, _, wh in self.unread)
            self.unread.clear()

    def _settle(self, row: int) -> None:
        self.good = (self.at[row], self.wh[row])
        self.settled = row

    def deltas(self) -> Ints:
        """Return what each row consumed since the last good one."""
        known = np.maximum(self.own, 0) + np.maximum(self.carried, 0)
        return np.where((self.own == NOTHING) & (self.carried == NOTHING), NOTHING, known)

    def intervals(self) -> Intervals:
        """Return all that was counted, in order."""
        rows = np.flatnonzero(self.own != NOTHING)
        told = np.array([*self.told, *((*item, -1) for item in self.unread)], np.int64).reshape(-1, 4)
        start = np.concatenate((self.since[rows], told[:, 0]))
        end = np.concatenate((self.readings.at_us[rows], told[:, 1]))
        order = np.lexsort((end, start)) if len(told) else np.arange(len(rows))
        return Intervals(
            start_us=start[order],
            end_us=end[order],
            wh=np.concatenate((self.own[rows], told[:, 2]))[order],
            row=np.concatenate((rows.astype(np.int64), told[:, 3]))[order],
        )
