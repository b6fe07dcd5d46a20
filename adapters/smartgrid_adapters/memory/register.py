"""The reading register in memory, as folds see it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

import numpy as np

from smartgrid_projections.register import Key, Readings, SeriesName, Subject


class Revision(NamedTuple):
    """
    One revision of one reading.

    Attributes:
        mantissa: In the canonical unit.
        exponent: Likewise.
        quality: Code.
        event_id: Of this revision.
        position: Where its event is in the log.
    """

    mantissa: int
    exponent: int
    quality: int
    event_id: UUID
    position: int


@dataclass
class MemoryRegister:
    """
    All revisions of all readings.

    Attributes:
        names: Series by id.
        revisions: Of each natural key, as they were recorded.
        retracted: Position at which an event id was retracted.
    """

    names: dict[int, tuple[Subject, SeriesName]] = field(default_factory=dict[int, tuple[Subject, SeriesName]])
    revisions: dict[Key, list[Revision]] = field(default_factory=dict[Key, list[Revision]])
    retracted: dict[UUID, int] = field(default_factory=dict[UUID, int])
    _ids: dict[tuple[Subject, SeriesName], int] = field(default_factory=dict[tuple[Subject, SeriesName], int])

    def id_of(self, subject: Subject, name: SeriesName) -> int:
        """Return the id of a series, made when it is new."""
        made = self._ids.setdefault((subject, name), len(self._ids) + 1)
        self.names[made] = (subject, name)
        return made

    async def series(self, subject: Subject, names: Sequence[SeriesName]) -> Mapping[SeriesName, int]:
        return {name: self._ids[subject, name] for name in names}

    async def current(self, keys: Sequence[Key], position: int) -> Mapping[Key, tuple[int, int]]:
        found = ((key, self._at(key, position)) for key in keys)
        return {key: (revision.mantissa, revision.exponent) for key, revision in found if revision is not None}

    async def stretches(self, stretches: Sequence[tuple[int, int, int]], position: int) -> Readings:
        keys = [
            key
            for key in sorted(self.revisions)
            if any(key.series_id == series and start <= key.measured_at_us < end for series, start, end in stretches)
        ]
        return self._readings(keys, position)

    def _readings(self, keys: Sequence[Key], position: int) -> Readings:
        rows = [(key, revision) for key in keys if (revision := self._at(key, position)) is not None]
        return Readings(
            series_id=np.array([key.series_id for key, _ in rows], np.int64),
            measured_at_us=np.array([key.measured_at_us for key, _ in rows], np.int64),
            seq=np.array([key.seq for key, _ in rows], np.int64),
            mantissa=np.array([revision.mantissa for _, revision in rows], np.int64),
            exponent=np.array([revision.exponent for _, revision in rows], np.int16),
            quality=np.array([revision.quality for _, revision in rows], np.int8),
        )

    async def neighbours(
        self, places: Sequence[tuple[int, int]], number: int, position: int, *, before: bool
    ) -> Readings:
        keys: list[Key] = []
        for series, at in places:
            own = sorted(
                key
                for key in self.revisions
                if key.series_id == series
                and (key.measured_at_us < at if before else key.measured_at_us > at)
                and self._at(key, position) is not None
            )
            keys += own[-number:] if before else own[:number]
        return self._readings(sorted(keys), position)

    async def series_of(self, subject: Subject, subject_ids: Sequence[str]) -> Mapping[int, SeriesName]:
        return {
            series: name
            for series, (kind, name) in self.names.items()
            if kind == subject and name.subject_id in subject_ids
        }

    def _at(self, key: Key, position: int) -> Revision | None:
        known = [revision for revision in self.revisions.get(key, ()) if revision.position <= position]
        if not known or self.retracted.get(known[-1].event_id, position + 1) <= position:
            return None
        return known[-1]
