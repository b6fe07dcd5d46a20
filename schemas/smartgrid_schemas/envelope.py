"""An event together with its place in the log."""

from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID, uuid5

from msgspec import Struct

from smartgrid_schemas.event import Event
from smartgrid_schemas.registry import name_of

E_co = TypeVar("E_co", bound=Event, covariant=True)

LOGS = ("telemetry", "operations", "identity")
"""The three logs. Each has its own positions, which start at 1 and have no gaps."""

EVENT_NAMESPACE = UUID("2f1f6f64-91a5-5c8e-9d2f-6a1d8d1b0c11")
"""Namespace of the ids of log events."""


class Metadata(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, array_like=True):
    """
    Who and what caused an event.

    Attributes:
        actor: ``user:<id>``, ``key:<id>`` or ``system:<part>``.
        correlation_id: Id of the request or run that everything in its wake shares.
        causation_id: Id of the event, command or request that led to this one directly.
    """

    actor: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None


class Recorded(Struct, Generic[E_co], frozen=True, kw_only=True, gc=False):
    """
    An event as stored.

    Attributes:
        log: One of :data:`LOGS`.
        position: Place in its log, from 1, gapless, in commit order.
        stream: ``<subject>:<key>``.
        version: Index in its stream, from 1.
        event_id: UUIDv5 of stream, commit id and index in the commit.
        recorded_at: When it was stored; never decreases with the position.
        metadata: Who and what caused it.
        event: The fact, in today's shape.
        stored_as: Event name in the log if it was stored in an older shape, else empty.
    """

    log: str
    position: int
    stream: str
    version: int
    event_id: UUID
    recorded_at: datetime
    metadata: Metadata
    event: E_co
    stored_as: str = ""

    @property
    def name(self) -> str:
        """Event name in the log; personal fields are sealed under it."""
        return self.stored_as or name_of(self.event)


def event_id_of(stream: str, commit_id: UUID, index: int) -> UUID:
    """Return the id of the event at *index* (from 0) of the commit *commit_id*."""
    return uuid5(EVENT_NAMESPACE, f"{stream}|{commit_id}|{index}")
