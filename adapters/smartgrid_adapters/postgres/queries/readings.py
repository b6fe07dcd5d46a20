"""The reading register, read."""

from datetime import datetime

from psycopg import sql
from psycopg.rows import class_row

from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_projections.queries.readings import Place, Row, Slice, Subject

# One index range of each series, cut at its own limit, then merged: no series is read further than the page needs.
# The window gives a row its neighbours among the revisions of one natural key without a second look at the table.
ROWS = """
SELECT k.event_id, k.measurand, k.phase, k.measured_at, k.seq, k.revision, k.mantissa, k.exponent, k.quality,
       k.position, c.recorded_at, k.superseded, k.corrects, k.retracted
FROM (
    SELECT s.measurand, s.phase, n.*
    FROM series s
    CROSS JOIN LATERAL (
        SELECT w.*
        FROM (
            SELECT r.measured_at, r.seq, r.revision, r.mantissa, r.exponent, r.quality, r.event_id, r.position,
                   {newer}(r.event_id) OVER same_key IS NOT NULL AS superseded,
                   {older}(r.event_id) OVER same_key AS corrects,
                   EXISTS (
                       SELECT FROM reading_retractions t WHERE t.event_id = r.event_id AND t.position <= %(up_to)s
                   ) AS retracted
            FROM reading_register r
            WHERE r.series_id = s.series_id AND r.position <= %(up_to)s
                AND r.measured_at >= %(start)s AND r.measured_at < %(end)s
            WINDOW same_key AS (
                PARTITION BY r.measured_at, r.seq
                ORDER BY r.measured_at {order}, r.seq {order}, r.revision {order}
            )
        ) w
        WHERE (%(all_versions)s OR NOT (w.superseded OR w.retracted))
            AND (NOT %(continued)s OR (w.measured_at, w.seq, s.measurand, s.phase, w.revision) {beyond}
                 (%(at)s, %(seq)s, %(at_measurand)s, %(at_phase)s, %(revision)s))
        ORDER BY w.measured_at {order}, w.seq {order}, w.revision {order}
        LIMIT %(limit)s
    ) n
    WHERE s.subject = %(subject)s AND s.subject_id = %(subject_id)s
        AND (%(measurand)s::text IS NULL OR s.measurand = %(measurand)s)
        AND (%(phase)s::text IS NULL OR s.phase = %(phase)s)
    ORDER BY n.measured_at {order}, n.seq {order}, s.measurand {order}, s.phase {order}, n.revision {order}
    LIMIT %(limit)s
) k
CROSS JOIN LATERAL (
    SELECT c.recorded_at FROM telemetry_commits c WHERE c.last_position >= k.position ORDER BY c.last_position LIMIT 1
) c
ORDER BY k.measured_at {order}, k.seq {order}, k.measurand {order}, k.phase {order}, k.revision {order}
"""
ASCENDING = sql.SQL(ROWS).format(order=sql.SQL("ASC"), beyond=sql.SQL(">"), newer=sql.SQL("lead"), older=sql.SQL("lag"))
DESCENDING = sql.SQL(ROWS).format(
    order=sql.SQL("DESC"), beyond=sql.SQL("<"), newer=sql.SQL("lag"), older=sql.SQL("lead")
)

LATEST = """
SELECT n.event_id, s.measurand, s.phase, n.measured_at, n.seq, n.revision, n.mantissa, n.exponent, n.quality,
       n.position, telemetry_recorded_at(n.position) AS recorded_at, false AS superseded, n.corrects, false AS retracted
FROM series s
CROSS JOIN LATERAL (
    SELECT w.*
    FROM (
        SELECT r.measured_at, r.seq, r.revision, r.mantissa, r.exponent, r.quality, r.event_id, r.position,
               lag(r.event_id) OVER same_key IS NOT NULL AS superseded,
               lead(r.event_id) OVER same_key AS corrects
        FROM reading_register r
        WHERE r.series_id = s.series_id AND r.position <= %(up_to)s
            AND (%(start)s::timestamptz IS NULL OR r.measured_at >= %(start)s)
        WINDOW same_key AS (
            PARTITION BY r.measured_at, r.seq ORDER BY r.measured_at DESC, r.seq DESC, r.revision DESC
        )
    ) w
    WHERE NOT w.superseded
        AND NOT EXISTS (
            SELECT FROM reading_retractions t WHERE t.event_id = w.event_id AND t.position <= %(up_to)s
        )
    ORDER BY w.measured_at DESC, w.seq DESC
    LIMIT 1
) n
WHERE s.subject = %(subject)s AND s.subject_id = %(subject_id)s
    AND (%(measurand)s::text IS NULL OR s.measurand = %(measurand)s)
ORDER BY s.measurand, s.phase
"""

_START = Place(0, 0, "", "", 0)


class PostgresRegister:
    """The reading register in PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def rows(self, wanted: Slice) -> list[Row]:
        at = wanted.after or _START
        start, end = wanted.start, wanted.end
        if wanted.after is not None:  # the index range begins where the page does
            start, end = (start, min(end, _just_after(at))) if wanted.descending else (max(start, at.measured_at), end)
        values = {
            "subject": wanted.subject,
            "subject_id": wanted.subject_id,
            "measurand": wanted.measurand,
            "phase": wanted.phase,
            "start": start,
            "end": end,
            "up_to": wanted.up_to,
            "all_versions": wanted.all_versions,
            "continued": wanted.after is not None,
            "at": at.measured_at,
            "seq": at.seq,
            "at_measurand": at.measurand,
            "at_phase": at.phase,
            "revision": at.revision,
            "limit": wanted.limit,
        }
        query = DESCENDING if wanted.descending else ASCENDING

        async def read(conn: Connection) -> list[Row]:
            async with conn.cursor(row_factory=class_row(Row), binary=True) as cursor:
                await cursor.execute(query, values)
                return await cursor.fetchall()

        return await run_safely(self._pool, read)

    async def latest(
        self, subject: Subject, subject_id: str, *, measurand: str | None, start: datetime | None, up_to: int
    ) -> list[Row]:
        values = {
            "subject": subject,
            "subject_id": subject_id,
            "measurand": measurand,
            "start": start,
            "up_to": up_to,
        }

        async def read(conn: Connection) -> list[Row]:
            async with conn.cursor(row_factory=class_row(Row), binary=True) as cursor:
                await cursor.execute(LATEST, values)
                return await cursor.fetchall()

        return await run_safely(self._pool, read)


def _just_after(place: Place) -> datetime:
    return Place(place.measured_at_us + 1, 0, "", "", 0).measured_at
