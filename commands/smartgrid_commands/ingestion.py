"""Recording readings: who may, what becomes of each, and what is answered."""

from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal, Protocol, runtime_checkable
from uuid import UUID

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType, field

from smartgrid_commands.ports import Clock
from smartgrid_commands.reading_flush import (
    ACCEPTED,
    CONFLICT,
    CORRECTION_CONFLICT,
    DUPLICATE,
    NO_PLACE,
    NOT_FOUND,
    PENDING,
    Call,
    Lease,
)
from smartgrid_commands.reading_rows import Bad, Owner, Rows, Subject, joined, rows_of_one
from smartgrid_domain.errors import Conflict, Finding, Forbidden, Invalid, NotFound
from smartgrid_domain.maths.quantities import float_of
from smartgrid_domain.readings import AHEAD_US, Item

LOG: Final = "telemetry"
MOST_ERRORS: Final = 1_000
_KILO: Final = 3
_MICROS: Final = 1_000_000

Verdict = Literal["accepted", "duplicate", "rejected"]


@runtime_checkable
class ReadingStore(Protocol):
    """
    The log and the register of readings, written together.

    Guarantees:
        * A natural key has one first reading, whoever else writes at the same time.
        * A call is all or nothing where it is atomic, and else each of its rows for itself.
        * What is accepted is on disk, in the log and in the register, in one commit, with the answer of its lease.
    """

    async def record(self, call: Call) -> None:
        """
        Store what is new in *call* and fill in what became of each row.

        Raises:
            LeaseLost: Somebody else answers this request; nothing was stored.
            StoreUnavailable: Nothing was stored.
            OutcomeUnknown: Repeat it with the same key.
        """
        ...

    async def recorded_at(self, position: int) -> datetime:
        """Return when the event at *position* was recorded."""
        ...


class Sender(Struct, frozen=True, kw_only=True):
    """
    Who sends readings.

    Attributes:
        actor: Name in the metadata of events.
        correlation_id: Id of the request.
        operator: Whether it may correct readings.
        may_write: Whether a sensor or meter is its own; None for all.
    """

    actor: str
    correlation_id: str
    operator: bool
    may_write: Callable[[Owner], bool] | None = None


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


class Receipt(Struct, frozen=True, kw_only=True):
    """
    What a single reading is answered with.

    Attributes:
        subject: ``sensor`` or ``meter``.
        event_id: Id of the reading.
        position: Place of its event in the log.
        recorded_at: When it was stored.
        duplicate: Whether it was stored before.
    """

    subject: Subject
    event_id: UUID
    position: int
    recorded_at: datetime
    duplicate: bool


class Ingestion:
    """
    Records readings.

    Args:
        store: Where they go.
        clock: Time.
        count: Told of each verdict and how many readings got it, for metrics.
    """

    def __init__(
        self, store: ReadingStore, clock: Clock, *, count: Callable[[Verdict, int], None] | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._count = count

    def now_us(self) -> int:
        """Return the time of receipt [µs since 1970]."""
        now = self._clock.now()
        return int(now.timestamp()) * _MICROS + now.microsecond

    def latest_us(self) -> int:
        """Return the latest time that is not ahead of ours [µs since 1970]."""
        return self.now_us() + AHEAD_US

    async def record_one(self, item: Item, sender: Sender, lease: Lease | None = None) -> Outcome:
        """
        Record one reading.

        Raises:
            Rejected: Before anything was looked up: invalid, out of scope, or a correction by who may not.
            LeaseLost: Somebody else answers this request.
            StoreUnavailable: Nothing was stored.
            OutcomeUnknown: Repeat it with the same key.
        """
        now_us = self.now_us()
        rows = rows_of_one(item, now_us, now_us + AHEAD_US)
        if not isinstance(rows, Rows):
            self._tell("rejected", 1)
            raise Invalid("validation_failed", rows[0].message, findings=rows)
        if sender.may_write is not None and not sender.may_write(rows.sources[0].owner):
            self._tell("rejected", 1)
            raise Forbidden("sensor_out_of_scope", "This key may not write readings of that sensor or meter")
        if rows.corrects and not sender.operator:
            self._tell("rejected", 1)
            raise Forbidden("forbidden", "Only an operator may correct readings")
        return await self._record(Prepared(items=1), rows, sender, atomic=False, verdicts=True, lease=lease)

    async def record_many(
        self, prepared: Prepared, sender: Sender, *, atomic: bool, verdicts: bool, lease: Lease | None = None
    ) -> Outcome:
        """
        Record the items of a batch.

        Args:
            prepared: The items.
            sender: Who sends them.
            atomic: Whether one rejected item rejects all.
            verdicts: Whether the outcome tells state and id of each item.
            lease: The right to answer the request.

        Raises:
            LeaseLost: Somebody else answers this request.
            StoreUnavailable: Nothing was stored.
            OutcomeUnknown: Repeat it with the same key.
        """
        for rows in prepared.parts:
            _check_sender(rows, sender, prepared.errors)
        parts = [_without(rows, prepared.errors) for rows in prepared.parts]
        rows = joined(parts)
        return await self._record(prepared, rows, sender, atomic=atomic, verdicts=verdicts, lease=lease)

    async def recorded_at(self, position: int) -> datetime:
        """Return when the event at *position* was recorded."""
        return await self._store.recorded_at(position)

    async def _record(  # noqa: PLR0913  # those of the caller
        self, prepared: Prepared, rows: Rows, sender: Sender, *, atomic: bool, verdicts: bool, lease: Lease | None
    ) -> Outcome:
        call = Call(
            rows=rows,
            atomic=atomic,
            doomed=atomic and bool(prepared.errors),
            actor=sender.actor,
            correlation_id=sender.correlation_id,
            lease=lease,
            answer=None
            if lease is None
            else lambda call: encode_outcome(outcome_of(call, prepared, verdicts=verdicts)),
        )
        if len(rows) or lease is not None:
            await self._store.record(call)
        outcome = outcome_of(call, prepared, verdicts=verdicts)
        if outcome.stored:
            outcome.first_position, outcome.recorded_at = call.first_position, call.recorded_at
        self._tell("accepted", outcome.accepted if outcome.stored else 0)
        self._tell("duplicate", outcome.duplicates)
        self._tell("rejected", outcome.rejected)
        return outcome

    def _tell(self, verdict: Verdict, number: int) -> None:
        if self._count is not None and number:
            self._count(verdict, number)


def _check_sender(rows: Rows, sender: Sender, errors: dict[int, ItemError]) -> None:
    if sender.may_write is not None:
        foreign = np.array([not sender.may_write(source.owner) for source in rows.sources], np.bool_)
        if foreign.any():
            for index in rows.item[foreign[rows.source_of]].tolist():
                errors[index] = ItemError(
                    index=index,
                    code="sensor_out_of_scope",
                    message="This key may not write readings of that sensor or meter",
                )
    if not sender.operator:
        for row in rows.corrects:
            index = int(rows.item[row])
            if index not in errors:
                message = "Only an operator may correct readings"
                errors[index] = ItemError(index=index, code="forbidden", message=message)


def _without(rows: Rows, errors: dict[int, ItemError]) -> Rows:
    if not errors:
        return rows
    bad = np.isin(rows.item, np.fromiter(errors, np.int64, len(errors)))
    return rows.picked(np.flatnonzero(~bad)) if bad.any() else rows


def outcome_of(call: Call, prepared: Prepared, *, verdicts: bool) -> Outcome:
    """Return what became of *call*, positions relative to its commit."""
    rows, state = call.rows, call.state
    errors = dict(prepared.errors)
    refused = call.refused
    for row in np.flatnonzero(state > DUPLICATE).tolist():
        error = _error_of(call, row)
        errors[error.index] = error
    duplicates = int((state == DUPLICATE).sum())
    held = call.event[state == ACCEPTED]
    outcome = Outcome(
        items=prepared.items,
        accepted=prepared.items - duplicates - len(errors),
        duplicates=duplicates,
        stored=bool(len(held)),
        first=int(held.min()) if len(held) else -1,
        last=int(held.max()) if len(held) else -1,
        errors=[errors[index] for index in sorted(errors)],
    )
    if verdicts and not refused:
        states = np.full(prepared.items, CONFLICT, np.uint8)
        states[rows.item] = state
        ids = np.zeros((prepared.items, 16), np.uint8)
        ids[rows.item] = _told_ids(call)
        outcome.states, outcome.event_ids = states.tobytes(), ids.tobytes()
    if prepared.items == 1 and len(rows):
        outcome.measured_at_us = int(rows.measured_at[0])
        outcome.repeats = call.found[0].position if duplicates else 0
    return outcome


def _told_ids(call: Call) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    ids = call.ids.copy()
    ids[call.state > DUPLICATE] = 0
    return ids


def _error_of(call: Call, row: int) -> ItemError:
    rows, state = call.rows, int(call.state[row])
    index = int(rows.item[row])
    source = rows.sources[rows.source_of[row]]
    match state:
        case _ if state == CONFLICT:
            message = "Another value is recorded for this time; send corrects and reason to replace it"
            event_id, value = _existing(call, row)
            return ItemError(
                index=index,
                code="reading_conflict",
                message=message,
                existing_event_id=event_id,
                existing_value=value,
            )
        case _ if state == CORRECTION_CONFLICT:
            message = "corrects names the newest reading of the same natural key; read it again"
            event_id, value = _existing(call, row)
            return ItemError(
                index=index,
                code="correction_conflict",
                message=message,
                existing_event_id=event_id,
                existing_value=value,
            )
        case _ if state == NOT_FOUND:
            return ItemError(index=index, code="not_found", message="corrects names no recorded reading")
        case _ if state == NO_PLACE:
            name = "location" if source.subject == "sensor" else "customer_id"
            message = f"Missing required field: {name}"
            finding = Finding(f"/{name}", "missing_field", message)
            return ItemError(index=index, code="validation_failed", message=message, errors=[finding])
        case _:
            raise AssertionError(state)


def _existing(call: Call, row: int) -> tuple[str | UnsetType, float | UnsetType]:
    """Return id and value of the reading that has the key of *row*."""
    source = call.rows.sources[call.rows.source_of[row]]
    kilo = _KILO if source.subject == "meter" else 0
    stored = call.found.get(row)
    if stored is not None:
        return str(UUID(bytes=stored.event_id)), float_of(stored.mantissa, stored.exponent - kilo)
    if row in call.twin:
        first = call.twin[row]
        value = float_of(int(call.rows.mantissa[first]), int(call.exponent[first]) - kilo)
        return str(UUID(bytes=call.ids[first].tobytes())), value
    return UNSET, UNSET


def rejection_of(error: ItemError) -> Exception:
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
