import pytest
from tests.schemas.evolution import LATER, SensorConfiguredV2, SensorConfiguredV3, sensor_configured_v2

from smartgrid_schemas.event import Event
from smartgrid_schemas.registry import EVENT_OF, REGISTRY, Registry, name_of, parts_of
from smartgrid_schemas.telemetry import SensorConfigured
from smartgrid_schemas.upcasters import UPCASTERS, Upcaster


class WithoutVersion(Event, tag="telemetry.sensor-configured", frozen=True, kw_only=True):
    pass


Case = tuple[dict[type[Event], str], dict[type[Event], Upcaster], str]
CASES: list[Case] = [
    ({SensorConfiguredV2: "t"}, {}, r"v1 is missing: what is stored has that shape"),
    ({SensorConfigured: "t", SensorConfiguredV2: "t"}, {}, r"v1 has no upcaster; write one to .*v2"),
    ({SensorConfiguredV3: "t"}, {SensorConfigured: sensor_configured_v2}, r"v2 is missing"),
    ({}, {SensorConfigured: sensor_configured_v2}, r"v1 has an upcaster to a shape that is missing"),
    ({WithoutVersion: "t"}, {}, r"write subject\.fact-in-words\.vN"),
]


@pytest.mark.parametrize(("topics", "upcasters", "told"), CASES)
def test_a_gap_in_the_versions_of_a_fact_stops_the_start(
    topics: dict[type[Event], str], upcasters: dict[type[Event], Upcaster], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        Registry(topics, upcasters)


def test_of_each_fact_only_the_newest_shape_is_on_a_topic() -> None:
    for registry in (REGISTRY, LATER):
        facts = [parts_of(name_of(kind))[0] for kind in registry.topics]
        assert len(facts) == len(set(facts))
        assert registry.older == set(registry.events) - {name_of(kind) for kind in registry.topics}


def test_events_of_the_product_are_those_of_topics_and_upcasters() -> None:
    assert set(EVENT_OF.values()) == {*REGISTRY.topics, *UPCASTERS}


@pytest.mark.parametrize("name", ["", "a.b", "a.b.v0", "a.b.v01", "A.b.v1", "a.b.v1\n", "a.b-.v1", "a.b.c.v1"])
def test_what_is_no_event_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no event name"):
        parts_of(name)
