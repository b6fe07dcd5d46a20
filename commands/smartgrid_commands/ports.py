"""What command handlers need of the outside world."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable
from uuid import UUID

from msgspec import Struct

from smartgrid_schemas.envelope import Metadata, Recorded
from smartgrid_schemas.event import Event

ANY_VERSION = -1
"""Expected version of a write that joins its stream wherever it ends."""


class Effect(Struct, frozen=True, kw_only=True):
    """A row that is written in the same transaction as the events; each adapter knows its own subclasses."""


class StreamWrite(Struct, frozen=True, kw_only=True):
    """
    Events to append to one stream.

    Attributes:
        stream: ``<subject>:<key>``.
        events: At least one.
        expected_version: Number of events in the stream, or :data:`ANY_VERSION`.
        metadata: Who and what caused them.
    """

    stream: str
    events: Sequence[Event]
    expected_version: int
    metadata: Metadata = Metadata()


class Appended(Struct, frozen=True, kw_only=True):
    """
    Where an append went.

    Attributes:
        first_position: Position of its first event.
        last_position: Position of its last event.
        recorded_at: Time of its commit.
    """

    first_position: int
    last_position: int
    recorded_at: datetime


class WrongExpectedVersion(Exception):
    """A stream grew since it was read: read it again and decide anew."""

    def __init__(self, stream: str, expected: int) -> None:
        super().__init__(f"{stream} is not at version {expected} any more")
        self.stream = stream
        self.expected = expected


class StoreUnavailable(Exception):
    """The store cannot be reached; nothing was stored. Try again later."""


class OutcomeUnknown(Exception):
    """A commit was sent and no answer came: it is stored wholly or not at all. Repeat it with the same key."""


class EffectRefused(Exception):
    """A row of an append's effects was refused, so nothing was stored."""

    def __init__(self, effect: Effect, constraint: str) -> None:
        super().__init__(f"{type(effect).__name__} refused by {constraint}")
        self.effect = effect
        self.constraint = constraint


@runtime_checkable
class EventStore(Protocol):
    """
    The truth.

    Guarantees:
        * An append is all or nothing, over all its streams and effects.
        * Positions of a log start at 1, have no gaps, and follow the order of commits: a reader that has seen
          position n has seen every lower one.
        * ``recorded_at`` never decreases with the position.
        * An append whose *commit_id* is known already is answered with its first result and stores nothing.
    """

    async def append(
        self,
        log: str,
        writes: Sequence[StreamWrite],
        *,
        commit_id: UUID | None = None,
        effects: Sequence[Effect] = (),
    ) -> Appended:
        """
        Append *writes* to *log* in one commit.

        Raises:
            WrongExpectedVersion: A stream is at another version; nothing was stored.
            EffectRefused: An effect broke a constraint; nothing was stored.
            StoreUnavailable: Nothing was stored.
            OutcomeUnknown: Repeat with the same *commit_id*.
        """
        ...

    async def read_stream(self, log: str, stream: str, *, after: int = 0) -> list[Recorded[Event]]:
        """Return the events of *stream* with a version above *after*, in order."""
        ...

    async def read_log(
        self, log: str, *, after: int = 0, limit: int = 1000, up_to: int | None = None
    ) -> list[Recorded[Event]]:
        """Return up to *limit* events with positions above *after*, in order, none above *up_to*."""
        ...

    async def head(self, log: str) -> int:
        """Return the position of the newest visible event, 0 for an empty log."""
        ...

    async def wait_for(self, log: str, position: int, *, timeout_s: float) -> bool:
        """Wait until *position* is visible; return whether it is."""
        ...


@runtime_checkable
class Clock(Protocol):
    """Time, so that tests can own it."""

    def now(self) -> datetime:
        """Return the present time, UTC, with its offset."""
        ...

    def monotonic(self) -> float:
        """Return a time [s] that never goes back."""
        ...


@runtime_checkable
class Ids(Protocol):
    """Fresh random ids and secrets, so that tests can own them."""

    def uuid(self) -> UUID:
        """Return a random id."""
        ...

    def token(self, n_bytes: int = 32) -> str:
        """Return *n_bytes* of randomness as URL-safe text."""
        ...
