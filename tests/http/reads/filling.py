"""A register filled by hand, so that what is read is known without the code that records."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from smartgrid_adapters.postgres.codec import encode
from smartgrid_schemas.event import Event
from smartgrid_schemas.registry import name_of

START = datetime(2026, 1, 15, tzinfo=UTC)
Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]


class Stored(Struct, frozen=True, kw_only=True):
    """A row of the register; the value is *mantissa* tenths."""

    subject_id: str
    minute: int
    subject: str = "sensor"
    measurand: str = "voltage"
    phase: str = "-"
    seq: int = -1
    revision: int = 0
    mantissa: int = 2300
    exponent: int = -1
    quality: int = 0
    event_id: UUID
    position: int = 0

    @property
    def measured_at(self) -> datetime:
        return START + timedelta(minutes=self.minute)


class Filler:
    """Writes events and rows of the register."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def append(self, stream: str, event: Event | None = None) -> int:
        """Append *event*, or something that nobody decodes, and return its position."""
        topic, state = ("nothing", b"\0") if event is None else (name_of(event), encode(event))
        async with self._pool.connection() as conn:
            cursor = await conn.execute(
                "SELECT last_position FROM log_append('telemetry', %s, %s, '{-1}', %s, %s, '{null}'::bytea[])",
                (uuid4(), [stream], [topic], [state]),
            )
            row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def store(self, *rows: Stored) -> int:
        """Record *rows* in one commit and return its position."""
        position = await self.append("readings:0")
        async with self._pool.connection() as conn, conn.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO series (subject, subject_id, measurand, phase) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT DO NOTHING",
                [(row.subject, row.subject_id, row.measurand, row.phase) for row in rows],
            )
            await cursor.executemany(
                "INSERT INTO reading_register SELECT series_id, %s, %s, %s, %s, %s, %s, %s, %s FROM series "
                "WHERE (subject, subject_id, measurand, phase) = (%s, %s, %s, %s)",
                [
                    (
                        row.measured_at,
                        row.seq,
                        row.revision,
                        row.mantissa,
                        row.exponent,
                        row.quality,
                        row.event_id,
                        position,
                        row.subject,
                        row.subject_id,
                        row.measurand,
                        row.phase,
                    )
                    for row in rows
                ],
            )
        return position

    async def readings(self, sensor_id: str, minutes: Sequence[int], **more: object) -> list[Stored]:
        """Record one reading a minute in one commit."""
        rows = [Stored(subject_id=sensor_id, minute=m, event_id=uuid4(), **more) for m in minutes]  # type: ignore[arg-type]  # fields of a row
        await self.store(*rows)
        return rows

    async def retract(self, row: Stored) -> int:
        """Retract *row* and return the position."""
        position = await self.append("readings:0")
        async with self._pool.connection() as conn:
            await conn.execute(
                "INSERT INTO reading_retractions SELECT event_id, series_id, measured_at, seq, %s, 'why' "
                "FROM reading_register WHERE event_id = %s",
                (position, row.event_id),
            )
        return position
