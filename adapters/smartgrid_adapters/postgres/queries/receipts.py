"""What is stored, by id."""

from uuid import UUID

from psycopg.rows import class_row

from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_projections.queries.receipts import Accepted

ACCEPTED = """
SELECT f.subject, f.subject_id, f.position, telemetry_recorded_at(f.position) AS recorded_at, coalesce((
           SELECT jsonb_object_agg(c.name, c.position) FROM projection_checkpoints c
           JOIN projection_versions v USING (name, version) WHERE v.state = 'active' AND c.log = 'telemetry'
       ), '{}') AS folded
FROM (
    SELECT s.subject, s.subject_id, r.position FROM reading_register r JOIN series s USING (series_id)
    WHERE r.event_id = %(event_id)s
    UNION ALL
    SELECT 'meter', d.meter_id, d.position FROM meter_decisions d WHERE d.event_id = %(event_id)s
) f
"""


class PostgresReceipts:
    """What is stored, in PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def accepted(self, event_id: UUID) -> Accepted | None:
        async def read(conn: Connection) -> Accepted | None:
            async with conn.cursor(row_factory=class_row(Accepted)) as cursor:
                await cursor.execute(ACCEPTED, {"event_id": event_id})
                return await cursor.fetchone()

        return await run_safely(self._pool, read)
