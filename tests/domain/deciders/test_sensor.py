from functools import reduce
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from smartgrid_domain.deciders.sensor import SENSOR, ConfigureSensor, Sensor, SensorEvent
from smartgrid_domain.errors import Invalid, NotFound, Rejected
from smartgrid_schemas.telemetry import Location, SensorConfigured, SensorRegistered

TIRANA = Location(lat=41.3275, lon=19.8187)
SEEN = SensorRegistered(sensor_id="s1", location=TIRANA)


def decided(*history: SensorEvent, when: ConfigureSensor) -> tuple[SensorEvent, ...]:
    return SENSOR.decide(reduce(SENSOR.evolve, history, SENSOR.initial()), when)


def test_a_sensor_that_was_never_seen_cannot_be_configured() -> None:
    with pytest.raises(NotFound) as refused:
        decided(when=ConfigureSensor(sensor_id="s1", nominal=230.0))

    assert refused.value.code == "not_found"


def test_a_setting_that_is_not_named_stays() -> None:
    events = decided(SEEN, when=ConfigureSensor(sensor_id="s1", nominal=230.0))

    assert events == (SensorConfigured(sensor_id="s1", location=TIRANA, nominal=230.0),)


def test_null_clears_a_setting() -> None:
    named = SensorConfigured(sensor_id="s1", location=TIRANA, name="Bay 7", feeder="F1")

    events = decided(SEEN, named, when=ConfigureSensor(sensor_id="s1", location=None, name=None))

    assert events == (SensorConfigured(sensor_id="s1", feeder="F1"),)


def test_settings_that_are_there_already_are_no_event() -> None:
    assert decided(SEEN, when=ConfigureSensor(sensor_id="s1", location=TIRANA, nominal=None)) == ()


@pytest.mark.parametrize(
    ("wish", "pointer", "code"),
    [
        ({"nominal": nan}, "/nominal", "not_finite"),
        ({"nominal": inf}, "/nominal", "not_finite"),
        ({"nominal": 0.0}, "/nominal", "out_of_range"),
        ({"expected_interval_s": -1.0}, "/expected_interval_s", "out_of_range"),
        ({"expected_interval_s": 4e7}, "/expected_interval_s", "out_of_range"),
        ({"name": ""}, "/name", "out_of_range"),
        ({"name": "n" * 101}, "/name", "too_long"),
        ({"feeder": "f" * 101}, "/feeder", "too_long"),
        ({"location": Location(lat=90.5, lon=0.0)}, "/location", "out_of_range"),
        ({"location": Location(lat=0.0, lon=nan)}, "/location", "out_of_range"),
    ],
)
def test_a_setting_out_of_its_range_is_named(wish: dict[str, Any], pointer: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        decided(SEEN, when=ConfigureSensor(sensor_id="s1", **wish))

    assert [(f.pointer, f.code) for f in refused.value.findings] == [(pointer, code)]


def test_every_finding_is_answered_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        decided(SEEN, when=ConfigureSensor(sensor_id="s1", name="", nominal=-1.0))

    assert [f.pointer for f in refused.value.findings] == ["/nominal", "/name"]


places = st.builds(Location, lat=st.floats(), lon=st.floats()) | st.just(TIRANA)
wishes = st.builds(
    ConfigureSensor,
    sensor_id=st.just("s1"),
    location=st.just(UNSET) | st.none() | places,
    nominal=st.just(UNSET) | st.none() | st.floats() | st.sampled_from([230.0, 50.0]),
    expected_interval_s=st.just(UNSET) | st.none() | st.floats() | st.sampled_from([1.0, 60.0]),
    name=st.just(UNSET) | st.none() | st.text(max_size=120),
    feeder=st.just(UNSET) | st.none() | st.text(max_size=120),
)


@given(seen=st.booleans(), commands=st.lists(wishes, max_size=8))
def test_any_command_twice_equals_once_and_nothing_but_rejected_comes_out(
    seen: bool,  # noqa: FBT001  # given by name
    commands: list[ConfigureSensor],
) -> None:
    state: Sensor = reduce(SENSOR.evolve, [SEEN] if seen else [], SENSOR.initial())
    for command in commands:
        try:
            events = SENSOR.decide(state, command)
        except Rejected:
            continue
        state = reduce(SENSOR.evolve, events, state)

        assert SENSOR.decide(state, command) == ()
