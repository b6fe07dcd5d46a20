from datetime import UTC, datetime
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from smartgrid_domain.deciders.meter import (
    METER,
    ConfigureMeter,
    ExchangeMeter,
    Meter,
    MeterCommand,
    MeterEvent,
    ResetMeter,
    RetractDecision,
)
from smartgrid_domain.errors import Conflict, Invalid, NotFound, Rejected
from smartgrid_schemas.event import Sealed
from smartgrid_schemas.metering import (
    MeterConfigured,
    MeterExchanged,
    MeterReadingRetracted,
    MeterRegistered,
    MeterReset,
)

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
SEEN = MeterRegistered(meter_id="m1", customer_id="c1")
EXCHANGE = ExchangeMeter(
    meter_id="m1", register="1.8.0", at=NOON, old_final_wh=1_300_500, new_initial_wh=0, reason="worn out"
)
EXCHANGED = MeterExchanged(
    meter_id="m1", register="1.8.0", at=NOON, old_final_wh=1_300_500, new_initial_wh=0, reason="worn out"
)
RESET = ResetMeter(meter_id="m1", register="1.8.0", at=NOON, reason="power failure")
RESTARTED = MeterReset(meter_id="m1", register="1.8.0", at=NOON, reason="power failure")
TAKE_BACK = RetractDecision(
    event_id="e1", kind="exchange", meter_id="m1", register="1.8.0", at=NOON, reason="wrong meter"
)
TAKEN_BACK = MeterReadingRetracted(
    event_id="e1", kind="exchange", meter_id="m1", register="1.8.0", measured_at=NOON, reason="wrong meter"
)


def decided(*history: MeterEvent, when: MeterCommand) -> tuple[MeterEvent, ...]:
    return METER.decide(reduce(METER.evolve, history, METER.initial()), when)


@pytest.mark.parametrize("command", [ConfigureMeter(meter_id="m1"), EXCHANGE, RESET, TAKE_BACK])
def test_a_meter_that_was_never_seen_is_not_found(command: MeterCommand) -> None:
    with pytest.raises(NotFound) as refused:
        decided(when=command)

    assert refused.value.code == "not_found"


def test_an_exchange_is_recorded() -> None:
    assert decided(SEEN, when=EXCHANGE) == (EXCHANGED,)


def test_a_reset_is_recorded() -> None:
    assert decided(SEEN, when=RESET) == (RESTARTED,)


def test_the_same_exchange_again_is_no_event_however_its_reason_is_worded() -> None:
    assert decided(SEEN, EXCHANGED, when=replace(EXCHANGE, reason="broken")) == ()


def test_an_exchange_with_other_values_is_a_conflict() -> None:
    with pytest.raises(Conflict) as refused:
        decided(SEEN, EXCHANGED, when=replace(EXCHANGE, old_final_wh=1))

    assert refused.value.code == "meter_conflict"


def test_a_reset_at_the_time_of_an_exchange_is_a_conflict() -> None:
    with pytest.raises(Conflict) as refused:
        decided(SEEN, EXCHANGED, when=RESET)

    assert refused.value.code == "meter_conflict"


def test_another_register_may_be_exchanged_at_the_same_time() -> None:
    assert len(decided(SEEN, EXCHANGED, when=replace(EXCHANGE, register="2.8.0"))) == 1


def test_a_retraction_frees_the_time_of_the_exchange() -> None:
    assert decided(SEEN, EXCHANGED, when=TAKE_BACK) == (TAKEN_BACK,)
    assert decided(SEEN, EXCHANGED, TAKEN_BACK, when=TAKE_BACK) == ()
    assert decided(SEEN, EXCHANGED, TAKEN_BACK, when=RESET) == (RESTARTED,)


def test_a_decision_that_was_not_recorded_cannot_be_retracted() -> None:
    with pytest.raises(NotFound):
        decided(SEEN, when=TAKE_BACK)


def test_settings_that_are_not_named_stay_and_null_clears() -> None:
    events = decided(SEEN, when=ConfigureMeter(meter_id="m1", rollover_at_wh=10**9, nominal_w=11_000.0))
    cleared = decided(SEEN, *events, when=ConfigureMeter(meter_id="m1", customer_id=None, nominal_w=None))

    assert events == (MeterConfigured(meter_id="m1", customer_id="c1", rollover_at_wh=10**9, nominal_w=11_000.0),)
    assert cleared == (MeterConfigured(meter_id="m1", rollover_at_wh=10**9),)


def test_an_erased_customer_is_written_as_nobody() -> None:
    erased = MeterRegistered(meter_id="m1", customer_id=Sealed("meter:m1", b"n", b"d"))

    events = decided(erased, when=ConfigureMeter(meter_id="m1", nominal_w=11_000.0))

    assert events == (MeterConfigured(meter_id="m1", nominal_w=11_000.0),)


@pytest.mark.parametrize(
    ("wish", "pointer", "code"),
    [
        ({"customer_id": "no blanks"}, "/customer_id", "bad_format"),
        ({"customer_id": "c1\n"}, "/customer_id", "bad_format"),
        ({"customer_id": ""}, "/customer_id", "bad_format"),
        ({"rollover_at_wh": 0}, "/rollover_at", "out_of_range"),
        ({"rollover_at_wh": 10**15 + 1}, "/rollover_at", "out_of_range"),
        ({"nominal_w": float("nan")}, "/nominal", "not_finite"),
        ({"expected_interval_s": 0.0}, "/expected_interval_s", "out_of_range"),
        ({"name": "n" * 101}, "/name", "too_long"),
    ],
)
def test_a_setting_out_of_its_range_is_named(wish: dict[str, Any], pointer: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        decided(SEEN, when=ConfigureMeter(meter_id="m1", **wish))

    assert [(f.pointer, f.code) for f in refused.value.findings] == [(pointer, code)]


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"old_final_wh": -1}, "/old_final", "out_of_range"),
        ({"new_initial_wh": 10**15 + 1}, "/new_initial", "out_of_range"),
        ({"register": ""}, "/register", "out_of_range"),
        ({"register": "r" * 33}, "/register", "too_long"),
        ({"reason": ""}, "/reason", "out_of_range"),
        ({"at": datetime(1969, 12, 31, tzinfo=UTC)}, "/at", "timestamp_out_of_range"),
        ({"at": datetime(2026, 1, 1)}, "/at", "timestamp_without_offset"),  # noqa: DTZ001  # that is the point
    ],
)
def test_an_exchange_out_of_range_is_named(change: dict[str, Any], pointer: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        decided(SEEN, when=replace(EXCHANGE, **change))

    assert [(f.pointer, f.code) for f in refused.value.findings] == [(pointer, code)]


ids = st.just("m1")
times = st.sampled_from([NOON, NOON.replace(hour=13)]) | st.datetimes(timezones=st.just(UTC) | st.none())
registers = st.sampled_from(["1.8.0", "2.8.0", "", "r" * 33])
reasons = st.sampled_from(["because", "", "r" * 501])
energies = st.sampled_from([0, 1_000, -1, 10**16])
commands = st.one_of(
    st.builds(
        ConfigureMeter,
        meter_id=ids,
        customer_id=st.just(UNSET) | st.none() | st.sampled_from(["c1", "c2"]) | st.text(),
        rollover_at_wh=st.just(UNSET) | st.none() | st.integers(),
        nominal_w=st.just(UNSET) | st.none() | st.floats(),
        expected_interval_s=st.just(UNSET) | st.none() | st.floats(),
        name=st.just(UNSET) | st.none() | st.text(),
    ),
    st.builds(
        ExchangeMeter,
        meter_id=ids,
        register=registers,
        at=times,
        old_final_wh=energies,
        new_initial_wh=energies,
        reason=reasons,
    ),
    st.builds(ResetMeter, meter_id=ids, register=registers, at=times, reason=reasons),
    st.builds(
        RetractDecision,
        event_id=st.sampled_from(["e1", "e2"]),
        kind=st.sampled_from(["exchange", "reset"]),
        meter_id=ids,
        register=registers,
        at=times,
        reason=reasons,
    ),
)


@given(seen=st.booleans(), wishes=st.lists(commands, max_size=12))
def test_any_command_twice_equals_once_and_nothing_but_rejected_comes_out(
    seen: bool,  # noqa: FBT001  # given by name
    wishes: list[MeterCommand],
) -> None:
    state: Meter = reduce(METER.evolve, [SEEN] if seen else [], METER.initial())
    for command in wishes:
        try:
            events = METER.decide(state, command)
        except Rejected:
            continue
        state = reduce(METER.evolve, events, state)

        assert METER.decide(state, command) == ()
