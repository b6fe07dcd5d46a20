"""What projections need of the outside world."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol, TypeVar, runtime_checkable

from msgspec import Struct

from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@runtime_checkable
class EventLog(Protocol):
    """The reading side of the store; see ``smartgrid_commands.ports.EventStore`` for its guarantees."""

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
class LogTimes(Protocol):
    """
    What was in a log at a time.

    Guarantees:
        A position that was told for a time is told for it ever after: no later commit is recorded at or before it.
    """

    async def position_at(self, log: str, at: datetime) -> int | None:
        """Return the last position recorded at or before *at*, 0 for none; None when that time has not come yet."""
        ...

    async def recorded_at(self, log: str, position: int) -> datetime | None:
        """Return when *position*, counted from 1, was recorded; None when the log is not that long."""
        ...


BatchOf = Sequence[Recorded[Event]]


class Fenced(Exception):
    """Another worker owns the projection now; nothing of this step was kept."""


class Unavailable(Exception):
    """The database of the read models cannot be reached or refuses for lack of means; try again later."""


class Claim(Struct, frozen=True, kw_only=True):
    """
    The right to move a projection's checkpoints, until someone else takes it.

    Attributes:
        epoch: Number of changes of ownership so far; a step under an older one is refused.
        positions: Last position per log whose rows are committed.
    """

    epoch: int
    positions: Mapping[str, int]


class Move(Struct, frozen=True, kw_only=True):
    """
    One step of a checkpoint.

    Attributes:
        log: The log that was read.
        old: Position before.
        new: Position of the last event of the batch.
        rate_per_s: Events folded per second lately, for operators.
    """

    log: str
    old: int
    new: int
    rate_per_s: float = 0.0


class Checkpoints(Protocol[T_co]):
    """
    How far one version of one projection has come, who may move it, and the tables it fills.

    Guarantees:
        * Rows written in :meth:`step` and its checkpoint are committed together or not at all.
        * At most one claim can step at a time; the step of any other raises :class:`Fenced` and keeps nothing.
        * A claim whose holder died is given away at once when its connection ended, else when its lease ran out.

    All methods raise :class:`Unavailable` when the database cannot be reached; after that the claim is void.
    """

    async def claim(self) -> Claim | None:
        """Take the projection, or return None while someone else has it."""
        ...

    async def renew(self, claim: Claim) -> None:
        """
        Prolong the lease.

        Raises:
            Fenced: Someone else took the projection.
        """
        ...

    def step(self, claim: Claim, move: Move) -> AbstractAsyncContextManager[T_co]:
        """
        Open a transaction, move the checkpoint by compare-and-set in it, give the tables, commit at the end.

        Raises:
            Fenced: The checkpoint is not at ``move.old`` or the epoch is not the claim's.
        """
        ...

    async def failed(self, claim: Claim, error: str) -> None:
        """Record why the projection stopped."""
        ...

    async def release(self, claim: Claim) -> None:
        """Give the projection back; it changes nothing when someone else has it."""
        ...

    async def close(self) -> None:
        """Drop the connection."""
        ...


class Standing(Struct, frozen=True, kw_only=True):
    """
    What the database knows of the version of a projection that is in use.

    Attributes:
        name: Name of the projection.
        version: Its version.
        positions: Last committed position per log.
        next_recorded_at: When the first event that is not folded yet was recorded, per log; absent if none.
        rate_per_s: Events folded per second when it last moved.
        parked_keys: Keys set aside.
        owned: Whether a worker holds it.
        last_error: Why it stopped.
        paused: Whether an operator lets it stand still.
    """

    name: str
    version: int
    positions: Mapping[str, int]
    next_recorded_at: Mapping[str, datetime]
    rate_per_s: float
    parked_keys: int
    owned: bool
    last_error: str | None
    paused: bool = False


@runtime_checkable
class Standings(Protocol):
    """The state of all projections."""

    async def standings(self) -> Sequence[Standing]:
        """Return all projections that keep a checkpoint, ordered by name."""
        ...

    async def positions(self) -> Mapping[str, Mapping[str, int]]:
        """Return the committed position per projection and log."""
        ...
