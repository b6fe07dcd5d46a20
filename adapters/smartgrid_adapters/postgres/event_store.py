"""The event store in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID, uuid4

from psycopg import sql

from smartgrid_adapters.postgres.arrays import EventRow
from smartgrid_adapters.postgres.codec import CODEC, Codec, UndecodableEvent, decode_metadata, encode, encode_metadata
from smartgrid_adapters.postgres.group_commit import GroupCommit
from smartgrid_adapters.postgres.log_writer import LogWriter
from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_adapters.postgres.tailing import LogTail
from smartgrid_commands.ports import ANY_VERSION, Appended, Effect, StreamWrite
from smartgrid_commands.sealing import Sealer
from smartgrid_schemas.envelope import LOGS, Recorded, event_id_of
from smartgrid_schemas.event import Event
from smartgrid_schemas.privacy import personal_fields
from smartgrid_schemas.registry import name_of

_LAST = 2**63 - 1

_SELECT = sql.SQL(
    "SELECT e.notification_id, e.originator_id, e.originator_version, e.topic, e.state, e.metadata, "
    "c.commit_id, c.before, c.recorded_at FROM {events} e CROSS JOIN LATERAL ("
    "SELECT c.commit_id, c.last_position - c.n AS before, c.recorded_at FROM {commits} c "
    "WHERE c.last_position >= e.notification_id ORDER BY c.last_position LIMIT 1) c "
)


def _selecting(log: str, rest: LiteralString) -> sql.Composed:
    tables = {"events": sql.Identifier(f"{log}_events"), "commits": sql.Identifier(f"{log}_commits")}
    return _SELECT.format(**tables) + sql.SQL(rest)


_BY_POSITION = {
    log: _selecting(
        log,
        "WHERE e.notification_id > %s AND e.notification_id <= %s ORDER BY e.notification_id LIMIT %s",
    )
    for log in LOGS
}
_BY_STREAM = {
    log: _selecting(log, "WHERE e.originator_id = %s AND e.originator_version > %s ORDER BY e.originator_version")
    for log in LOGS
}


class PostgresEventStore:
    """
    The truth, in PostgreSQL; fulfils ``EventStore`` and ``EventLog``.

    Args:
        pool: Its connections; besides, it keeps one per log that is written, and one that listens.
        sealer: Seals personal fields; without one, events that have some are refused.
        codec: Reads events.

    Attributes:
        pool: The pool.
        writer: For flushes of one's own, in turn with those of the store.
        tail: How far the logs are.
    """

    def __init__(self, pool: Pool, *, sealer: Sealer | None = None, codec: Codec = CODEC) -> None:
        self.pool = pool
        self._codec = codec
        self._sealer = sealer
        self.tail = LogTail(pool)
        self.writer = LogWriter(pool, announce=self.tail.announce)
        self._group = GroupCommit(self.writer, announce=self.tail.announce)

    async def start(self) -> None:
        """Begin to listen to what other processes append."""
        await self.tail.start()

    async def stop(self) -> None:
        """Answer what waits, then close; the pool stays open."""
        await self._group.stop()
        await self.tail.stop()
        await self.writer.close()

    async def append(
        self,
        log: str,
        writes: Sequence[StreamWrite],
        *,
        commit_id: UUID | None = None,
        effects: Sequence[Effect] = (),
    ) -> Appended:
        if any(personal_fields(type(event)) for write in writes for event in write.events):
            commit_id = commit_id or uuid4()
            writes = await self._sealed(writes, commit_id)
        rows: list[EventRow] = []
        for write in writes:
            metadata = encode_metadata(write.metadata)
            step, version = (
                (0, ANY_VERSION) if write.expected_version == ANY_VERSION else (1, write.expected_version + 1)
            )
            for event in write.events:
                rows.append(EventRow(write.stream, version, name_of(event), encode(event), metadata))
                version += step
        if not rows:
            raise ValueError("an append has at least one event")
        return await self._group.append(log, rows, commit_id=commit_id, effects=effects)

    async def _sealed(self, writes: Sequence[StreamWrite], commit_id: UUID) -> list[StreamWrite]:
        if self._sealer is None:
            raise ValueError("personal fields need a sealer")
        await self._sealer.prepare([event for write in writes for event in write.events])
        sealed: list[StreamWrite] = []
        index = 0
        for write in writes:
            events: list[Event] = []
            for event in write.events:
                event_id = event_id_of(write.stream, commit_id, index)
                events.append(self._sealer.seal(event, stream=write.stream, event_id=event_id))
                index += 1
            sealed.append(
                StreamWrite(
                    stream=write.stream,
                    events=events,
                    expected_version=write.expected_version,
                    metadata=write.metadata,
                )
            )
        return sealed

    async def read_stream(self, log: str, stream: str, *, after: int = 0) -> list[Recorded[Event]]:
        return await self._read(log, _BY_STREAM[log], (stream, after))

    async def read_log(
        self, log: str, *, after: int = 0, limit: int = 1000, up_to: int | None = None
    ) -> list[Recorded[Event]]:
        return await self._read(log, _BY_POSITION[log], (after, _LAST if up_to is None else up_to, limit))

    async def head(self, log: str) -> int:
        return await self.tail.head(log)

    async def wait_for(self, log: str, position: int, *, timeout_s: float) -> bool:
        return await self.tail.wait_for(log, position, timeout_s=timeout_s)

    async def _read(self, log: str, query: sql.Composed, parameters: Sequence[Any]) -> list[Recorded[Event]]:
        async def unit(conn: Connection) -> list[tuple[Any, ...]]:
            async with conn.cursor(binary=True) as cursor:
                await cursor.execute(query, parameters)
                return await cursor.fetchall()

        rows = await run_safely(self.pool, unit)
        events: list[Recorded[Event]] = []
        for row in rows:
            try:
                events.append(_recorded(self._codec, log, *row))
            except UndecodableEvent as error:
                if events:
                    break  # those before it first; the next read starts at the damage
                raise error.at(log, row[0], row[1]) from error
        return events


def _recorded(  # noqa: PLR0913, PLR0917  # the columns, in order
    codec: Codec,
    log: str,
    position: int,
    stream: str,
    version: int,
    topic: str,
    state: bytes,
    metadata: bytes | None,
    commit_id: UUID,
    before: int,
    recorded_at: datetime,
) -> Recorded[Event]:
    return Recorded(
        log=log,
        position=position,
        stream=stream,
        version=version,
        event_id=event_id_of(stream, commit_id, position - before - 1),
        recorded_at=recorded_at,
        metadata=decode_metadata(topic, metadata),
        event=codec.decode(topic, state),
        stored_as=codec.stored_as(topic),
    )
