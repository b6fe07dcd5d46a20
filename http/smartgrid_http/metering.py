"""What operators do to meters: settings, exchanges, resets."""

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Literal
from uuid import UUID

from litestar import post, put
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import UNSET, Meta, Struct, UnsetType

from smartgrid_commands.metering import Decided, configure_meter, decide_on_meter
from smartgrid_domain.deciders.checks import MAX_INTERVAL_S
from smartgrid_domain.deciders.meter import ConfigureMeter, ExchangeMeter, ResetMeter
from smartgrid_domain.errors import Finding
from smartgrid_domain.instants import instant
from smartgrid_domain.maths.quantities import METER_UNITS, convert, decimal_of, float_of, wh_of
from smartgrid_http.answers import Answer, answer
from smartgrid_http.call import call_of, metadata_of
from smartgrid_http.conditions import if_match
from smartgrid_http.describe import describe
from smartgrid_http.findings import TimeText
from smartgrid_http.guard import Req, body_of, decoded, read_body
from smartgrid_http.idempotency import once
from smartgrid_http.meters import MeterAnswer, meter_answer
from smartgrid_http.problems import invalid
from smartgrid_http.ranges import Id, Reason, RegisterName
from smartgrid_http.services import Services, present
from smartgrid_projections.queries.readings import LOG

DEFAULT_REGISTER = "1.8.0"
AHEAD = timedelta(minutes=5)
"""How far the clocks of technicians may be ahead."""

RegisterValue = Annotated[float, Meta(ge=0, le=1e12)]


class MeterSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings to change, rollover in kWh and nominal power in kW: what is absent stays, null clears."""

    customer_id: Id | UnsetType | None = UNSET
    rollover_at: Annotated[float, Meta(gt=0, le=1e12)] | UnsetType | None = UNSET
    nominal: Annotated[float, Meta(gt=0, le=1e9)] | UnsetType | None = UNSET
    expected_interval_s: Annotated[float, Meta(gt=0, le=MAX_INTERVAL_S)] | UnsetType | None = UNSET
    name: Annotated[str, Meta(min_length=1, max_length=100)] | UnsetType | None = UNSET


class MeterExchange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The device behind a meter was replaced; register values in kWh."""

    old_final: RegisterValue
    new_initial: RegisterValue
    at: TimeText
    register: RegisterName = DEFAULT_REGISTER
    reason: Reason


class RegisterReset(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A register restarted from 0."""

    at: TimeText
    register: RegisterName = DEFAULT_REGISTER
    reason: Reason


class DecisionAnswer(Struct, frozen=True, kw_only=True):
    """Where an exchange or reset is."""

    status: Literal["success"] = "success"
    event_id: UUID
    position: str
    duplicate: bool


@put(
    "/api/v1/meters/{meter_id:str}",
    opt=describe("Change a meter", body=MeterSettings, answers={200: MeterAnswer}, problems=(404, 409, 412)),
)
async def put_meter(request: Req, meter_id: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Change settings of a meter; what is absent stays, null clears."""
    call = call_of(request.scope)
    versions = if_match(call)
    body = await body_of(request, MeterSettings)
    store = present(services.store)
    await configure_meter(
        ConfigureMeter(
            meter_id=meter_id,
            customer_id=body.customer_id,
            rollover_at_wh=wh_of(body.rollover_at) if isinstance(body.rollover_at, float) else body.rollover_at,
            nominal_w=w_of(body.nominal) if isinstance(body.nominal, float) else body.nominal,
            expected_interval_s=body.expected_interval_s,
            name=body.name,
        ),
        store,
        sealer=services.sealer,
        metadata=metadata_of(call),
        commit_id=services.ids.uuid(),
        expected_versions=versions,
    )
    return await meter_answer(services, meter_id, await store.head(LOG))


def w_of(kilowatts: float) -> float:
    """
    Return *kilowatts* in W, the decimal shifted, not the float multiplied.

    Example:
        >>> w_of(17.25), w_of(0.1)
        (17250.0, 100.0)
    """
    return float_of(*convert(*decimal_of(kilowatts), METER_UNITS["kWh"]))


@post(
    "/api/v1/meters/{meter_id:str}/exchange",
    opt=describe(
        "Exchange a meter",
        body=MeterExchange,
        answers={201: DecisionAnswer, 200: DecisionAnswer},
        problems=(404, 409, 422),
    ),
)
async def exchange_meter(request: Req, meter_id: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Record that the device behind a meter was replaced."""
    sent = await read_body(request.scope, request.receive)

    async def run() -> Answer:
        body = decoded(request, sent, MeterExchange)
        command = ExchangeMeter(
            meter_id=meter_id,
            register=body.register,
            at=past(body.at, services.clock.now()),
            old_final_wh=wh_of(body.old_final),
            new_initial_wh=wh_of(body.new_initial),
            reason=body.reason,
        )
        return await _decide(request, services, command)

    return await once(services.keys, request.scope, sent, run)


@post(
    "/api/v1/meters/{meter_id:str}/reset",
    opt=describe(
        "Reset a register",
        body=RegisterReset,
        answers={201: DecisionAnswer, 200: DecisionAnswer},
        problems=(404, 409, 422),
    ),
)
async def reset_meter(request: Req, meter_id: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Record that a register restarted from 0."""
    sent = await read_body(request.scope, request.receive)

    async def run() -> Answer:
        body = decoded(request, sent, RegisterReset)
        at = past(body.at, services.clock.now())
        command = ResetMeter(meter_id=meter_id, register=body.register, at=at, reason=body.reason)
        return await _decide(request, services, command)

    return await once(services.keys, request.scope, sent, run)


def past(text: str, now: datetime) -> datetime:
    """
    Return the checked time *text*.

    Raises:
        Problem: 400, it lies ahead.
    """
    at = instant(text)
    if at > now + AHEAD:
        raise invalid([Finding("/at", "timestamp_in_future", "Give a time that has come, at most 5 minutes ahead")])
    return at


async def _decide(request: Req, services: Services, command: ExchangeMeter | ResetMeter) -> Answer:
    metadata, commit_id = metadata_of(call_of(request.scope)), services.ids.uuid()
    decided = await decide_on_meter(command, present(services.store), metadata=metadata, commit_id=commit_id)
    return _decision_answer(decided)


def _decision_answer(decided: Decided) -> Answer:
    position = f"{LOG}@{decided.position}"
    payload = DecisionAnswer(event_id=decided.event_id, position=position, duplicate=decided.duplicate)
    status = HTTPStatus.OK if decided.duplicate else HTTPStatus.CREATED
    return answer(payload, status=status, position=position)


handlers = [put_meter, exchange_meter, reset_meter]
