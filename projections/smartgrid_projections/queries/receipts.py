"""What became of something that was accepted."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable
from uuid import UUID

from msgspec import Struct

from smartgrid_projections.queries.readings import LOG


class Published(Struct, frozen=True, kw_only=True):
    """
    Where the bus has it.

    Attributes:
        topic: Topic.
        partition: Partition.
        offset: Offset.
    """

    topic: str
    partition: int
    offset: int


class Receipt(Struct, frozen=True, kw_only=True):
    """
    What became of a reading, an exchange or a reset.

    Attributes:
        event_id: Its id.
        position: Its place in the log.
        recorded_at: When it was stored.
        published: Where the bus has it; null until then.
        visible_in: Per read model, whether it is in there.
    """

    status: Literal["success"] = "success"
    event_id: UUID
    position: str
    recorded_at: datetime
    published: Published | None
    visible_in: dict[str, bool]


class Accepted(Struct, frozen=True, kw_only=True):
    """
    Something that is stored.

    Attributes:
        subject: Whose it is.
        subject_id: The sensor or meter.
        position: Position of its event.
        recorded_at: When that was stored.
        folded: Per projection that reads the log, the position that it has come to.
    """

    subject: Literal["sensor", "meter"]
    subject_id: str
    position: int
    recorded_at: datetime
    folded: Mapping[str, int]


@runtime_checkable
class Receipts(Protocol):
    """All that is stored, by id."""

    async def accepted(self, event_id: UUID) -> Accepted | None:
        """Return the reading, exchange or reset of that id."""
        ...


def receipt_of(event_id: UUID, accepted: Accepted) -> Receipt:
    """Return the receipt; the register of readings is written with the log itself, so it is never behind."""
    folded = {name: position >= accepted.position for name, position in sorted(accepted.folded.items())}
    return Receipt(
        event_id=event_id,
        position=f"{LOG}@{accepted.position}",
        recorded_at=accepted.recorded_at,
        published=None,
        visible_in={"readings": True, **folded},
    )
