"""The logs, event by event, with what their hash chains cover of each."""

from collections.abc import Sequence
from typing import Any

from psycopg import sql

from smartgrid_adapters.postgres.codec import UndecodableEvent, decode, decode_metadata
from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_projections.queries.events import EventFilter, LoggedEvent, causes_of, shown
from smartgrid_schemas.envelope import Metadata, event_id_of

_EVENTS = """
    SELECT e.notification_id, e.originator_id, e.originator_version, e.topic, e.state, e.metadata,
           c.commit_id, c.before, c.recorded_at,
           log_row_hash(e.notification_id, e.originator_id, e.originator_version, e.topic, e.metadata, e.state)
    FROM {events} e
    CROSS JOIN LATERAL (
        SELECT c.commit_id, c.last_position - c.n AS before, c.recorded_at FROM {commits} c
        WHERE c.last_position >= e.notification_id ORDER BY c.last_position LIMIT 1
    ) c
    WHERE e.notification_id > %(after)s AND e.notification_id <= %(up_to)s{chosen}
    ORDER BY e.notification_id LIMIT %(limit)s
"""
_NAMED = sql.SQL(" AND e.topic = %(name)s")
_IN_STREAM = sql.SQL(" AND e.originator_id = %(stream)s")


class PostgresEvents:
    """
    Fulfils ``Events``.

    Args:
        pool: Connections.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def events(self, wanted: EventFilter) -> Sequence[LoggedEvent]:
        chosen = [part for part, value in ((_NAMED, wanted.name), (_IN_STREAM, wanted.stream)) if value is not None]
        query = sql.SQL(_EVENTS).format(
            events=sql.Identifier(f"{wanted.log}_events"),
            commits=sql.Identifier(f"{wanted.log}_commits"),
            chosen=sql.Composed(chosen),
        )
        values = {
            "after": wanted.after,
            "up_to": wanted.up_to,
            "name": wanted.name,
            "stream": wanted.stream,
            "limit": wanted.limit,
        }

        async def unit(conn: Connection) -> list[tuple[Any, ...]]:
            return await (await conn.execute(query, values, binary=True)).fetchall()

        return [_logged(wanted.log, row) for row in await run_safely(self._pool, unit)]


def _logged(log: str, row: tuple[Any, ...]) -> LoggedEvent:
    position, stream, version, name, state, packed, commit_id, before, recorded_at, row_hash = row
    try:
        metadata = decode_metadata(name, packed)
    except UndecodableEvent:
        metadata = Metadata()
    try:
        data: dict[str, Any] | None = shown(decode(name, state))
    except UndecodableEvent:
        data = None
    causation_id, correlation_id = causes_of(metadata)
    return LoggedEvent(
        position=f"{log}@{position}",
        event_id=event_id_of(stream, commit_id, position - before - 1),
        stream=stream,
        version=version,
        type=name,
        recorded_at=recorded_at,
        actor=metadata.actor,
        causation_id=causation_id,
        correlation_id=correlation_id,
        data=data,
        hash=row_hash.hex(),
    )
