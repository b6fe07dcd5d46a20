"""Rows of several calls as events: sorted by shard and series, within the limits of an event."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smartgrid_commands.reading_calls import Call, Many
from smartgrid_commands.reading_rows import NO_PHASE, Source
from smartgrid_domain.maths.columns import MOST_ROWS, pack_meter_readings, pack_readings, rows_of
from smartgrid_domain.maths.quantities import Exponents, Ints
from smartgrid_domain.readings import Metadata as Sent
from smartgrid_schemas.envelope import Metadata
from smartgrid_schemas.event import Event
from smartgrid_schemas.metering import RegisterKey
from smartgrid_schemas.telemetry import Corrects, SeriesKey

MOST_EVENT_BYTES: Final = 480_000
"""Rows of one event are estimated to stay below this [bytes]; the limit is 512 KiB."""

_ROW_BYTES: Final = 40
_CHAR_BYTES: Final = 4


class PlannedEvent(NamedTuple):
    """One event of a commit: its stream, body and cause; *first* when its stream begins with it."""

    stream: str
    event: Event
    metadata: Metadata
    first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """
    Where rows come from.

    Attributes:
        calls: The calls.
        owner: Index of the call of each row.
        row: Row in that call.
    """

    calls: Sequence[Call]
    owner: Ints
    row: Ints

    def extras(self, start: int, end: int) -> Iterable[tuple[tuple[bytes, str] | None, Sent | None]]:
        """Yield what each row corrects, and its metadata."""
        owners: list[int] = self.owner[start:end].tolist()
        for number, row in zip(owners, self.row[start:end].tolist(), strict=True):
            call = self.calls[number]
            if isinstance(call, Many):
                yield call.columns.corrects.get(row), call.columns.metadata.get(row)
            else:
                yield call.corrects, call.metadata

    def callers(self, start: int, end: int) -> list[Call]:
        """Return the calls of rows *start* … *end*, each once."""
        if len(self.calls) == 1:
            return [self.calls[0]]
        return [self.calls[number] for number in dict.fromkeys(self.owner[start:end].tolist())]

    def has_extras(self) -> bool:
        """Return whether any row has more than a value."""
        return any(
            call.columns.corrects or call.columns.metadata
            if isinstance(call, Many)
            else call.corrects is not None or call.metadata
            for call in self.calls
        )


def ranges(kinds: Ints, weights: Ints | None) -> list[tuple[int, int]]:
    """Cut rows into events: one kind each, within the limits of rows and bytes."""
    if not len(kinds):
        return []
    edges = [0, *(np.flatnonzero(kinds[1:] != kinds[:-1]) + 1).tolist(), len(kinds)]
    result: list[tuple[int, int]] = []
    for start, end in pairwise(edges):
        at = start
        while at < end:
            stop = min(end, at + MOST_ROWS)
            if weights is not None:
                sizes = np.cumsum(weights[at:stop])
                stop = at + max(1, int(np.searchsorted(sizes, MOST_EVENT_BYTES, side="right")))
            result.append((at, stop))
            at = stop
    return result


class Packer:
    """
    Makes events of consecutive rows.

    Args:
        origin: Where the rows come from.
        sources: Sources by rank: sorted by kind.
        ranks: Rank of the source of each row, ascending.
        measured_at: [µs since 1970].
        mantissa: As sent.
        exponent: As sent.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # the columns of a plan and where they came from
        self,
        origin: Origin,
        sources: Sequence[Source],
        ranks: Ints,
        measured_at: Ints,
        mantissa: Ints,
        exponent: Exponents,
    ) -> None:
        self._origin = origin
        self._sources = sources
        self._ranks = ranks
        self._measured_at = measured_at
        self._mantissa = mantissa
        self._exponent = exponent
        self._extras = origin.has_extras()
        self._quality: NDArray[np.int8] = np.zeros(0, np.int8)
        self._seq: Ints = np.zeros(0, np.int64)

    def more(self, quality: NDArray[np.int8], seq: Ints) -> None:
        """Take the columns that few rows need."""
        self._quality, self._seq = quality, seq

    def weights(self) -> Ints | None:
        """Return an upper estimate of the bytes of each row, None when all rows are plain."""
        if not self._extras:
            return None
        result = np.full(len(self._ranks), _ROW_BYTES, np.int64)
        for at, (corrects, metadata) in enumerate(self._origin.extras(0, len(self._ranks))):
            if metadata:
                result[at] += sum(len(str(k)) + len(str(v)) for k, v in metadata.items()) * _CHAR_BYTES + _ROW_BYTES
            if corrects is not None:
                result[at] += _CHAR_BYTES * len(corrects[1]) + _ROW_BYTES
        return result

    def event(self, start: int, end: int) -> PlannedEvent:
        """Return the event of rows *start* … *end*, which share kind and shard."""
        sources, series_index = self._series(start, end)
        callers = self._origin.callers(start, end)
        requests, request_of = self._requests(callers, start, end)
        corrects: list[Corrects] = []
        metadata: list[tuple[int, dict[str, Any]]] = []
        if self._extras:
            for at, (correction, sent) in enumerate(self._origin.extras(start, end)):
                if correction is not None:
                    corrects.append(Corrects(at, *correction))
                if sent:
                    metadata.append((at, sent))
        rows = rows_of(
            series_index,
            self._measured_at[start:end],
            self._mantissa[start:end],
            self._exponent[start:end],
            quality=self._quality[start:end],
            seq=self._seq[start:end],
            corrects=corrects,
            metadata=metadata,
            requests=requests,
            request_of=request_of,
        )
        actor = callers[0].actor
        cause = Metadata(
            actor=actor if all(call.actor == actor for call in callers) else None,
            correlation_id=None if requests else callers[0].correlation_id,
        )
        shard = sources[0].shard
        if sources[0].subject == "sensor":
            keys = [
                SeriesKey(s.subject_id, s.measurand, None if s.phase == NO_PHASE else s.phase, s.unit) for s in sources
            ]
            return PlannedEvent(f"readings:{shard}", pack_readings(shard, keys, rows), cause, first=False)
        registers = [RegisterKey(s.subject_id, s.measurand, s.unit) for s in sources]
        return PlannedEvent(f"registers:{shard}", pack_meter_readings(shard, registers, rows), cause, first=False)

    def _series(self, start: int, end: int) -> tuple[list[Source], Ints]:
        ranks = self._ranks[start:end]
        if ranks[0] == ranks[-1]:
            return [self._sources[ranks[0]]], np.zeros(end - start, np.int64)
        steps = np.flatnonzero(ranks[1:] != ranks[:-1]) + 1
        index = np.zeros(end - start, np.int64)
        index[steps] = 1
        first = np.concatenate((np.zeros(1, np.int64), steps))
        return [self._sources[rank] for rank in ranks[first].tolist()], np.cumsum(index)

    def _requests(self, callers: Sequence[Call], start: int, end: int) -> tuple[list[str], Ints | None]:
        names = list(dict.fromkeys(call.correlation_id or "" for call in callers))
        if len(names) == 1:
            return [], None
        place = {name: at for at, name in enumerate(names)}
        of_call = {id(call): place[call.correlation_id or ""] for call in callers}
        calls = self._origin.calls
        owners: list[int] = self._origin.owner[start:end].tolist()
        return names, np.array([of_call[id(calls[number])] for number in owners], np.int64)
