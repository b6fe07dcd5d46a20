from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.schemas.evolution import (
    LATER,
    MeterReadingsRecordedV2,
    SensorConfiguredV2,
    SensorConfiguredV3,
    UserRegisteredV2,
    later_schemas,
    sensor_configured_v3,
)
from tests.schemas.examples import SCHEMAS
from tests.schemas.generated import events_of

from smartgrid_adapters.memory.data_keys import MemoryDataKeys
from smartgrid_adapters.memory.event_store import MemoryEventStore
from smartgrid_adapters.postgres.codec import Codec, UndecodableEvent, UpcasterFailed, decode, encode
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import Pool
from smartgrid_adapters.sealing import KeySealer
from smartgrid_commands.pipeline import opened
from smartgrid_commands.ports import EventStore, StreamWrite
from smartgrid_ops.schema_files import check
from smartgrid_schemas.event import Event, Sealed
from smartgrid_schemas.identity import UserRegistered
from smartgrid_schemas.registry import Registry, name_of
from smartgrid_schemas.telemetry import Location, SensorConfigured
from smartgrid_schemas.upcasters import Upcaster

CODEC = Codec(LATER)
OLDER = sorted(LATER.older)


def stored(name: str, example: str = "full") -> bytes:
    return (SCHEMAS / "golden" / name / f"{example}.msgpack").read_bytes()


def test_what_was_stored_as_v1_is_read_as_v3() -> None:
    event = CODEC.decode("telemetry.sensor-configured.v1", stored("telemetry.sensor-configured.v1"))

    assert event == SensorConfiguredV3(
        sensor_id="b7-s1",
        location=Location(-90.0, 180.0),
        nominal=230.0,
        expected_interval_us=60_000_000,
        name="Transformer ë",
        feeders=("f-7",),
    )


def test_what_v1_did_not_say_is_not_invented() -> None:
    event = CODEC.decode("telemetry.sensor-configured.v1", stored("telemetry.sensor-configured.v1", "least"))

    assert event == SensorConfiguredV3(sensor_id="s")


def test_places_of_an_array_move_to_where_they_belong() -> None:
    old = decode("metering.readings-recorded.v1", stored("metering.readings-recorded.v1"))
    event = CODEC.decode("metering.readings-recorded.v1", stored("metering.readings-recorded.v1"))

    assert isinstance(event, MeterReadingsRecordedV2)
    for field in MeterReadingsRecordedV2.__struct_fields__:
        assert getattr(event, field) == getattr(old, field)


def test_a_later_product_reads_all_that_was_ever_stored(tmp_path: Path) -> None:
    assert check(later_schemas(tmp_path), LATER) == []


@pytest.mark.parametrize("name", OLDER)
@settings(max_examples=40)
@given(data=st.data())
def test_any_event_of_an_older_shape_is_read_in_todays(name: str, data: st.DataObject) -> None:
    old = data.draw(events_of(LATER.events[name]))

    event = CODEC.decode(name, encode(old))

    assert type(event) is LATER.today_of(name)
    assert CODEC.decode(name_of(event), encode(event)) == event
    assert CODEC.decode(name, encode(old)) == event  # an upcaster is pure


@pytest.mark.parametrize("name", sorted(LATER.events))
def test_all_names_of_an_event_lead_to_it(name: str) -> None:
    today = LATER.today_of(name)

    assert name in LATER.names_of(today)
    assert LATER.names_of(today)[-1] == name_of(today)
    assert LATER.topic_of(name) == LATER.topics[today]


def fails(_: object) -> Event:
    raise ZeroDivisionError("no such thing")


def changes_nothing(old: SensorConfigured) -> Event:
    return old


def forgets_to_return(_: object) -> Any:  # noqa: ANN401  # the mistake that no type checker saw
    return None


@pytest.mark.parametrize(
    ("upcaster", "told"),
    [(fails, "ZeroDivisionError"), (changes_nothing, "SensorConfigured"), (forgets_to_return, "NoneType")],
)
def test_an_upcaster_that_fails_is_an_error_of_its_own(upcaster: Upcaster, told: str) -> None:
    broken = Codec(
        Registry(
            {SensorConfiguredV3: "t"},
            {SensorConfigured: upcaster, SensorConfiguredV2: sensor_configured_v3},
        )
    )

    with pytest.raises(UpcasterFailed, match=told) as error:
        broken.decode("telemetry.sensor-configured.v1", stored("telemetry.sensor-configured.v1"))
    assert isinstance(error.value, UndecodableEvent)
    assert "telemetry.sensor-configured.v2" in str(error.value)


async def test_a_store_in_memory_reads_events_of_older_shapes_in_todays() -> None:
    await reads_events_of_older_shapes_in_todays(MemoryEventStore(codec=CODEC))


async def test_a_store_in_postgres_reads_events_of_older_shapes_in_todays(pool: Pool) -> None:
    store = PostgresEventStore(pool, codec=CODEC)
    await store.start()
    try:
        await reads_events_of_older_shapes_in_todays(store)
    finally:
        await store.stop()


async def reads_events_of_older_shapes_in_todays(store: EventStore) -> None:
    appended = [
        SensorConfigured(sensor_id="s", feeder="f"),
        SensorConfiguredV2(sensor_id="s", expected_interval_us=5),
        SensorConfiguredV3(sensor_id="s"),
    ]
    await store.append("telemetry", [StreamWrite(stream="sensor:s", events=appended, expected_version=0)])

    recorded = await store.read_stream("telemetry", "sensor:s")

    assert [one.event for one in recorded] == [
        SensorConfiguredV3(sensor_id="s", feeders=("f",)),
        SensorConfiguredV3(sensor_id="s", expected_interval_us=5),
        SensorConfiguredV3(sensor_id="s"),
    ]
    assert [one.name for one in recorded] == [f"telemetry.sensor-configured.v{version}" for version in (1, 2, 3)]


async def test_what_was_sealed_in_an_older_shape_opens_in_todays() -> None:
    sealer = KeySealer(MemoryDataKeys(), b"m" * 32)
    store = MemoryEventStore(sealer=sealer, codec=CODEC)
    old = UserRegistered(user_id="u", username="dritan", email="d@oshee.example", role="viewer", via="admin")
    await store.append("identity", [StreamWrite(stream="user:u", events=[old], expected_version=0)])

    (recorded,) = await store.read_log("identity")

    assert isinstance(recorded.event, UserRegisteredV2)
    assert isinstance(recorded.event.username, Sealed)
    clear = await opened(recorded, sealer)
    assert clear == UserRegisteredV2(user_id="u", username="dritan", email=old.email, role="viewer", origin="admin")
    assert await sealer.open_packed(sealer.pack_sealed(recorded, "email")) == old.email
