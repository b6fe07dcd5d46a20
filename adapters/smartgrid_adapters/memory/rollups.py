"""Rollups in memory: the model of the tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from smartgrid_adapters.memory.register import MemoryRegister
from smartgrid_domain.maths.histograms import decoded, encoded
from smartgrid_domain.maths.quantities import Ints
from smartgrid_domain.maths.rollups import Rollups
from smartgrid_projections.read_models.aggregates import LEVELS_US, Keys, Level


class Bucket(NamedTuple):
    """One row; extremes are None when there is no reading."""

    n: int
    s: int
    q: int
    low: int | None
    high: int | None
    histogram: bytes
    revision: int


@dataclass
class MemoryRollups:
    """
    The tables of the aggregates.

    Attributes:
        register: The readings.
        rows: By level, series and start.
        intervals: Expected time between readings of each sensor [s].
    """

    register: MemoryRegister
    rows: dict[tuple[int, int, int], Bucket] = field(default_factory=dict[tuple[int, int, int], Bucket])
    intervals: dict[str, float | None] = field(default_factory=dict[str, float | None])

    def __deepcopy__(self, memo: dict[int, Any]) -> "MemoryRollups":
        return MemoryRollups(self.register, dict(self.rows), dict(self.intervals))

    async def load(self, levels: Sequence[Keys]) -> Sequence[tuple[Rollups, Ints]]:
        return [self._load(level, keys) for level, keys in enumerate(levels)]

    def _load(self, level: int, wanted: Keys) -> tuple[Rollups, Ints]:
        keys = list(zip(wanted.series.tolist(), wanted.start_us.tolist(), strict=True))
        known = [self.rows.get((level, *key)) for key in keys]
        revisions = np.array([0 if bucket is None else bucket.revision for bucket in known], np.int64)
        filled = [(key, bucket) for key, bucket in zip(keys, known, strict=True) if bucket is not None and bucket.n]
        return rollups_of(filled), revisions

    async def save(self, levels: Sequence[Level]) -> None:
        for one in levels:
            self._save(one.level, one.keys, one.revisions, one.rollups)

    def _save(self, level: int, keys: Keys, revisions: Ints, rollups: Rollups) -> None:
        histograms = encoded(rollups.histograms)
        filled = {
            (int(rollups.series[i]), int(rollups.start_us[i])): (
                int(rollups.n[i]),
                int(rollups.s[i]),
                int(rollups.q[i]),
                int(rollups.low[i]),
                int(rollups.high[i]),
                histograms[i],
            )
            for i in range(len(rollups))
        }
        for i, key in enumerate(zip(keys.series.tolist(), keys.start_us.tolist(), strict=True)):
            n, total, squares, low, high, histogram = filled.get(key, (0, 0, 0, None, None, b""))
            self.rows[level, *key] = Bucket(n, total, squares, low, high, histogram, int(revisions[i]))

    async def extremes(self, level: int, series: Ints, start_us: Ints) -> tuple[Ints, Ints]:
        lows: list[int] = []
        highs: list[int] = []
        for own, start in zip(series.tolist(), start_us.tolist(), strict=True):
            inside = [
                bucket
                for (at, one, begin), bucket in self.rows.items()
                if at == 0 and one == own and start <= begin < start + LEVELS_US[level]
            ]
            lows.append(min(bucket.low for bucket in inside if bucket.low is not None))
            highs.append(max(bucket.high for bucket in inside if bucket.high is not None))
        return np.array(lows, np.int64), np.array(highs, np.int64)

    async def configure(self, sensor_id: str, expected_interval_s: float | None) -> None:
        self.intervals[sensor_id] = expected_interval_s


def rollups_of(rows: list[tuple[tuple[int, int], Bucket]]) -> Rollups:
    """Return rows that hold readings, sorted by key, as arrays."""
    return Rollups(
        series=np.array([key[0] for key, _ in rows], np.int64),
        start_us=np.array([key[1] for key, _ in rows], np.int64),
        n=np.array([bucket.n for _, bucket in rows], np.int64),
        s=whole_numbers([bucket.s for _, bucket in rows]),
        q=whole_numbers([bucket.q for _, bucket in rows]),
        low=np.array([bucket.low for _, bucket in rows], np.int64),
        high=np.array([bucket.high for _, bucket in rows], np.int64),
        histograms=decoded([bucket.histogram for _, bucket in rows]),
    )


def whole_numbers(values: list[int]) -> Any:  # noqa: ANN401  # an array of int64 or of Python integers
    """Return int64 while all fit."""
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return np.array(values, object)
