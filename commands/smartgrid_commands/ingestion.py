"""Recording readings: who may, and what becomes of each."""

from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol, runtime_checkable

import numpy as np

from smartgrid_commands.ports import Clock
from smartgrid_commands.reading_calls import Call, Lease, Many, One
from smartgrid_commands.reading_items import Sender, one_of
from smartgrid_commands.reading_outcomes import (
    ItemError,
    Outcome,
    Prepared,
    Verdict,
    decode_outcome,
    encode_outcome,
    outcome_of,
    outcome_of_one,
    rejection_of,
    verdict_of,
)
from smartgrid_commands.reading_rows import Rows, joined
from smartgrid_domain.errors import Forbidden, Invalid
from smartgrid_domain.readings import AHEAD_US, Item

__all__ = [
    "LOG",
    "Ingestion",
    "ItemError",
    "Outcome",
    "Prepared",
    "ReadingStore",
    "Sender",
    "decode_outcome",
    "rejection_of",
    "verdict_of",
]

LOG: Final = "telemetry"
FOREIGN: Final = "This key may not write readings of that sensor or meter"
NO_OPERATOR: Final = "Only an operator may correct readings"
_MICROS: Final = 1_000_000


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
        call = one_of(item, now_us, now_us + AHEAD_US)
        if not isinstance(call, One):
            self._tell("rejected", 1)
            raise Invalid("validation_failed", call[0].message, findings=call)
        if sender.may_write is not None and not sender.may_write(call.source.owner):
            self._tell("rejected", 1)
            raise Forbidden("sensor_out_of_scope", FOREIGN)
        if call.corrects is not None and not sender.operator:
            self._tell("rejected", 1)
            raise Forbidden("forbidden", NO_OPERATOR)
        call.actor, call.correlation_id = sender.actor, sender.correlation_id
        if lease is not None:
            call.lease, call.answer = lease, lambda: encode_outcome(outcome_of_one(call))
        await self._store.record(call)
        outcome = outcome_of_one(call)
        self._finish(outcome, call)
        return outcome

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
        call = Many(
            columns=joined([_without(rows, prepared.errors) for rows in prepared.parts]),
            atomic=atomic,
            doomed=atomic and bool(prepared.errors),
            actor=sender.actor,
            correlation_id=sender.correlation_id,
        )
        if lease is not None:
            call.lease = lease
            call.answer = lambda: encode_outcome(outcome_of(call, prepared, verdicts=verdicts))
        if call.rows or lease is not None:
            await self._store.record(call)
        outcome = outcome_of(call, prepared, verdicts=verdicts)
        self._finish(outcome, call)
        return outcome

    def _finish(self, outcome: Outcome, call: Call) -> None:
        if outcome.stored:
            outcome.first_position, outcome.recorded_at = call.first_position, call.recorded_at
        self._tell("accepted", outcome.accepted if outcome.stored else 0)
        self._tell("duplicate", outcome.duplicates)
        self._tell("rejected", outcome.rejected)

    async def recorded_at(self, position: int) -> datetime:
        """Return when the event at *position* was recorded."""
        return await self._store.recorded_at(position)

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
                    message=FOREIGN,
                )
    if not sender.operator:
        for row in rows.corrects:
            index = int(rows.item[row])
            if index not in errors:
                errors[index] = ItemError(index=index, code="forbidden", message=NO_OPERATOR)


def _without(rows: Rows, errors: dict[int, ItemError]) -> Rows:
    if not errors:
        return rows
    bad = np.isin(rows.item, np.fromiter(errors, np.int64, len(errors)))
    return rows.picked(np.flatnonzero(~bad)) if bad.any() else rows
