"""Meters: what they are set to is in their stream, what they sent is in the register."""

from collections.abc import Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from msgspec.structs import replace

from smartgrid_adapters.postgres.codec import decode
from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_commands.sealing import Sealer
from smartgrid_projections.queries.meters import Link, Meter, MeterFilter, link_of, meter_of
from smartgrid_schemas.envelope import event_id_of
from smartgrid_schemas.metering import MeterConfigured, MeterRegistered
from smartgrid_schemas.registry import REGISTRY

Settings = MeterRegistered | MeterConfigured
SETTINGS = [*REGISTRY.names_of(MeterRegistered), *REGISTRY.names_of(MeterConfigured)]
CUSTOMER = "customer"
"""Kind of the blind index of customers."""

METERS = """
SELECT e.topic, e.state, e.notification_id, c.commit_id, c.before, v.version, g.registers, g.first_seen, g.last_seen
FROM (
    SELECT DISTINCT s.subject_id FROM series s
    WHERE s.subject = 'meter' AND s.subject_id > %(after)s COLLATE "C"
        AND s.subject_id >= %(prefix)s COLLATE "C" AND starts_with(s.subject_id, %(prefix)s)
        AND (%(register)s::text IS NULL OR s.measurand = %(register)s)
        AND (%(meter_id)s::text IS NULL OR s.subject_id = %(meter_id)s)
        AND (%(customer)s::bytea IS NULL OR s.subject_id IN (
            SELECT l.meter_id FROM meter_links l WHERE l.customer = %(customer)s
        ))
) s
CROSS JOIN LATERAL (
    SELECT e.topic, e.state, e.notification_id FROM telemetry_events e
    WHERE e.originator_id = 'meter:' || s.subject_id AND e.topic = ANY(%(settings)s)
    ORDER BY e.originator_version DESC LIMIT 1
) e
CROSS JOIN LATERAL (
    SELECT c.commit_id, c.last_position - c.n AS before FROM telemetry_commits c
    WHERE c.last_position >= e.notification_id ORDER BY c.last_position LIMIT 1
) c
CROSS JOIN LATERAL (
    SELECT max(e.originator_version) AS version FROM telemetry_events e WHERE e.originator_id = 'meter:' || s.subject_id
) v
CROSS JOIN LATERAL (
    SELECT array_agg(DISTINCT o.measurand ORDER BY o.measurand) AS registers,
           min(a.measured_at) AS first_seen, max(z.measured_at) AS last_seen
    FROM series o
    CROSS JOIN LATERAL (
        SELECT r.measured_at FROM reading_register r WHERE r.series_id = o.series_id ORDER BY r.measured_at LIMIT 1
    ) a
    CROSS JOIN LATERAL (
        SELECT r.measured_at FROM reading_register r WHERE r.series_id = o.series_id
        ORDER BY r.measured_at DESC LIMIT 1
    ) z
    WHERE o.subject = 'meter' AND o.subject_id = s.subject_id
) g
WHERE g.registers IS NOT NULL
ORDER BY s.subject_id
LIMIT %(limit)s
"""
LINKS = """
SELECT e.topic, e.state, e.notification_id, c.commit_id, c.before, c.recorded_at
FROM telemetry_events e
CROSS JOIN LATERAL (
    SELECT c.commit_id, c.last_position - c.n AS before, c.recorded_at FROM telemetry_commits c
    WHERE c.last_position >= e.notification_id ORDER BY c.last_position LIMIT 1
) c
WHERE e.originator_id = %(stream)s AND e.topic = ANY(%(settings)s)
    AND (%(up_to)s::bigint IS NULL OR e.notification_id <= %(up_to)s)
ORDER BY e.originator_version
"""


class PostgresMeters:
    """
    Meters, in PostgreSQL.

    Args:
        pool: Connections.
        sealer: Opens customers and names.
    """

    def __init__(self, pool: Pool, sealer: Sealer) -> None:
        self._pool = pool
        self._sealer = sealer

    async def meter(self, meter_id: str) -> Meter | None:
        found = await self._read(MeterFilter(limit=1), meter_id)
        return found[0] if found else None

    async def meters(self, wanted: MeterFilter) -> Sequence[Meter]:
        found: list[Meter] = []
        part = wanted
        while True:
            batch = await self._read(part, None)
            # The index holds former links too and lags behind the log; whose a meter is now, the log alone decides.
            found += [meter for meter in batch if wanted.customer_id in (None, meter.customer_id)]
            if len(batch) < wanted.limit or len(found) >= wanted.limit:
                return found[: wanted.limit]
            part = replace(wanted, after=batch[-1].meter_id)

    async def link(self, meter_id: str, *, up_to: int | None = None) -> Link | None:
        rows = await self._rows(LINKS, {"stream": f"meter:{meter_id}", "settings": SETTINGS, "up_to": up_to})
        history = [(row[-1], (await self._opened(*row[:5]))[1]) for row in rows]
        return link_of(history)

    async def _read(self, wanted: MeterFilter, meter_id: str | None) -> list[Meter]:
        values = {
            "customer": None if wanted.customer_id is None else self._sealer.lookup(CUSTOMER, wanted.customer_id),
            "register": wanted.register,
            "prefix": wanted.prefix,
            "after": wanted.after,
            "limit": wanted.limit,
            "settings": SETTINGS,
            "meter_id": meter_id,
        }
        return [meter_of(*await self._opened(*row[:5]), *row[5:]) for row in await self._rows(METERS, values)]

    async def _opened(
        self, topic: str, state: bytes, position: int, commit_id: UUID, before: int
    ) -> tuple[Settings, str | None, str | None]:
        event = cast("Settings", decode(topic, state))
        stream = f"meter:{event.meter_id}"
        event_id = event_id_of(stream, commit_id, position - before - 1)
        customer_id = await self._sealer.open(
            event.customer_id, name=topic, stream=stream, event_id=event_id, field="customer_id"
        )
        if isinstance(event, MeterRegistered):
            return event, customer_id, None
        name = await self._sealer.open(event.name, name=topic, stream=stream, event_id=event_id, field="name")
        return event, customer_id, name

    async def _rows(self, query: str, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
        async def read(conn: Connection) -> list[tuple[Any, ...]]:
            cursor = await conn.execute(query.encode(), values, binary=True)
            return await cursor.fetchall()

        return await run_safely(self._pool, read)
