"""Versions of a read model: one in use, another built beside it, compared, switched to, and the way back."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, runtime_checkable

from msgspec import Struct

RebuildState = Literal["building", "catching_up", "verifying", "ready", "switched", "aborted", "rolled_back", "failed"]
VersionState = Literal["building", "catching_up", "verifying", "ready", "active", "retired"]

UNDER_WAY: Final = frozenset({"building", "catching_up", "verifying"})
"""States of a rebuild that a worker still has something to do for."""

FED: Final = frozenset({"active", "ready", "retired"})
"""States of versions that follow the log: the one in use, its successor, and the one that a rollback returns to."""


class RebuildConflict(Exception):
    """The projection is not in the state that this takes; the text says why."""


class NoSuchRebuild(LookupError):
    """The projection has no rebuild of that id."""


class Verification(Struct, frozen=True, kw_only=True):
    """
    A version compared with the one in use, both at the same positions.

    Attributes:
        position: Position per log that both had come to.
        rows_active: Rows of the version in use, over all its tables.
        rows_new: Rows of the new one.
        rows_differing: Rows that only one has, or that differ in a byte.
        max_deviation: Largest difference of a measured number or a count of such a row, in the unit of its column;
            a missing row counts as zeros.
    """

    position: Mapping[str, int]
    rows_active: int
    rows_new: int
    rows_differing: int
    max_deviation: float


class Rebuild(Struct, frozen=True, kw_only=True):
    """
    One rebuild.

    Attributes:
        rebuild_id: Its id.
        name: The projection.
        version: The version that it builds.
        state: How far it is.
        auto_switch: Whether it is switched to as soon as it is ready.
        position: Last position folded, per log.
        rate_per_s: Events folded per second lately.
        verify: What the comparison found; None before it.
        error: Why it failed.
    """

    rebuild_id: str
    name: str
    version: int
    state: RebuildState
    auto_switch: bool
    position: Mapping[str, int]
    rate_per_s: float
    verify: Verification | None
    error: str | None


class Version(Struct, frozen=True, kw_only=True):
    """
    A version that a worker has to look after.

    Attributes:
        version: Its number.
        state: What it is to readers.
        rebuild_id: The rebuild that builds it, if it is being built or ready.
        auto_switch: Whether it is to be switched to once it is ready.
        error: Why it stopped, if it did.
    """

    version: int
    state: VersionState
    rebuild_id: str | None
    auto_switch: bool
    error: str | None


class Difference(Struct, frozen=True, kw_only=True):
    """
    A row that differs.

    Attributes:
        number: Place in the list, from 1.
        table: Name of the table without its version.
        key: Its primary key, as text.
        active: The row of the version in use; None if it has none.
        new: The row of the new one.
    """

    number: int
    table: str
    key: str
    active: dict[str, Any] | None
    new: dict[str, Any] | None


@runtime_checkable
class Versions(Protocol):
    """
    The versions of all projections.

    Guarantees:
        * One version of a projection answers at any time; a reader sees all of it or all of the next.
        * After a switch or rollback nobody sees a lower position than before it.
        * At most one rebuild of a projection is under way or waits to be switched to.

    All methods raise :class:`~smartgrid_projections.ports.Unavailable` when the database cannot be reached.
    """

    async def start(self, name: str, rebuild_id: str, *, auto_switch: bool) -> int:
        """
        Begin a rebuild beside the version in use; return the number of the new version.

        Raises:
            RebuildConflict: One is under way.
        """
        ...

    async def rebuild(self, name: str, rebuild_id: str) -> Rebuild:
        """
        Return one rebuild.

        Raises:
            NoSuchRebuild: There is none of that id.
        """
        ...

    async def differences(self, name: str, rebuild_id: str, *, after: int, limit: int) -> Sequence[Difference]:
        """
        Return rows that differ, behind number *after*.

        Raises:
            NoSuchRebuild: There is none of that id.
        """
        ...

    async def switch(self, name: str, rebuild_id: str) -> None:
        """
        Make a version that is ready the one in use; the one before it stays for the way back.

        Raises:
            NoSuchRebuild: There is none of that id.
            RebuildConflict: It is not ready, or behind the version in use.
        """
        ...

    async def abort(self, name: str, rebuild_id: str) -> None:
        """
        Give up a rebuild that was not switched to.

        Raises:
            NoSuchRebuild: There is none of that id.
            RebuildConflict: It has ended.
        """
        ...

    async def rollback(self, name: str) -> None:
        """
        Return to the version before the last switch, and give up the one in use.

        Raises:
            RebuildConflict: There is none to return to.
        """
        ...

    async def pause(self, name: str) -> None:
        """Stop the version in use from following the log; nothing of it moves once this returns."""
        ...

    async def resume(self, name: str) -> None:
        """Let the version in use follow the log again, after a pause or after an error."""
        ...


class Building(Protocol):
    """What a worker does to versions."""

    async def versions(self, name: str) -> Sequence[Version]:
        """Return the versions of *name* that have to be looked after."""
        ...

    async def rebuild(self, name: str, rebuild_id: str) -> Rebuild:
        """Return one rebuild."""
        ...

    async def positions(self, name: str) -> Mapping[str, int]:
        """Return how far the version in use has come, per log."""
        ...

    async def advance(self, rebuild: Rebuild, state: RebuildState, *, epoch: int, error: str | None = None) -> bool:
        """Move *rebuild* on from its state to *state*; return False if it is not there any more."""
        ...

    async def verify(
        self, rebuild: Rebuild, *, epoch: int, catch_up: Callable[[Mapping[str, int]], Awaitable[None]]
    ) -> Verification | None:
        """
        Compare the new version with the one in use, and keep what differs.

        The one in use stands still for as long as *catch_up* takes to bring the new one to the same positions; then
        both go on, and what they held is compared.

        Returns:
            What was found; None if *rebuild* is not being verified any more.
        """
        ...

    async def switch(self, name: str, rebuild_id: str) -> None:
        """
        Make a version that is ready the one in use.

        Raises:
            RebuildConflict: It is behind the version in use, or not ready any more.
        """
        ...

    async def sweep(self, name: str) -> None:
        """Drop tables that nothing needs any more, if no reader is in the way."""
        ...
