"""What ids of readings, exchanges and resets stand for, and the rows that go with decisions about them."""

from collections.abc import Mapping
from uuid import UUID

from psycopg.rows import class_row

from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_commands.metering import DecisionFiled
from smartgrid_commands.retracting import RegisteredReading, RetractionFiled

READING = """
SELECT s.subject, s.subject_id, s.measurand, nullif(s.phase, '-') AS phase, r.measured_at, nullif(r.seq, -1) AS seq,
       NOT EXISTS (
           SELECT FROM reading_register n WHERE n.series_id = r.series_id AND n.measured_at = r.measured_at
               AND n.seq = r.seq AND n.revision > r.revision
       ) AS newest,
       (SELECT t.position FROM reading_retractions t WHERE t.event_id = r.event_id) AS retracted_at
FROM reading_register r JOIN series s USING (series_id)
WHERE r.event_id = %s
"""

# Runs under the log's lock, so no correction comes between the look and the row.
FILE_RETRACTION = """
INSERT INTO reading_retractions (event_id, series_id, measured_at, seq, position, reason)
SELECT r.event_id, r.series_id, r.measured_at, r.seq, c.last_position, %(reason)s
FROM reading_register r, telemetry_commits c
WHERE r.event_id = %(event_id)s AND c.commit_id = %(commit_id)s
    AND NOT EXISTS (
        SELECT FROM reading_register n WHERE n.series_id = r.series_id AND n.measured_at = r.measured_at
            AND n.seq = r.seq AND n.revision > r.revision
    )
"""
FILE_DECISION = """
INSERT INTO meter_decisions (event_id, meter_id, position)
SELECT %(event_id)s, %(meter_id)s, c.last_position FROM telemetry_commits c WHERE c.commit_id = %(commit_id)s
"""


def file_retraction(effect: RetractionFiled) -> tuple[str, Mapping[str, object]]:
    """Return the statement that carries *effect* out."""
    values = {"event_id": effect.event_id, "commit_id": effect.commit_id, "reason": effect.reason}
    return FILE_RETRACTION, values


def file_decision(effect: DecisionFiled) -> tuple[str, Mapping[str, object]]:
    """Return the statement that carries *effect* out."""
    values = {"event_id": effect.event_id, "meter_id": effect.meter_id, "commit_id": effect.commit_id}
    return FILE_DECISION, values


class PostgresFacts:
    """Facts by their ids, in PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def reading(self, event_id: UUID) -> RegisteredReading | None:
        async def read(conn: Connection) -> RegisteredReading | None:
            async with conn.cursor(row_factory=class_row(RegisteredReading)) as cursor:
                await cursor.execute(READING, (event_id,))
                return await cursor.fetchone()

        return await run_safely(self._pool, read)

    async def meter_of_decision(self, event_id: UUID) -> str | None:
        async def read(conn: Connection) -> str | None:
            cursor = await conn.execute("SELECT meter_id FROM meter_decisions WHERE event_id = %s", (event_id,))
            row = await cursor.fetchone()
            return None if row is None else str(row[0])

        return await run_safely(self._pool, read)
