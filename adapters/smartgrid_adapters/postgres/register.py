"""Looking things up in the reading register, before and besides a flush."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import numpy as np
from psycopg import sql

from smartgrid_adapters.postgres import fixed_arrays
from smartgrid_adapters.postgres.fixed_arrays import Instants, Int4s, Int8s
from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_commands.reading_calls import Call, Many, Stored, replaced_by
from smartgrid_commands.reading_flush import gather
from smartgrid_commands.reading_rows import Owner, Source

_MOST_CACHED: Final = 1_000_000
_SERIES = """
    SELECT w.i, s.series_id
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) WITH ORDINALITY
        AS w(subject, subject_id, measurand, phase, i)
    JOIN series s ON s.subject = w.subject COLLATE "C" AND s.subject_id = w.subject_id COLLATE "C"
        AND s.measurand = w.measurand COLLATE "C" AND s.phase = w.phase COLLATE "C"
"""
_NEW_SERIES = """
    INSERT INTO series (subject, subject_id, measurand, phase)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) ON CONFLICT DO NOTHING
"""
_SEEN = "SELECT originator_id FROM telemetry_events WHERE originator_id = ANY(%s::text[]) AND originator_version = 1"
# The ordered subquery is not flattened, so each key is one probe of the index, whatever the planner thinks of arrays.
_REVISIONS = """
    SELECT k.i, r.revision, r.mantissa, r.exponent, r.quality, r.event_id, r.position
    FROM unnest(%s::int[], %s::timestamptz[], %s::bigint[]) WITH ORDINALITY AS k(series_id, measured_at, seq, i)
    CROSS JOIN LATERAL (
        SELECT r.revision, r.mantissa, r.exponent, r.quality, r.event_id, r.position
        FROM reading_register r
        WHERE r.series_id = k.series_id AND r.measured_at = k.measured_at AND r.seq = k.seq
        ORDER BY r.revision OFFSET 0
    ) r
    ORDER BY k.i, r.revision
"""
_EXISTING = "SELECT event_id FROM reading_register WHERE event_id = ANY(%s::uuid[])"
_RECORDED_AT = "SELECT telemetry_recorded_at(%s)"

Series = tuple[str, str, str, str]


class Register:
    """
    The read side of the register that a flush needs, with what never changes kept in memory.

    Args:
        pool: Connections for look-ups.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._series: dict[Series, int] = {}
        self._seen: set[Owner] = set()

    async def prepare(self, call: Call) -> None:
        """Tell *call* the ids of its series and which owners nobody has seen."""
        if isinstance(call, Many):
            await self._prepare_many(call)
            return
        source = call.source
        await self._learn_series([source])
        call.series = self._series[source.series]
        if source.owner not in self._seen:
            await self._learn_seen([source.owner])
            call.unknown = source.owner not in self._seen

    async def _prepare_many(self, call: Many) -> None:
        sources = call.columns.sources
        await self._learn_series(sources)
        call.series = np.array([self._series[source.series] for source in sources], np.int64)
        strangers = {source.owner for source in sources} - self._seen
        if strangers:
            await self._learn_seen(strangers)
            call.unknown = frozenset(strangers - self._seen)

    def saw(self, owners: Iterable[Owner]) -> None:
        """Remember that *owners* are registered."""
        if len(self._seen) > _MOST_CACHED:
            self._seen.clear()
        self._seen.update(owners)

    async def _learn_series(self, sources: Sequence[Source]) -> None:
        while missing := {source.series for source in sources if source.series not in self._series}:
            if len(self._series) > _MOST_CACHED:
                self._series.clear()
            await self._fetch_series(list(missing))

    async def _fetch_series(self, keys: Sequence[Series]) -> None:
        columns = [list(column) for column in zip(*keys, strict=True)]

        async def unit(conn: Connection) -> None:
            rows = await (await conn.execute(_SERIES, columns)).fetchall()
            if len(rows) < len(keys):
                await conn.execute(_NEW_SERIES, columns)
                rows = await (await conn.execute(_SERIES, columns)).fetchall()
            self._series.update({keys[number - 1]: series_id for number, series_id in rows})

        await run_safely(self._pool, unit)

    async def _learn_seen(self, owners: Iterable[Owner]) -> None:
        streams = {f"{owner[0]}:{owner[1]}": owner for owner in owners}

        async def unit(conn: Connection) -> list[Any]:
            return await (await conn.execute(_SEEN, (list(streams),))).fetchall()

        self.saw(streams[name] for (name,) in await run_safely(self._pool, unit))

    async def judge(self, calls: Sequence[Call]) -> bool:
        """Let *calls* judge what the register holds of their undecided rows; return whether it holds any."""
        columns = gather(calls)
        if not len(columns.row):
            return False
        arrays = (Int4s(columns.series), Instants(columns.measured_at), Int8s(columns.seq))

        async def unit(conn: Connection) -> list[Any]:
            fixed_arrays.register(conn)
            async with conn.cursor(binary=True) as cursor:
                await cursor.execute(_REVISIONS, arrays, prepare=True)
                return await cursor.fetchall()

        owners: list[int] = columns.owner.tolist()
        rows: list[int] = columns.row.tolist()
        found: dict[int, dict[int, list[Stored]]] = {}
        for at, revision, mantissa, exponent, quality, event_id, position in await run_safely(self._pool, unit):
            stored = Stored(revision, mantissa, exponent, quality, event_id.bytes, position)
            number = int(at) - 1
            found.setdefault(owners[number], {}).setdefault(rows[number], []).append(stored)
        known = (await self._existing(replaced_by(calls))).__contains__
        for number in dict.fromkeys(owners):
            call, of_call = calls[number], found.get(number, {})
            if isinstance(call, Many):
                call.judge(of_call, known)
            else:
                call.judge(of_call.get(0, ()), known)
        return bool(found)

    async def _existing(self, event_ids: Iterable[bytes]) -> set[bytes]:
        """Return those of *event_ids* that are readings."""
        wanted = [UUID(bytes=event_id) for event_id in event_ids]
        if not wanted:
            return set()

        async def unit(conn: Connection) -> list[Any]:
            return await (await conn.execute(_EXISTING, (wanted,))).fetchall()

        return {event_id.bytes for (event_id,) in await run_safely(self._pool, unit)}

    async def recorded_at(self, position: int) -> datetime:
        """Return when the event at *position* was recorded."""

        async def unit(conn: Connection) -> Any:  # noqa: ANN401  # a row
            return await (await conn.execute(sql.SQL(_RECORDED_AT), (position,))).fetchone()

        row = await run_safely(self._pool, unit)
        found: datetime = row[0]
        return found
