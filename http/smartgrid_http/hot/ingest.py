"""``POST /api/v1/ingest/…``: plain ASGI, because most of what comes here comes all the time."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from smartgrid_commands.idempotency import IdempotencyKeys, Kept
from smartgrid_commands.ingestion import (
    LOG,
    Ingestion,
    ItemError,
    Outcome,
    Prepared,
    decode_outcome,
    rejection_of,
    verdict_of,
)
from smartgrid_commands.reading_calls import Lease
from smartgrid_commands.reading_items import Sender
from smartgrid_commands.reading_rows import Owner
from smartgrid_domain.readings import AHEAD_US, Item, MeterReading, SensorReading
from smartgrid_http.answers import Answer, answer
from smartgrid_http.call import Call, call_of, principal_of
from smartgrid_http.describe import Described
from smartgrid_http.guard import Receive, read_body
from smartgrid_http.hot.bodies import Clocked, from_csv, from_json, from_ndjson, meter_body, sensor_body
from smartgrid_http.hot.columns import from_columns
from smartgrid_http.hot.consumption import Consumption
from smartgrid_http.idempotency import claimed, held
from smartgrid_http.params import NoParameters, parse_query
from smartgrid_http.policy import COLUMNS, CSV, NDJSON
from smartgrid_http.principal import Principal
from smartgrid_http.problems import Problem, problem_of
from smartgrid_http.routing import HotHandler
from smartgrid_schemas.registry import METER_READINGS, SENSOR_DATA

Scope = dict[str, Any]

MOST_ERRORS: Final = 1_000
"""Findings of an atomic batch that are told."""


class ReadingAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What a reading is answered with.

    Attributes:
        event_id: Id of the reading.
        kafka_topic: Topic that its event goes to.
        position: Its place in the log.
        duplicate: Whether it was stored before.
        recorded_at: When it was stored.
        consumption_wh: Of a meter: consumed since the reading before that counts [Wh]; null when unknown or held.
        register_state: Of a meter: what the register did.
    """

    status: str
    event_id: UUID
    kafka_topic: str
    position: str
    duplicate: bool
    recorded_at: datetime
    consumption_wh: int | UnsetType | None = UNSET
    register_state: str | UnsetType = UNSET


class Verdict(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one item."""

    index: int
    verdict: str
    event_id: str | UnsetType = UNSET
    code: str | UnsetType = UNSET


class BatchAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a batch."""

    status: str
    accepted: int
    duplicates: int
    rejected: int
    first_position: str | None
    last_position: str | None
    errors: list[ItemError]
    verdicts: list[Verdict] | UnsetType = UNSET


class BatchQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of a batch."""

    mode: Literal["partial", "atomic"] = "partial"
    verdicts: Literal["errors", "all"] = "errors"


_READERS: Final = {
    b"application/x-ndjson": from_ndjson,
    b"text/csv": from_csv,
    COLUMNS.encode(): from_columns,
}
assert {NDJSON.encode(), CSV.encode()} <= set(_READERS)  # noqa: S101  # the same names as in the policy


def sender_of(principal: Principal, call: Call) -> Sender:
    """Return *principal* as a sender of readings."""
    return Sender(
        actor=principal.actor,
        correlation_id=call.request_id,
        operator=principal.at_least("operator"),
        may_write=None if principal.kind == "user" else lambda owner: covers(principal, owner),
    )


def covers(principal: Principal, owner: Owner) -> bool:
    """
    Return whether the scope of a device key holds *owner*.

    Example:
        >>> covers(Principal(kind="key", id="k", role="device", sensors=("b7-*",)), ("sensor", "b7-1"))
        True
    """
    subject, key = owner
    for pattern in principal.sensors if subject == "sensor" else principal.meters:
        if key == pattern or (pattern.endswith("*") and key.startswith(pattern[:-1])):
            return True
    return False


class Ingest:
    """
    The handlers of the hot paths.

    Args:
        ingestion: Records readings.
        keys: Keeps answers by key.
        consumption: Tells what a meter's reading counted.
    """

    def __init__(self, ingestion: Ingestion, keys: IdempotencyKeys | None, consumption: Consumption | None) -> None:
        self._ingestion = ingestion
        self._keys = keys
        self._consumption = consumption

    async def sensor(self, scope: Scope, receive: Receive) -> Answer:
        """Record one reading of a sensor."""
        return await self._one(scope, receive, sensor_body)

    async def meter(self, scope: Scope, receive: Receive) -> Answer:
        """Record one reading of a meter."""
        return await self._one(scope, receive, meter_body)

    def _when(self, call: Call) -> Clocked:
        now_us = self._ingestion.now_us()
        return Clocked(now_us, now_us + AHEAD_US, call.limits.json(), call.limits.batch_items)

    async def _one(self, scope: Scope, receive: Receive, read: Any) -> Answer:  # noqa: ANN401  # either decoder
        if scope["query_string"]:
            parse_query(scope["query_string"], NoParameters)
        body = await read_body(scope, receive)
        call = call_of(scope)
        claim = None if call.idempotency_key is None else await claimed(self._keys, scope, body)
        if isinstance(claim, Kept):
            item = read(body, self._when(call))
            outcome = decode_outcome(claim.answer, claim.first_position)
            return await self._receipt(item, outcome, replayed=True)
        sender = sender_of(principal_of(scope), call)
        if claim is None:
            item = read(body, self._when(call))
            return await self._receipt(item, await self._ingestion.record_one(item, sender))
        async with held(self._keys, claim):
            item = read(body, self._when(call))
            outcome = await self._ingestion.record_one(item, sender, claim)
        return await self._receipt(item, outcome)

    async def _receipt(self, item: Item, outcome: Outcome, *, replayed: bool = False) -> Answer:
        headers = {"Idempotency-Replayed": "true"} if replayed else None
        if outcome.errors:
            raise _problem(outcome.errors[0], replayed=replayed)
        duplicate = outcome.duplicates == 1
        position = outcome.repeats if duplicate else outcome.first_position + outcome.first
        recorded_at = outcome.recorded_at or await self._ingestion.recorded_at(position)
        of_meter = isinstance(item, MeterReading)
        consumption_wh: int | UnsetType | None = UNSET
        state: str | UnsetType = UNSET
        event_id = UUID(bytes=outcome.event_ids)
        if isinstance(item, MeterReading) and self._consumption is not None:
            consumption_wh, state = await self._consumption.of(item, outcome.measured_at_us, position)
        token = f"{LOG}@{position}"
        told = ReadingAnswer(
            status="success",
            event_id=event_id,
            kafka_topic=METER_READINGS if of_meter else SENSOR_DATA,
            position=token,
            duplicate=duplicate,
            recorded_at=recorded_at,
            consumption_wh=consumption_wh,
            register_state=state,
        )
        return answer(told, status=200 if duplicate else 201, position=token, headers=headers)

    async def batch(self, scope: Scope, receive: Receive) -> Answer:
        """Record many readings."""
        query = parse_query(scope["query_string"], BatchQuery)
        body = await read_body(scope, receive)
        call = call_of(scope)
        claim = None if call.idempotency_key is None else await claimed(self._keys, scope, body)
        if isinstance(claim, Kept):
            outcome = decode_outcome(claim.answer, claim.first_position)
            return _batch_answer(outcome, query, replayed=True)
        sender = sender_of(principal_of(scope), call)
        if claim is None:
            outcome = await self._record(body, call, query, sender, None)
        else:
            async with held(self._keys, claim):
                outcome = await self._record(body, call, query, sender, claim)
        return _batch_answer(outcome, query)

    async def _record(self, body: bytes, call: Call, query: BatchQuery, sender: Sender, lease: Lease | None) -> Outcome:
        media_type = (call.headers.get(b"content-type") or b"").partition(b";")[0].strip().lower()
        read = _READERS.get(media_type, from_json)
        prepared: Prepared = read(body, self._when(call))
        return await self._ingestion.record_many(
            prepared, sender, atomic=query.mode == "atomic", verdicts=query.verdicts == "all", lease=lease
        )


def _problem(error: ItemError, *, replayed: bool) -> Exception:
    rejection = rejection_of(error)
    problem = problem_of(rejection) if replayed else None
    if problem is None:
        return rejection
    problem.headers["Idempotency-Replayed"] = "true"
    return problem


def _batch_answer(outcome: Outcome, query: BatchQuery, *, replayed: bool = False) -> Answer:
    headers = {"Idempotency-Replayed": "true"} if replayed else None
    if query.mode == "atomic" and outcome.errors:
        counts = {"accepted": outcome.accepted, "duplicates": outcome.duplicates, "rejected": outcome.rejected}
        raise Problem(
            400,
            "batch_rejected",
            f"{outcome.rejected} of {outcome.items} items were rejected, so nothing was stored",
            extra={**counts, "errors": outcome.errors[:MOST_ERRORS]},
            headers=headers,
        )
    positions = outcome.positions
    first, last = (f"{LOG}@{positions[0]}", f"{LOG}@{positions[1]}") if positions else (None, None)
    told = BatchAnswer(
        status="partial" if outcome.rejected else "success",
        accepted=outcome.accepted,
        duplicates=outcome.duplicates,
        rejected=outcome.rejected,
        first_position=first,
        last_position=last,
        errors=outcome.errors,
        verdicts=_verdicts(outcome) if query.verdicts == "all" else UNSET,
    )
    return answer(told, position=last, headers=headers)


def _verdicts(outcome: Outcome) -> list[Verdict]:
    codes = {error.index: error.code for error in outcome.errors}
    ids = outcome.event_ids
    result: list[Verdict] = []
    for index, state in enumerate(outcome.states):
        if index in codes:
            result.append(Verdict(index=index, verdict="rejected", code=codes[index]))
        else:
            event_id = str(UUID(bytes=ids[16 * index : 16 * index + 16]))
            result.append(Verdict(index=index, verdict=verdict_of(state), event_id=event_id))
    return result


def handlers(ingest: Ingest) -> Mapping[tuple[str, str], HotHandler]:
    """Return the plain handlers by method and path."""
    return {
        ("POST", "/api/v1/ingest/sensor"): ingest.sensor,
        ("POST", "/api/v1/ingest/meter"): ingest.meter,
        ("POST", "/api/v1/ingest/batch"): ingest.batch,
    }


class BatchBody(Struct, frozen=True, kw_only=True):
    """Readings of sensors and of meters; an item with ``meter_id`` is a meter's."""

    readings: Annotated[list[Any], Meta(min_length=1, max_length=10_000)]


DESCRIPTIONS: Final = {
    ("POST", "/api/v1/ingest/sensor"): Described(
        summary="Record a reading of a sensor",
        body=SensorReading,
        answers={200: ReadingAnswer, 201: ReadingAnswer},
        problems=(404, 409, 422),
    ),
    ("POST", "/api/v1/ingest/meter"): Described(
        summary="Record a reading of a meter",
        body=MeterReading,
        answers={200: ReadingAnswer, 201: ReadingAnswer},
        problems=(404, 409, 422),
    ),
    ("POST", "/api/v1/ingest/batch"): Described(
        summary="Record many readings",
        body=BatchBody,
        query=BatchQuery,
        answers={200: BatchAnswer},
        problems=(409, 422),
    ),
}
"""What the handlers are, for the OpenAPI document."""
