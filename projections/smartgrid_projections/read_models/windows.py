"""
How far around a change a register has to be folded again.

A fold forgets: after a few readings in a row that do not fall, the last of them is good and nothing is held, whatever
was before. So what a change at some instants does ends at such a reading on either side of them, and what it does is
the difference of two folds of the readings in between, as of before and as of after.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from smartgrid_domain.maths.quantities import Flags, quanta
from smartgrid_domain.maths.registers import Break, Folded, Readings, fold
from smartgrid_projections.register import Readings as Rows

SURE: Final = 6
"""Readings in a row that do not fall, after which the last one is good: a drop and three more, and two to be sure."""

CONTEXT: Final = 12
"""Readings looked at on either side before the whole register is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchor:
    """
    A reading at which a fold knows nothing of what was before.

    Attributes:
        at_us: When it was read [µs since 1970].
        seq: Its sequence number, -1 for none.
    """

    at_us: int
    seq: int


def register_readings(rows: Rows) -> Readings:
    """Return rows of one series as readings in whole Wh."""
    return Readings(
        at_us=rows.measured_at_us, seq=rows.seq, wh=quanta(rows.mantissa, rows.exponent, 0), quality=rows.quality
    )


def joined(*parts: Readings) -> Readings:
    """Return all readings of *parts*."""
    return Readings(
        at_us=np.concatenate([part.at_us for part in parts]),
        seq=np.concatenate([part.seq for part in parts]),
        wh=np.concatenate([part.wh for part in parts]),
        quality=np.concatenate([part.quality for part in parts]),
    )


def since(readings: Readings, anchor: Anchor) -> Readings:
    """Return the readings from *anchor* on."""
    return _where(readings, _not_before(readings, anchor))


def up_to(readings: Readings, anchor: Anchor) -> Readings:
    """Return the readings up to *anchor*."""
    later = (readings.at_us > anchor.at_us) | ((readings.at_us == anchor.at_us) & (readings.seq > anchor.seq))
    return _where(readings, ~later)


def _not_before(readings: Readings, anchor: Anchor) -> Flags:
    later = readings.at_us > anchor.at_us
    return np.asarray(later | ((readings.at_us == anchor.at_us) & (readings.seq >= anchor.seq)), np.bool_)


def _where(readings: Readings, rows: Flags) -> Readings:
    return Readings(
        at_us=readings.at_us[rows], seq=readings.seq[rows], wh=readings.wh[rows], quality=readings.quality[rows]
    )


def last_anchor(readings: Readings, breaks: Sequence[Break]) -> Anchor | None:
    """Return the last reading that follows :data:`SURE` - 1 others without a fall or a break, None if there is none."""
    return _anchor(readings, breaks, last=True)


def first_anchor(readings: Readings, breaks: Sequence[Break]) -> Anchor | None:
    """Return the first such reading."""
    return _anchor(readings, breaks, last=False)


def _anchor(readings: Readings, breaks: Sequence[Break], *, last: bool) -> Anchor | None:
    """*readings* are in order and follow each other in the register."""
    if len(readings) < SURE:
        return None
    at = readings.at_us
    cut = np.zeros(len(readings), np.int64)  # of each reading: whether it cannot follow the one before
    cut[1:] = readings.wh[1:] < readings.wh[:-1]
    for item in breaks:
        cut[1:] |= (at[:-1] < item.at_us) & (item.at_us <= at[1:])
    falls = np.cumsum(cut)
    sure = np.flatnonzero(falls[SURE - 1 :] == falls[: len(falls) - SURE + 1]) + SURE - 1
    if not len(sure):
        return None
    row = int(sure[-1] if last else sure[0])
    return Anchor(at_us=int(at[row]), seq=int(readings.seq[row]))


def fold_between(
    readings: Readings,
    breaks: Sequence[Break],
    start: Anchor | None,
    end: Anchor | None,
    rollover_at_wh: int | None,
) -> Folded:
    """
    Return the fold of the readings from one anchor to another, both included.

    Args:
        readings: At least these.
        breaks: Of the register; those outside are left out.
        start: Where to begin; None for the begin of the register.
        end: Where to end; None for its end.
        rollover_at_wh: The setting [Wh].
    """
    if start is not None:
        readings = since(readings, start)
        breaks = [item for item in breaks if item.at_us > start.at_us]
    if end is not None:
        readings = up_to(readings, end)
        breaks = [item for item in breaks if item.at_us <= end.at_us]
    return fold(readings, breaks, rollover_at_wh=rollover_at_wh)


def of_series(readings: Rows, series: int) -> Rows:
    """Return the readings of one series; they are sorted by series."""
    low, high = np.searchsorted(readings.series_id, [series, series + 1]).tolist()
    rows = slice(low, high)
    return Rows(
        series_id=readings.series_id[rows],
        measured_at_us=readings.measured_at_us[rows],
        seq=readings.seq[rows],
        mantissa=readings.mantissa[rows],
        exponent=readings.exponent[rows],
        quality=readings.quality[rows],
    )
