"""What projections need of the outside world."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event


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


BatchOf = Sequence[Recorded[Event]]
