"""The shape of a projection."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.metering import MeterReadingsRecorded
from smartgrid_schemas.telemetry import ReadingsRecorded

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Projection(Generic[T]):
    """
    Code that folds facts into the tables of one read model.

    Attributes:
        name: As the API names it.
        version: Raised whenever the same events give other rows; each version has tables of its own.
        logs: The logs it reads, each with its own checkpoint.
        project: Folds a batch of one log, in position order, into the tables. It runs in the transaction that moves
            the checkpoint, so it has no other effect and may be run again.

    Guarantees:
        The rows depend on the events alone, not on how they were cut into batches.
    """

    name: str
    version: int
    logs: tuple[str, ...]
    project: Callable[[Sequence[Recorded[Event]], T], Awaitable[None]]


def weight_of(event: Event) -> int:
    """Return how many rows *event* brings: readings of a batch, 1 for any other event."""
    return event.count if isinstance(event, ReadingsRecorded | MeterReadingsRecorded) else 1
