"""
Rollups of a whole stretch of the log at once, in parts that any number of processes fold in any order.

Rows depend on the set of facts alone, so a part needs nothing of the others but the keys that are corrected or
retracted anywhere in the stretch: their readings are left out of all parts, and what counts of them at its end is
added once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from smartgrid_domain.maths.quantities import Flags, Ints
from smartgrid_domain.maths.rollups import Rollups, empty, fold, merge, quarters, regroup
from smartgrid_projections.read_models.aggregates import LEVELS_US, Facts, Keys, Level, facts_of, fold_current, mixed
from smartgrid_projections.register import Key, Naming
from smartgrid_schemas.event import Event
from smartgrid_schemas.telemetry import SensorConfigured

SLICE: Final = 20_000
"""Rows that are kept at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """
    A stretch of the log, folded.

    Attributes:
        rollups: Quarters of an hour of the readings whose keys nobody changes.
        facts: Quarters that facts fell into, and how many.
        intervals: Time between two readings of the sensors that were configured [s].
    """

    rollups: Rollups
    facts: Keys
    intervals: Mapping[str, float | None]


@dataclass(slots=True)
class Folding:
    """
    Folds the events of one part.

    Args:
        naming: Ids of series.
        changed: Keys (series, µs since 1970, seq) corrected or retracted anywhere in the stretch.
    """

    naming: Naming
    changed: Ints
    _known: frozenset[Key] = field(init=False)
    _mixed: Ints = field(init=False)
    _stack: list[Rollups] = field(init=False, default_factory=list[Rollups])
    _facts: list[Keys] = field(init=False, default_factory=list[Keys])
    _intervals: dict[str, float | None] = field(init=False, default_factory=dict[str, float | None])

    def __post_init__(self) -> None:
        self._known = frozenset(Key(*row) for row in self.changed.tolist())
        self._mixed = np.unique(mixed(self.changed[:, 0], self.changed[:, 1], self.changed[:, 2]))

    async def add(self, events: Sequence[Event]) -> None:
        """Fold the next *events*, in position order."""
        for event in events:
            if isinstance(event, SensorConfigured):
                self._intervals[event.sensor_id] = event.expected_interval_s
        facts = await facts_of(events, self.naming)
        if facts is None:
            return
        plain = ~self._among(facts)
        # The plain ones are counted by their buckets; only the others are counted apart.
        extra = np.array(facts.extra, np.int64).reshape(-1, 3)
        series = np.concatenate((facts.series[~plain], extra[:, 0]))
        if len(series):
            at_us = np.concatenate((facts.measured_at_us[~plain], extra[:, 1]))
            self._facts.append(counted(series, quarters(at_us)))
        self._push(
            fold(facts.series[plain], quarters(facts.measured_at_us[plain]), facts.values[plain], facts.bins[plain])
        )

    def result(self) -> Part:
        """Return the part."""
        rollups = empty()
        for one in self._stack:
            rollups = merge(rollups, one)
        plain = Keys(series=rollups.series, start_us=rollups.start_us, facts=rollups.n)
        return Part(rollups=rollups, facts=joined([plain, *self._facts]), intervals=self._intervals)

    def _push(self, rollups: Rollups) -> None:
        """Keep *rollups*; few of each size are kept apart, so that each bucket is merged a few times only."""
        while self._stack and len(self._stack[-1]) <= 2 * len(rollups):
            rollups = merge(self._stack.pop(), rollups)
        self._stack.append(rollups)
        if len(self._facts) > 64:  # noqa: PLR2004  # enough to be worth it
            self._facts = [joined(self._facts)]

    def _among(self, facts: Facts) -> Flags:
        own = mixed(facts.series, facts.measured_at_us, facts.seq)
        if not len(self._mixed):
            return np.zeros(len(own), np.bool_)
        places = np.minimum(np.searchsorted(self._mixed, own), len(self._mixed) - 1)
        found: Flags = self._mixed[places] == own
        for row in np.flatnonzero(found).tolist():
            key = Key(int(facts.series[row]), int(facts.measured_at_us[row]), int(facts.seq[row]))
            found[row] = key in self._known
        return found


def counted(series: Ints, start_us: Ints, facts: Ints | None = None) -> Keys:
    """Return the buckets of facts, sorted, and how many each has; *facts* if an item stands for several."""
    if not len(series):
        return Keys(series=series, start_us=start_us, facts=series)
    order = np.lexsort((start_us, series))
    series, start_us = series[order], start_us[order]
    firsts = np.flatnonzero(np.concatenate(([True], (np.diff(series) != 0) | (np.diff(start_us) != 0))))
    number = np.diff(firsts, append=len(series)) if facts is None else np.add.reduceat(facts[order], firsts)
    return Keys(series=series[firsts], start_us=start_us[firsts], facts=number)


def joined(parts: Sequence[Keys]) -> Keys:
    """Return the buckets of all *parts*."""
    none = [np.zeros(0, np.int64)]
    return counted(
        np.concatenate([*none, *(one.series for one in parts)]),
        np.concatenate([*none, *(one.start_us for one in parts)]),
        np.concatenate([*none, *(one.facts for one in parts)]),
    )


def levels_of(
    parts: Sequence[Part], current: Mapping[Key, tuple[int, int]], measurand_of: Mapping[int, str]
) -> list[Level]:
    """
    Return all buckets of all levels.

    Args:
        parts: All of the stretch.
        current: What counts at its end of the keys that were changed in it.
        measurand_of: Measurand of each series of these.
    """
    rollups = fold_current(current, measurand_of)
    for part in parts:
        rollups = merge(rollups, part.rollups)
    facts = joined([part.facts for part in parts])
    levels: list[Level] = []
    for level, length_us in enumerate(LEVELS_US):
        keys = counted(facts.series, facts.start_us - facts.start_us % length_us, facts.facts)
        own = regroup(rollups, start_us=rollups.start_us - rollups.start_us % length_us)
        levels.append(Level(level=level, keys=keys, revisions=keys.facts, rollups=own))
    return levels


def slices(level: Level) -> list[Level]:
    """Return *level* in pieces that can be kept one after the other."""
    keys, rollups = level.keys, level.rollups
    pieces: list[Level] = []
    for first in range(0, len(keys.series), SLICE):
        last = first + SLICE
        own = Keys(series=keys.series[first:last], start_us=keys.start_us[first:last], facts=keys.facts[first:last])
        low, high = _number(own.series[:1], own.start_us[:1]), _number(own.series[-1:], own.start_us[-1:])
        numbers = _number(rollups.series, rollups.start_us)
        pieces.append(
            Level(
                level=level.level,
                keys=own,
                revisions=own.facts,
                rollups=rollups.only((numbers >= low) & (numbers <= high)),
            )
        )
    return pieces


def _number(series: Ints, start_us: Ints) -> Ints:
    return (series << 32) + start_us // LEVELS_US[0]
