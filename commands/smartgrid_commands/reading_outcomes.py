"""What became of readings: verdicts, as they are told and as they are kept under a key."""

from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType, field

from smartgrid_commands.reading_calls import (
    ACCEPTED,
    CONFLICT,
    CORRECTION_CONFLICT,
    DUPLICATE,
    NO_PLACE,
    NOT_FOUND,
    NOT_STORED,
    PENDING,
    Many,
    One,
    Stored,
)
from smartgrid_commands.reading_items import Bad
from smartgrid_commands.reading_rows import Rows, Source
from smartgrid_domain.errors import Conflict, Finding, Invalid, NotFound, Rejected
from smartgrid_domain.maths.quantities import float_of

Verdict = Literal["accepted", "duplicate", "rejected"]
_KILO: Final = 3


class ItemError(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Why an item was rejected.

    Attributes:
        index: Its index among the items, from 0.
        code: Error code of the API.
        message: What to do about it.
        errors: Every finding, for ``validation_failed``.
        existing_event_id: For ``reading_conflict``: the reading that has the key.
        existing_value: And its value, in the canonical unit (kWh of a meter).
    """

    index: int
    code: str
    message: str
    errors: list[Finding] | UnsetType = UNSET
    existing_event_id: str | UnsetType = UNSET
    existing_value: float | UnsetType = UNSET


class Outcome(Struct, kw_only=True, omit_defaults=True):
    """
    What became of a request; as kept with an ``Idempotency-Key``, positions are relative to the commit.

    Attributes:
        items: Number of items.
        accepted: Stored now, or fit to be, had nothing else been wrong.
        duplicates: Stored before.
        stored: Whether anything was stored now.
        first: Index in the commit of its first event; -1 for none.
        last: Index of its last event.
        errors: Of the rejected items, by index.
        states: Of each item, one byte, if wanted.
        event_ids: Of each item, 16 bytes, if wanted; zeros for a rejected one.
        repeats: Position of the event that a single duplicate repeats.
        measured_at_us: When a single reading was measured [µs since 1970].
        first_position: Position of the commit's first event.
        recorded_at: Time of the commit, when it is at hand.
    """

    items: int
    accepted: int
    duplicates: int
    stored: bool = False
    first: int = -1
    last: int = -1
    errors: list[ItemError] = field(default_factory=list[ItemError])
    states: bytes = b""
    event_ids: bytes = b""
    repeats: int = 0
    measured_at_us: int = 0
    first_position: int = 0
    recorded_at: datetime | None = None

    @property
    def rejected(self) -> int:
        """Number of rejected items."""
        return self.items - self.accepted - self.duplicates

    @property
    def positions(self) -> tuple[int, int] | None:
        """First and last position of what was stored."""
        if not self.stored:
            return None
        return self.first_position + self.first, self.first_position + self.last


class Prepared(Struct, kw_only=True):
    """
    The items of a request on their way.

    Attributes:
        items: How many there are.
        parts: The valid ones, in columns.
        errors: What is wrong with others.
    """

    items: int
    parts: list[Rows] = field(default_factory=list[Rows])
    errors: dict[int, ItemError] = field(default_factory=dict[int, ItemError])

    def reject(self, bad: Bad) -> None:
        """Note the findings of invalid items."""
        for index, findings in bad.items():
            message = findings[0].message
            self.errors[index] = ItemError(index=index, code="validation_failed", message=message, errors=findings)


def outcome_of_one(call: One) -> Outcome:
    """Return what became of a single reading, positions relative to its commit."""
    outcome = Outcome(
        items=1,
        accepted=int(call.state == ACCEPTED),
        duplicates=int(call.state == DUPLICATE),
        stored=call.state == ACCEPTED,
        first=call.event,
        last=call.event,
        states=bytes((call.state,)),
        event_ids=call.event_id,
        measured_at_us=call.measured_at,
    )
    if call.state == DUPLICATE and call.found is not None:
        outcome.repeats = call.found.position
    elif call.state != ACCEPTED:
        outcome.errors.append(_error_of(0, call.state, call.source, call.found))
    return outcome


def outcome_of(call: Many, prepared: Prepared, *, verdicts: bool) -> Outcome:
    """Return what became of a batch, positions relative to its commit."""
    columns, state = call.columns, call.state
    errors = dict(prepared.errors)
    for row in np.flatnonzero(state > DUPLICATE).tolist():
        index = int(columns.item[row])
        errors[index] = _error_of(
            index, int(state[row]), columns.sources[int(columns.source_of[row])], _held(call, row)
        )
    duplicates = int((state == DUPLICATE).sum())
    events = call.event[state == ACCEPTED]
    outcome = Outcome(
        items=prepared.items,
        accepted=prepared.items - duplicates - len(errors),
        duplicates=duplicates,
        stored=bool(len(events)),
        first=int(events.min()) if len(events) else NOT_STORED,
        last=int(events.max()) if len(events) else NOT_STORED,
        errors=[errors[index] for index in sorted(errors)],
    )
    if verdicts and not call.refused:
        states = np.full(prepared.items, CONFLICT, np.uint8)
        states[columns.item] = state
        ids = np.zeros((prepared.items, 16), np.uint8)
        told = state <= DUPLICATE
        ids[columns.item[told]] = call.ids[told]
        outcome.states, outcome.event_ids = states.tobytes(), ids.tobytes()
    return outcome


def _held(call: Many, row: int) -> Stored | None:
    """Return what has the key of *row*: in the register, or earlier in the same batch."""
    if row in call.twin:
        first = call.twin[row]
        return Stored(0, *call.value(first), call.ids[first].tobytes(), 0)
    return call.found.get(row)


def _error_of(index: int, state: int, source: Source, held: Stored | None) -> ItemError:
    event_id: str | UnsetType = UNSET
    value: float | UnsetType = UNSET
    if held is not None:
        event_id = str(UUID(bytes=held.event_id))
        value = float_of(held.mantissa, held.exponent - (_KILO if source.subject == "meter" else 0))
    if state == NO_PLACE:
        name = "location" if source.subject == "sensor" else "customer_id"
        message = f"Missing required field: {name}"
        finding = Finding(f"/{name}", "missing_field", message)
        return ItemError(index=index, code="validation_failed", message=message, errors=[finding])
    if state == NOT_FOUND:
        return ItemError(index=index, code="not_found", message="corrects names no recorded reading")
    code, message = _CONFLICTS[state]
    return ItemError(index=index, code=code, message=message, existing_event_id=event_id, existing_value=value)


_CONFLICTS: Final = {
    CONFLICT: (
        "reading_conflict",
        "Another value is recorded for this time; send corrects and reason to replace it",
    ),
    CORRECTION_CONFLICT: (
        "correction_conflict",
        "corrects names the newest reading of the same natural key; read it again",
    ),
}


def rejection_of(error: ItemError) -> Rejected:
    """Return what a single request raises for *error*."""
    extra: dict[str, object] = {}
    if error.existing_event_id is not UNSET:
        extra = {"existing_event_id": error.existing_event_id, "existing_value": error.existing_value}
    match error.code:
        case "reading_conflict" | "correction_conflict":
            return Conflict(error.code, error.message, extra=extra)
        case "not_found":
            return NotFound(error.code, error.message)
        case _:
            return Invalid(error.code, error.message, findings=error.errors or ())


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(Outcome)


def encode_outcome(outcome: Outcome) -> bytes:
    """Return *outcome* as it is kept."""
    return _ENCODE(outcome)


def decode_outcome(kept: bytes, first_position: int) -> Outcome:
    """Return a kept outcome, with positions."""
    outcome = _DECODE.decode(kept)
    outcome.first_position = first_position
    return outcome


def verdict_of(state: int) -> Verdict:
    """Return the name of a state in the answer."""
    if state in (PENDING, ACCEPTED):
        return "accepted"
    return "duplicate" if state == DUPLICATE else "rejected"
