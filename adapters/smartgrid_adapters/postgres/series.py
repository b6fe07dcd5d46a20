"""What folds read of the reading register: series, current readings of natural keys, and those of a stretch of time."""

from collections.abc import Mapping, Sequence
from typing import LiteralString

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from smartgrid_adapters.postgres.pool import Connection
from smartgrid_projections.register import Key, Readings, SeriesName, Subject

_SERIES = """
    SELECT w.i, s.series_id
    FROM unnest(%(ids)s::text[], %(measurands)s::text[], %(phases)s::text[]) WITH ORDINALITY
        AS w(subject_id, measurand, phase, i)
    JOIN series s ON s.subject = %(subject)s AND s.subject_id = w.subject_id COLLATE "C"
        AND s.measurand = w.measurand COLLATE "C" AND s.phase = w.phase COLLATE "C"
"""
# A microsecond as bigint turns into a timestamp without a detour through floating point.
_CURRENT = """
    SELECT k.i, c.mantissa, c.exponent
    FROM unnest(%(series)s::int[], %(at)s::bigint[], %(seq)s::bigint[]) WITH ORDINALITY AS k(series_id, at, seq, i)
    CROSS JOIN LATERAL (
        SELECT r.mantissa, r.exponent, r.event_id
        FROM reading_register r
        WHERE r.series_id = k.series_id AND r.measured_at = 'epoch'::timestamptz + k.at * interval '1 microsecond'
            AND r.seq = k.seq AND r.position <= %(position)s
        ORDER BY r.revision DESC
        LIMIT 1
    ) c
    WHERE NOT EXISTS (
        SELECT FROM reading_retractions t WHERE t.event_id = c.event_id AND t.position <= %(position)s
    )
"""
PACKED_ROW = (
    "int4send(c.series_id) || timestamptz_send(c.measured_at) || int8send(c.seq) || int8send(c.mantissa) "
    "|| int2send(c.exponent) || int2send(c.quality)"
)
"""A reading as bytes: the server packs rows into one value of PostgreSQL's binary forms, which numpy reads as it is."""

_STRETCH = """
    SELECT string_agg({packed}, ''::bytea ORDER BY c.series_id, c.measured_at, c.seq)
    FROM unnest(%(series)s::int[], %(start)s::bigint[], %(end)s::bigint[]) AS w(series_id, start_us, end_us)
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (r.measured_at, r.seq)
            r.series_id, r.measured_at, r.seq, r.mantissa, r.exponent, r.quality, r.event_id
        FROM reading_register r
        WHERE r.series_id = w.series_id
            AND r.measured_at >= 'epoch'::timestamptz + w.start_us * interval '1 microsecond'
            AND r.measured_at < 'epoch'::timestamptz + w.end_us * interval '1 microsecond'
            AND r.position <= %(position)s
        ORDER BY r.measured_at, r.seq, r.revision DESC
    ) c
    WHERE NOT EXISTS (
        SELECT FROM reading_retractions t WHERE t.event_id = c.event_id AND t.position <= %(position)s
    )
"""
_NEIGHBOURS = """
    SELECT string_agg({packed}, ''::bytea ORDER BY c.series_id, c.measured_at, c.seq)
    FROM unnest(%(series)s::int[], %(at)s::bigint[]) AS w(series_id, at_us)
    CROSS JOIN LATERAL (
        SELECT d.*
        FROM (
            SELECT DISTINCT ON (r.measured_at, r.seq)
                r.series_id, r.measured_at, r.seq, r.mantissa, r.exponent, r.quality, r.event_id
            FROM reading_register r
            WHERE r.series_id = w.series_id AND r.position <= %(position)s
                AND r.measured_at {beyond} 'epoch'::timestamptz + w.at_us * interval '1 microsecond'
            ORDER BY r.measured_at {order}, r.seq {order}, r.revision DESC
        ) d
        WHERE NOT EXISTS (
            SELECT FROM reading_retractions t WHERE t.event_id = d.event_id AND t.position <= %(position)s
        )
        ORDER BY d.measured_at {order}, d.seq {order}
        LIMIT %(number)s
    ) c
"""


def _neighbours(beyond: LiteralString, order: LiteralString) -> sql.Composed:
    return sql.SQL(_NEIGHBOURS).format(packed=sql.SQL(PACKED_ROW), beyond=sql.SQL(beyond), order=sql.SQL(order))


_BEFORE, _AFTER = _neighbours("<", "DESC"), _neighbours(">", "ASC")
_SERIES_OF = """
    SELECT series_id, subject_id, measurand, phase FROM series WHERE subject = %s AND subject_id = ANY(%s)
"""
_PACKED = np.dtype(
    [("series", ">i4"), ("at", ">i8"), ("seq", ">i8"), ("mantissa", ">i8"), ("exponent", ">i2"), ("quality", ">i2")]
)
_EPOCH_2000_US = 946_684_800_000_000


class PostgresSeries:
    """The reading register as a projection reads it, in the projection's own transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ids: dict[tuple[Subject, SeriesName], int] = {}

    async def series(self, subject: Subject, names: Sequence[SeriesName]) -> Mapping[SeriesName, int]:
        missing = [name for name in names if (subject, name) not in self._ids]
        if missing:
            cursor = await self._connection.execute(
                _SERIES,
                {
                    "subject": subject,
                    "ids": [name.subject_id for name in missing],
                    "measurands": [name.measurand for name in missing],
                    "phases": [name.phase for name in missing],
                },
            )
            for i, series_id in await cursor.fetchall():
                self._ids[subject, missing[i - 1]] = series_id
        return {name: self._ids[subject, name] for name in names}

    async def current(self, keys: Sequence[Key], position: int) -> Mapping[Key, tuple[int, int]]:
        if not keys:
            return {}
        cursor = await self._connection.execute(
            _CURRENT,
            {
                "series": [key.series_id for key in keys],
                "at": [key.measured_at_us for key in keys],
                "seq": [key.seq for key in keys],
                "position": position,
            },
        )
        return {keys[i - 1]: (mantissa, exponent) for i, mantissa, exponent in await cursor.fetchall()}

    async def stretches(self, stretches: Sequence[tuple[int, int, int]], position: int) -> Readings:
        cursor = await self._connection.execute(
            sql.SQL(_STRETCH).format(packed=sql.SQL(PACKED_ROW)),
            {
                "series": [series_id for series_id, _, _ in stretches],
                "start": [start for _, start, _ in stretches],
                "end": [end for _, _, end in stretches],
                "position": position,
            },
        )
        row = await cursor.fetchone()
        return readings_of(None if row is None else row[0])

    async def neighbours(
        self, places: Sequence[tuple[int, int]], number: int, position: int, *, before: bool
    ) -> Readings:
        cursor = await self._connection.execute(
            _BEFORE if before else _AFTER,
            {
                "series": [series_id for series_id, _ in places],
                "at": [at for _, at in places],
                "number": number,
                "position": position,
            },
        )
        row = await cursor.fetchone()
        return readings_of(None if row is None else row[0])

    async def series_of(self, subject: Subject, subject_ids: Sequence[str]) -> Mapping[int, SeriesName]:
        cursor = await self._connection.execute(_SERIES_OF, (subject, list(subject_ids)))
        return {row[0]: SeriesName(*row[1:]) for row in await cursor.fetchall()}


def readings_of(packed: bytes | None) -> Readings:
    """Return rows that are packed as :data:`PACKED_ROW`."""
    rows = np.frombuffer(packed or b"", _PACKED)
    return Readings(
        series_id=_native(rows["series"]),
        measured_at_us=_native(rows["at"]) + _EPOCH_2000_US,
        seq=_native(rows["seq"]),
        mantissa=_native(rows["mantissa"]),
        exponent=rows["exponent"].astype(np.int16),
        quality=rows["quality"].astype(np.int8),
    )


def _native(column: NDArray[np.signedinteger]) -> NDArray[np.int64]:
    return column.astype(np.int64)
