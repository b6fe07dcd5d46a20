"""The logs themselves, event by event, for operators."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, cast, runtime_checkable
from uuid import UUID

from msgspec import Struct
from msgspec.structs import fields

from smartgrid_schemas.envelope import Metadata
from smartgrid_schemas.event import Event
from smartgrid_schemas.privacy import personal_fields


class LoggedEvent(Struct, frozen=True, kw_only=True):
    """
    One event as stored.

    Attributes:
        position: Its place in the log, as a token.
        event_id: Its id.
        stream: ``<subject>:<key>``.
        version: Index in its stream.
        type: Its name, such as ``telemetry.readings-recorded.v1``.
        recorded_at: When it was stored.
        actor: ``user:<id>``, ``key:<id>`` or ``system:<part>``; null where several brought it.
        causation_id: What led to it directly: an event, a command, else the request.
        correlation_id: Request or run that it belongs to; of readings of several requests, *data* names them.
        data: Its fields. Bytes are base64; of a personal value no more than that there is one. Null for bytes that
            are no event.
        hash: What the log's hash chain covers of it, hexadecimal.
    """

    position: str
    event_id: UUID
    stream: str
    version: int
    type: str
    recorded_at: datetime
    actor: str | None
    causation_id: str | None
    correlation_id: str | None
    data: dict[str, Any] | None
    hash: str


class EventFilter(Struct, frozen=True, kw_only=True):
    """
    Which events are wanted, in order of position.

    Attributes:
        log: Of this log.
        after: Only positions above it.
        up_to: None above it.
        name: Only events of this name.
        stream: Only events of this stream.
        limit: Most of them.
    """

    log: str
    after: int
    up_to: int
    name: str | None = None
    stream: str | None = None
    limit: int


@runtime_checkable
class Events(Protocol):
    """All logs."""

    async def events(self, wanted: EventFilter) -> Sequence[LoggedEvent]:
        """Return the first of those wanted."""
        ...


def position_of(event: LoggedEvent) -> int:
    """Return the place of *event* in its log."""
    return int(event.position.partition("@")[2])


def causes_of(metadata: Metadata) -> tuple[str | None, str | None]:
    """Return causation and correlation id; what no event or command led to, the request itself did."""
    return metadata.causation_id or metadata.correlation_id, metadata.correlation_id


def shown(event: Event) -> dict[str, Any]:
    """Return the fields of *event*, without what is personal."""
    personal = personal_fields(type(event))
    return {
        field.encode_name: _hidden(getattr(event, field.name)) if field.name in personal else _plain(value)
        for field in fields(event)
        if (value := getattr(event, field.name)) is not None or field.name in personal
    }


def _hidden(value: object) -> Mapping[str, bool] | None:
    return None if value is None else {"sealed": True}


def _plain(value: object) -> object:
    """Return structs as objects, also those that are arrays on disk."""
    match value:
        case Struct():
            return {field.encode_name: _plain(getattr(value, field.name)) for field in fields(value)}
        case list() | tuple():
            return [_plain(item) for item in cast("Sequence[object]", value)]
        case _:
            return value
