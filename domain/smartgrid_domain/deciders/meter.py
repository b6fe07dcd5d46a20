"""
A meter, its settings, and what technicians did to it; stream ``meter:{meter_id}``.

A meter is registered by its first reading (``smartgrid_commands.ingestion``), so no command does that here.
"""

import re
from datetime import datetime
from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field
from msgspec.structs import replace

from smartgrid_domain.decider import Decider
from smartgrid_domain.deciders.checks import (
    IDENTIFIER,
    MAX_INTERVAL_S,
    MAX_REASON,
    instant,
    number,
    refuse,
    text,
    unless_unset,
)
from smartgrid_domain.errors import Conflict, Finding, NotFound
from smartgrid_schemas.event import Sealed
from smartgrid_schemas.metering import (
    MeterConfigured,
    MeterExchanged,
    MeterReadingRetracted,
    MeterRegistered,
    MeterReset,
)

MAX_REGISTER_WH = 10**15
MAX_NOMINAL_W = 1e12
MAX_REGISTER_NAME = 32

DecisionKind = Literal["exchange", "reset"]


class ConfigureMeter(Struct, frozen=True, kw_only=True):
    """
    Change settings of a meter: what is unset stays, null clears.

    Attributes:
        meter_id: The meter.
        customer_id: Whose consumption it counts from the recorded time on; the shape of an id.
        rollover_at_wh: The register restarts at 0 when it reaches this [Wh], 1…10¹⁵.
        nominal_w: Power of the connection [W], above 0.
        expected_interval_s: Time between two readings [s], above 0, at most a year.
        name: For people, 1…100 characters.
    """

    meter_id: str
    customer_id: str | UnsetType | None = UNSET
    rollover_at_wh: int | UnsetType | None = UNSET
    nominal_w: float | UnsetType | None = UNSET
    expected_interval_s: float | UnsetType | None = UNSET
    name: str | UnsetType | None = UNSET


class ExchangeMeter(Struct, frozen=True, kw_only=True):
    """
    Record that the device behind a meter id was replaced.

    Attributes:
        meter_id: Our id of the meter; it survives the exchange.
        register: The register.
        at: When the new device began to count.
        old_final_wh: Last register value of the old device [Wh], 0…10¹⁵.
        new_initial_wh: First register value of the new device [Wh], 0…10¹⁵.
        reason: Why, 1…500 characters. A repeat may word it otherwise.
    """

    meter_id: str
    register: str
    at: datetime
    old_final_wh: int
    new_initial_wh: int
    reason: str


class ResetMeter(Struct, frozen=True, kw_only=True):
    """
    Record that a register restarted from 0.

    Attributes:
        meter_id: The meter.
        register: The register.
        at: When it restarted.
        reason: Why, 1…500 characters. A repeat may word it otherwise.
    """

    meter_id: str
    register: str
    at: datetime
    reason: str


class RetractDecision(Struct, frozen=True, kw_only=True):
    """
    Take an exchange or a reset back.

    Attributes:
        event_id: Id of its event.
        kind: Which of both it is.
        meter_id: The meter.
        register: The register.
        at: When it happened.
        reason: Why, 1…500 characters.
    """

    event_id: str
    kind: DecisionKind
    meter_id: str
    register: str
    at: datetime
    reason: str


MeterCommand = ConfigureMeter | ExchangeMeter | ResetMeter | RetractDecision
MeterEvent = MeterRegistered | MeterConfigured | MeterExchanged | MeterReset | MeterReadingRetracted
Decision = MeterExchanged | MeterReset


class Meter(Struct):
    """
    What a decision has to know about a meter.

    Attributes:
        settings: What counts now; null for a meter that was never seen.
        decisions: Exchanges and resets that count, by register and time.
        retracted: Ids of those that no longer count.
    """

    settings: MeterConfigured | None = None
    decisions: dict[tuple[str, datetime], Decision] = field(default_factory=dict[tuple[str, datetime], Decision])
    retracted: set[str] = field(default_factory=set[str])


def evolve(state: Meter, event: MeterEvent) -> Meter:
    """Change *state* by *event*, in place."""
    match event:
        case MeterRegistered():
            state.settings = MeterConfigured(meter_id=event.meter_id, customer_id=readable(event.customer_id))
        case MeterConfigured():
            state.settings = replace(event, customer_id=readable(event.customer_id), name=readable(event.name))
        case MeterExchanged() | MeterReset():
            state.decisions[event.register, event.at] = event
        case MeterReadingRetracted():
            state.decisions.pop((event.register, event.measured_at), None)
            state.retracted.add(event.event_id)
    return state


def readable(value: str | Sealed | None) -> str | None:
    """Return *value*, or null when it was erased: a sealed value cannot be written again under another event."""
    return None if isinstance(value, Sealed) else value


def decide(state: Meter, command: MeterCommand) -> tuple[MeterEvent, ...]:
    """
    Return what *command* leads to.

    Raises:
        NotFound: The meter was never seen, or what is to be retracted does not exist.
        Conflict: ``meter_conflict``, something else is recorded at that time.
        Invalid: A value is out of its range.
    """
    if state.settings is None:
        raise NotFound("not_found", f"No meter {command.meter_id}: it appears with its first reading")
    match command:
        case ConfigureMeter():
            return _configured(state.settings, command)
        case ExchangeMeter():
            refuse(
                [
                    *_circumstances(command.register, command.at, command.reason),
                    _register_value("/old_final", command.old_final_wh),
                    _register_value("/new_initial", command.new_initial_wh),
                ]
            )
            return _once(
                state,
                MeterExchanged(
                    meter_id=command.meter_id,
                    register=command.register,
                    at=command.at,
                    old_final_wh=command.old_final_wh,
                    new_initial_wh=command.new_initial_wh,
                    reason=command.reason,
                ),
            )
        case ResetMeter():
            refuse(_circumstances(command.register, command.at, command.reason))
            return _once(
                state,
                MeterReset(meter_id=command.meter_id, register=command.register, at=command.at, reason=command.reason),
            )
        case RetractDecision():
            return _retracted(state, command)


def _configured(present: MeterConfigured, command: ConfigureMeter) -> tuple[MeterEvent, ...]:
    wanted = replace(
        present,
        customer_id=unless_unset(command.customer_id, readable(present.customer_id)),
        rollover_at_wh=unless_unset(command.rollover_at_wh, present.rollover_at_wh),
        nominal_w=unless_unset(command.nominal_w, present.nominal_w),
        expected_interval_s=unless_unset(command.expected_interval_s, present.expected_interval_s),
        name=unless_unset(command.name, readable(present.name)),
    )
    refuse(
        [
            _customer(readable(wanted.customer_id)),
            number("/rollover_at", wanted.rollover_at_wh, above=0, most=MAX_REGISTER_WH),
            number("/nominal", wanted.nominal_w, above=0, most=MAX_NOMINAL_W),
            number("/expected_interval_s", wanted.expected_interval_s, above=0, most=MAX_INTERVAL_S),
            text("/name", readable(wanted.name), least=1, most=100),
        ]
    )
    return () if wanted == present else (wanted,)


def _circumstances(register: str, at: datetime, reason: str) -> list[Finding | None]:
    return [
        text("/register", register, least=1, most=MAX_REGISTER_NAME),
        instant("/at", at),
        text("/reason", reason, least=1, most=MAX_REASON),
    ]


def _register_value(pointer: str, value_wh: int) -> Finding | None:
    return number(pointer, value_wh, above=-1, most=MAX_REGISTER_WH)


def _customer(customer_id: str | None) -> Finding | None:
    if customer_id is None or re.match(IDENTIFIER, customer_id):
        return None
    return Finding("/customer_id", "bad_format", "Give 1 to 128 of A-Z a-z 0-9 . _ : -, the first a letter or digit")


def _once(state: Meter, event: Decision) -> tuple[MeterEvent, ...]:
    known = state.decisions.get((event.register, event.at))
    if known is None:
        return (event,)
    if replace(known, reason=event.reason) != event:
        raise Conflict(
            "meter_conflict",
            f"Register {event.register} has another exchange or reset at {event.at.isoformat()}; retract that first",
        )
    return ()


def _retracted(state: Meter, command: RetractDecision) -> tuple[MeterEvent, ...]:
    refuse([text("/reason", command.reason, least=1, most=MAX_REASON)])
    if command.event_id in state.retracted:
        return ()
    if (command.register, command.at) not in state.decisions:
        raise NotFound("not_found", f"Nothing to retract under {command.event_id}")
    return (
        MeterReadingRetracted(
            event_id=command.event_id,
            kind=command.kind,
            meter_id=command.meter_id,
            register=command.register,
            measured_at=command.at,
            reason=command.reason,
        ),
    )


METER: Decider[MeterCommand, MeterEvent, Meter] = Decider(
    log="telemetry", subject="meter", initial=Meter, evolve=evolve, decide=decide
)
