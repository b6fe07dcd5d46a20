"""Taking a reading, an exchange or a reset back: it stays in the log and no longer counts."""

from datetime import datetime
from typing import Literal, Protocol, runtime_checkable
from uuid import UUID
from zlib import crc32

from msgspec import Struct

from smartgrid_commands.pipeline import ATTEMPTS, execute
from smartgrid_commands.ports import ANY_VERSION, Effect, EffectRefused, EventStore, StreamWrite
from smartgrid_domain.deciders.checks import MAX_REASON, refuse, text
from smartgrid_domain.deciders.meter import METER, DecisionKind, RetractDecision
from smartgrid_domain.errors import Conflict, NotFound
from smartgrid_schemas.envelope import Metadata, Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.metering import MeterExchanged, MeterReadingRetracted, MeterReset
from smartgrid_schemas.telemetry import ReadingRetracted

LOG = "telemetry"
SHARDS = 16


class RegisteredReading(Struct, frozen=True, kw_only=True):
    """
    A reading of the register.

    Attributes:
        subject: Whose it is.
        subject_id: The sensor or meter.
        measurand: What was measured, or the register.
        phase: Phase; null for none.
        measured_at: When.
        seq: Sequence number; null for none.
        newest: No correction replaced it.
        retracted_at: Position of its retraction; null when it counts.
    """

    subject: Literal["sensor", "meter"]
    subject_id: str
    measurand: str
    phase: str | None
    measured_at: datetime
    seq: int | None
    newest: bool
    retracted_at: int | None


@runtime_checkable
class Facts(Protocol):
    """What ids of readings, exchanges and resets stand for."""

    async def reading(self, event_id: UUID) -> RegisteredReading | None:
        """Return the reading of that id."""
        ...

    async def meter_of_decision(self, event_id: UUID) -> str | None:
        """Return the meter of the exchange or reset of that id."""
        ...


class RetractionFiled(Effect, frozen=True, kw_only=True):
    """
    A reading of the register no longer counts. Refused unless it is the newest of its natural key.

    Attributes:
        event_id: The reading.
        commit_id: The commit of its retraction, which tells the position.
        reason: Why.
    """

    event_id: UUID
    commit_id: UUID
    reason: str

    @property
    def must_match(self) -> bool:
        """Whether touching no row refuses the append."""
        return True


class Retracted(Struct, frozen=True, kw_only=True):
    """
    What became of a retraction.

    Attributes:
        position: Its position, the first one's if it was retracted before.
        duplicate: It was retracted before.
    """

    position: int
    duplicate: bool


async def retract(  # noqa: PLR0913  # each is a separate decision of the caller
    event_id: UUID, reason: str, store: EventStore, facts: Facts, *, metadata: Metadata, commit_id: UUID
) -> Retracted:
    """
    Take the reading, exchange or reset *event_id* back, once.

    Raises:
        NotFound: Nothing has that id.
        Conflict: ``correction_conflict``, a correction replaced it.
        Invalid: The reason is empty or too long.
    """
    refuse([text("/reason", reason, least=1, most=MAX_REASON)])
    for _ in range(ATTEMPTS):
        reading = await facts.reading(event_id)
        if reading is None:
            return await _retract_decision(event_id, reason, store, facts, metadata=metadata, commit_id=commit_id)
        if reading.retracted_at is not None:
            return Retracted(position=reading.retracted_at, duplicate=True)
        if not reading.newest:
            raise Conflict("correction_conflict", f"{event_id} was corrected: retract the newest reading of its key")
        stream, event = _retraction_of(event_id, reading, reason)
        write = StreamWrite(stream=stream, events=[event], expected_version=ANY_VERSION, metadata=metadata)
        filed = RetractionFiled(event_id=event_id, commit_id=commit_id, reason=reason)
        try:
            appended = await store.append(LOG, [write], commit_id=commit_id, effects=[filed])
        except EffectRefused:  # somebody retracted or corrected it meanwhile: look again
            continue
        return Retracted(position=appended.first_position, duplicate=False)
    raise Conflict("version_conflict", f"{event_id} changed {ATTEMPTS} times meanwhile; try again")


def _retraction_of(event_id: UUID, reading: RegisteredReading, reason: str) -> tuple[str, Event]:
    shard = crc32(reading.subject_id.encode()) % SHARDS
    if reading.subject == "sensor":
        return f"readings:{shard}", ReadingRetracted(
            event_id=str(event_id),
            sensor_id=reading.subject_id,
            sensor_type=reading.measurand,
            phase=reading.phase,
            measured_at=reading.measured_at,
            seq=reading.seq,
            reason=reason,
        )
    return f"registers:{shard}", MeterReadingRetracted(
        event_id=str(event_id),
        kind="reading",
        meter_id=reading.subject_id,
        register=reading.measurand,
        measured_at=reading.measured_at,
        seq=reading.seq,
        reason=reason,
    )


async def _retract_decision(  # noqa: PLR0913  # those of the caller
    event_id: UUID, reason: str, store: EventStore, facts: Facts, *, metadata: Metadata, commit_id: UUID
) -> Retracted:
    meter_id = await facts.meter_of_decision(event_id)
    if meter_id is None:
        raise NotFound("not_found", f"Nothing is recorded under {event_id}")
    history = await store.read_stream(METER.log, f"{METER.subject}:{meter_id}")
    command = _command(next(recorded for recorded in history if recorded.event_id == event_id), reason)
    outcome = await execute(store, METER, meter_id, command, metadata=metadata, commit_id=commit_id)
    if outcome.appended is not None:
        return Retracted(position=outcome.appended.first_position, duplicate=False)
    before = next(
        recorded
        for recorded in outcome.history
        if isinstance(recorded.event, MeterReadingRetracted) and recorded.event.event_id == str(event_id)
    )
    return Retracted(position=before.position, duplicate=True)


def _command(decision: Recorded[Event], reason: str) -> RetractDecision:
    event = decision.event
    if not isinstance(event, MeterExchanged | MeterReset):
        raise TypeError(f"{decision.event_id} is filed as a decision on a meter")
    kind: DecisionKind = "exchange" if isinstance(event, MeterExchanged) else "reset"
    return RetractDecision(
        event_id=str(decision.event_id),
        kind=kind,
        meter_id=event.meter_id,
        register=event.register,
        at=event.at,
        reason=reason,
    )
