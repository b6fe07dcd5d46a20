"""Sensors: what they are set to is the newest event of their stream, what they sent is in the register."""

from collections.abc import Sequence
from typing import cast

from smartgrid_adapters.postgres.codec import decode
from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_projections.queries.sensors import Sensor, SensorFilter, sensor_of
from smartgrid_schemas.telemetry import SensorConfigured, SensorRegistered

# "C" collation makes the prefix an index range; 'sensor:' streams hold settings only, and each event all of them.
SENSORS = """
SELECT e.topic, e.state, e.originator_version, g.types, g.first_seen, g.last_seen
FROM (
    SELECT DISTINCT s.subject_id FROM series s
    WHERE s.subject = 'sensor' AND s.subject_id > %(after)s COLLATE "C"
        AND s.subject_id >= %(prefix)s COLLATE "C" AND starts_with(s.subject_id, %(prefix)s)
        AND (%(sensor_type)s::text IS NULL OR s.measurand = %(sensor_type)s)
        AND (%(sensor_id)s::text IS NULL OR s.subject_id = %(sensor_id)s)
) s
CROSS JOIN LATERAL (
    SELECT e.topic, e.state, e.originator_version FROM telemetry_events e
    WHERE e.originator_id = 'sensor:' || s.subject_id ORDER BY e.originator_version DESC LIMIT 1
) e
CROSS JOIN LATERAL (
    SELECT array_agg(DISTINCT o.measurand ORDER BY o.measurand) AS types,
           min(a.measured_at) AS first_seen, max(z.measured_at) AS last_seen
    FROM series o
    CROSS JOIN LATERAL (
        SELECT r.measured_at FROM reading_register r WHERE r.series_id = o.series_id ORDER BY r.measured_at LIMIT 1
    ) a
    CROSS JOIN LATERAL (
        SELECT r.measured_at FROM reading_register r WHERE r.series_id = o.series_id
        ORDER BY r.measured_at DESC LIMIT 1
    ) z
    WHERE o.subject = 'sensor' AND o.subject_id = s.subject_id
) g
WHERE g.types IS NOT NULL
ORDER BY s.subject_id
LIMIT %(limit)s
"""


class PostgresSensors:
    """Sensors, in PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def sensor(self, sensor_id: str) -> Sensor | None:
        found = await self._read(SensorFilter(limit=1), sensor_id)
        return found[0] if found else None

    async def sensors(self, wanted: SensorFilter) -> Sequence[Sensor]:
        return await self._read(wanted, None)

    async def _read(self, wanted: SensorFilter, sensor_id: str | None) -> list[Sensor]:
        values = {
            "sensor_type": wanted.sensor_type,
            "prefix": wanted.prefix,
            "after": wanted.after,
            "limit": wanted.limit,
            "sensor_id": sensor_id,
        }

        async def read(conn: Connection) -> list[Sensor]:
            cursor = await conn.execute(SENSORS, values, binary=True)
            return [
                sensor_of(cast("SensorRegistered | SensorConfigured", decode(topic, state)), *rest)
                for topic, state, *rest in await cursor.fetchall()
            ]

        return await run_safely(self._pool, read)
