"""Personal values, readable only with the data key of their subject."""

from collections.abc import Iterable
from typing import Protocol, TypeVar, runtime_checkable
from uuid import UUID

from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event, Sealed

E = TypeVar("E", bound=Event)


class DamagedSeal(Exception):
    """A sealed value is not what was sealed at this place: changed, or taken from elsewhere."""


@runtime_checkable
class Sealer(Protocol):
    """
    Seals the personal fields of events and opens them again.

    A store seals what it appends, so command handlers hand over clear values and read sealed ones. Whatever shows a
    personal value opens it then and there; read models keep it as :meth:`pack_sealed` made it.

    Guarantees:
        * A sealed value opens only in the event, field and stream it was sealed for.
        * A data key is on disk before the first append that uses it.
        * Once a subject's key is destroyed, its values open as None, everywhere.
    """

    async def prepare(self, events: Iterable[Event]) -> None:
        """
        Make the data keys that sealing *events* needs, and load them.

        Raises:
            StoreUnavailable: The keys cannot be reached.
        """
        ...

    def seal(self, event: E, *, stream: str, event_id: UUID) -> E:
        """
        Return *event* with its personal fields sealed; values that are sealed or absent stay.

        Raises:
            KeyError: The events were not prepared.
        """
        ...

    async def open(
        self, value: str | Sealed | None, *, name: str, stream: str, event_id: UUID, field: str
    ) -> str | None:
        """
        Return the clear text of *field* of the event *name*; None if there is none or its key is destroyed.

        Raises:
            DamagedSeal: *value* was not sealed for this place.
        """
        ...

    def pack_sealed(self, recorded: Recorded[Event], field: str) -> bytes | None:
        """Return *field* of an event with all that opening it takes, for a column of a read model; None if absent."""
        ...

    async def open_packed(self, packed: bytes | None) -> str | None:
        """
        Return the clear text in *packed*; None if it is None or its key is destroyed.

        Raises:
            DamagedSeal: *packed* is not what :meth:`pack_sealed` made.
        """
        ...

    def lookup(self, kind: str, text: str) -> bytes:
        """Return a keyed hash of *text* by which a value of *kind*, such as ``username``, is found without opening."""
        ...
