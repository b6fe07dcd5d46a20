"""Consumption in buckets that do not begin on UTC hours (zones such as Asia/Kolkata), from the readings themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smartgrid_domain.maths.quantities import Ints
from smartgrid_domain.maths.registers import Break
from smartgrid_domain.maths.spreading import spread
from smartgrid_projections.queries.trends import Holding
from smartgrid_projections.read_models.consumption_tables import FIRST_US, LAST_US
from smartgrid_projections.read_models.windows import (
    CONTEXT,
    first_anchor,
    fold_between,
    joined,
    last_anchor,
    of_series,
    register_readings,
)
from smartgrid_projections.register import Register


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """
    A register whose energy is wanted.

    Attributes:
        series: The register.
        breaks: Exchanges and resets.
        rollover_at_wh: The setting [Wh].
        holdings: When it counts.
    """

    series: int
    breaks: Sequence[Break]
    rollover_at_wh: int | None
    holdings: Sequence[Holding]


@dataclass(frozen=True, kw_only=True, slots=True)
class FineRows:
    """
    Rows as arrays of one length, by start.

    Attributes:
        start_us: Begin [µs since 1970].
        wh: Energy [Wh].
        estimated_wh: Part of it that was spread over more than two hours [Wh].
        readings: Readings in it.
    """

    start_us: Ints
    wh: Ints
    estimated_wh: Ints
    readings: Ints

    def only(self, index: Ints) -> "FineRows":
        """Return the rows of *index*."""
        return FineRows(
            start_us=self.start_us[index],
            wh=self.wh[index],
            estimated_wh=self.estimated_wh[index],
            readings=self.readings[index],
        )


async def fine_rows(register: Register, position: int, sources: Sequence[Source], bounds: Ints) -> FineRows:
    """
    Return the sums over *sources* between neighbours of *bounds*, as of *position*; rows of zeros are left out.

    Guarantees:
        Equal to the stored rows where bounds are UTC hours.
    """
    first, last = int(bounds[0]), int(bounds[-1])
    ids = [source.series for source in sources]
    before = await register.neighbours([(one, first) for one in ids], CONTEXT, position, before=True)
    inside = await register.stretches([(one, first, last) for one in ids], position)
    behind = await register.neighbours([(one, last - 1) for one in ids], CONTEXT, position, before=False)
    sums = {name: np.zeros(len(bounds) - 1, np.int64) for name in ("wh", "estimated", "readings")}
    for source in sources:
        own = [register_readings(of_series(part, source.series)) for part in (before, inside, behind)]
        start, end = last_anchor(own[0], source.breaks), first_anchor(own[2], source.breaks)
        if (start is None and len(own[0])) or (end is None and len(own[2]) >= CONTEXT):
            own = [register_readings(await register.stretches([(source.series, FIRST_US, LAST_US)], position))]
            start = end = None
        folded = fold_between(joined(*own), source.breaks, start, end, source.rollover_at_wh)
        at_us = folded.readings.at_us
        for since_us, until_us, _ in source.holdings:
            edges = np.clip(bounds, since_us, until_us)
            shares = spread(folded.intervals, edges)
            sums["wh"] += shares.wh
            sums["estimated"] += shares.estimated_wh
            sums["readings"] += np.diff(np.searchsorted(at_us, edges))
    full = (sums["wh"] != 0) | (sums["estimated"] != 0) | (sums["readings"] != 0)
    return FineRows(
        start_us=bounds[:-1][full],
        wh=sums["wh"][full],
        estimated_wh=sums["estimated"][full],
        readings=sums["readings"][full],
    )


def summed(rows: FineRows) -> FineRows:
    """Return rows by start, those of one start added up."""
    starts, index = np.unique(rows.start_us, return_inverse=True)
    sums = [np.zeros(len(starts), np.int64) for _ in range(3)]
    for total, column in zip(sums, (rows.wh, rows.estimated_wh, rows.readings), strict=True):
        np.add.at(total, index, column)
    return FineRows(start_us=starts, wh=sums[0], estimated_wh=sums[1], readings=sums[2])
