from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from tests.http.ingest.kit import AT, BATCH, METER, PLACE, SENSOR, World, codes, meter_reading, reading

NAMESPACE = uuid5(NAMESPACE_URL, "urn:smartgrid:reading")
AT_US = 1_768_473_000_000_000


async def test_new_reading_is_created_with_the_id_of_its_natural_key(world: World) -> None:
    reply = await world.client.post(SENSOR, reading(phase="L1", seq=118))

    assert (reply.status, reply.json()) == (
        201,
        {
            "status": "success",
            "event_id": str(uuid5(NAMESPACE, f"sensor|s1|voltage|L1|{AT_US}|118")),
            "kafka_topic": "smartgrid-sensor-data",
            "position": "telemetry@2",
            "duplicate": False,
            "recorded_at": "2026-01-15T10:30:00Z",
        },
    )
    assert reply.headers["x-event-position"] == "telemetry@2"


async def test_reading_of_a_meter_has_the_id_of_its_natural_key(world: World) -> None:
    reply = await world.client.post(METER, meter_reading())

    assert reply.status == 201
    assert reply.json()["event_id"] == str(uuid5(NAMESPACE, f"meter|m1|1.8.0|{AT_US}|-"))
    assert reply.json()["kafka_topic"] == "smartgrid-meter-readings"


@pytest.mark.parametrize(
    "again",
    [
        reading(),
        reading(value=220500, unit="mV"),
        reading(timestamp="2026-01-15T11:30:00.000000+01:00"),
        reading(metadata={"fw": "1.2"}, location={"lat": 1, "lon": 2}),
        reading(location=None),
        reading(phase=None, quality="measured"),
    ],
)
async def test_same_key_and_value_is_a_duplicate(world: World, again: dict[str, Any]) -> None:
    first = await world.client.post(SENSOR, reading())
    world.clock.advance(3600)

    reply = await world.client.post(SENSOR, again)

    assert reply.status == 200
    assert reply.json() == {**first.json(), "duplicate": True}
    assert len(await world.stored()) == 1


@pytest.mark.parametrize("other", [reading(value=220.50000000000003), reading(quality="estimated"), reading(unit="kV")])
async def test_same_key_and_another_value_is_a_conflict(world: World, other: dict[str, Any]) -> None:
    first = await world.client.post(SENSOR, reading())

    reply = await world.client.post(SENSOR, other)

    assert reply.status == 409
    assert reply.json()["code"] == "reading_conflict"
    assert reply.json()["existing_event_id"] == first.json()["event_id"]
    assert reply.json()["existing_value"] == 220.5


@pytest.mark.parametrize("change", [{"phase": "L1"}, {"seq": 0}, {"sensor_type": "current"}, {"sensor_id": "s2"}])
async def test_another_key_is_another_reading(world: World, change: dict[str, Any]) -> None:
    await world.client.post(SENSOR, reading())

    assert (await world.client.post(SENSOR, reading(**change))).status == 201


async def test_conflict_of_a_meter_is_told_in_kwh(world: World) -> None:
    await world.client.post(METER, meter_reading(reading=1250750, unit="Wh"))

    reply = await world.client.post(METER, meter_reading(reading=1))

    assert reply.json()["existing_value"] == 1250.75


async def test_readings_without_a_time_never_collide(world: World) -> None:
    replies = [await world.client.post(SENSOR, reading(timestamp=None)) for _ in range(3)]

    assert [reply.status for reply in replies] == [201, 201, 201]
    assert [at for _, _, at, _ in await world.stored()] == [AT_US, AT_US + 1, AT_US + 2]


GOOD_ID = "0f8c0000-0000-5000-8000-000000000000"


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"sensor_id": None}, "/sensor_id", "missing_field"),
        ({"sensor_type": None}, "/sensor_type", "missing_field"),
        ({"value": None}, "/value", "missing_field"),
        ({"location": None}, "/location", "missing_field"),
        ({"location": {"lat": 1}}, "/location/lon", "missing_field"),
        ({"nominal": 1}, "/nominal", "unknown_field"),
        ({"location": {**PLACE, "alt": 1}}, "/location/alt", "unknown_field"),
        ({"meter_id": "m1"}, "/meter_id", "unknown_field"),
        ({"sensor_id": 5}, "/sensor_id", "wrong_type"),
        ({"value": "220.5"}, "/value", "wrong_type"),
        ({"value": True}, "/value", "wrong_type"),
        ({"seq": 1.5}, "/seq", "wrong_type"),
        ({"seq": True}, "/seq", "wrong_type"),
        ({"timestamp": 5}, "/timestamp", "wrong_type"),
        ({"location": [1, 2]}, "/location", "wrong_type"),
        ({"metadata": {"a": [1]}}, "/metadata/a", "wrong_type"),
        ({"location": {"lat": 90.1, "lon": 0}}, "/location/lat", "out_of_range"),
        ({"location": {"lat": 0, "lon": -180.1}}, "/location/lon", "out_of_range"),
        ({"seq": -1}, "/seq", "out_of_range"),
        ({"seq": 2**53}, "/seq", "out_of_range"),
        ({"metadata": {"a": 2**64}}, "/metadata/a", "out_of_range"),
        ({"value": -0.1}, "/value", "out_of_physical_range"),
        ({"value": 1500.1, "unit": "kV"}, "/value", "out_of_physical_range"),
        ({"sensor_type": "loudness"}, "/sensor_type", "unknown_value"),
        ({"phase": "L4"}, "/phase", "unknown_value"),
        ({"quality": "corrected"}, "/quality", "unknown_value"),
        ({"quality": "measured", "corrects": GOOD_ID, "reason": "x"}, "/quality", "unknown_field"),
        ({"unit": "kW"}, "/unit", "unit_mismatch"),
        ({"sensor_id": "-a"}, "/sensor_id", "bad_format"),
        ({"sensor_id": "a b"}, "/sensor_id", "bad_format"),
        ({"sensor_id": "a\n"}, "/sensor_id", "bad_format"),
        ({"sensor_id": "a" * 129}, "/sensor_id", "too_long"),
        ({"timestamp": "yesterday"}, "/timestamp", "bad_format"),
        ({"timestamp": "2026-02-30T00:00:00Z"}, "/timestamp", "bad_format"),
        ({"timestamp": "2026-01-15T10:30:00"}, "/timestamp", "timestamp_without_offset"),
        ({"timestamp": "2026-01-15T10:30:00.0000000Z"}, "/timestamp", "timestamp_too_precise"),
        ({"timestamp": "1969-12-31T23:59:59Z"}, "/timestamp", "timestamp_out_of_range"),
        ({"timestamp": "2026-01-15T10:35:00.000001Z"}, "/timestamp", "timestamp_in_future"),
        ({"corrects": GOOD_ID}, "/reason", "missing_field"),
        ({"reason": "x"}, "/corrects", "missing_field"),
        ({"corrects": "x", "reason": "x"}, "/corrects", "bad_format"),
        ({"corrects": GOOD_ID, "reason": "x" * 501}, "/reason", "too_long"),
        ({"metadata": {str(i): 1 for i in range(17)}}, "/metadata", "too_long"),
        ({"metadata": {"a": "x" * 2048}}, "/metadata", "too_long"),
    ],
)
async def test_each_field_has_its_findings(world: World, change: dict[str, Any], pointer: str, code: str) -> None:
    item = reading(**change)
    single = await world.client.post(SENSOR, item)
    in_batch = await world.client.post(BATCH, {"readings": [item, reading(sensor_id="fine")]})

    assert (single.status, single.json()["code"]) == (400, "validation_failed")
    assert codes(single) == {pointer: code}
    if "meter_id" not in change:
        (error,) = in_batch.json()["errors"]
        assert [(finding["pointer"], finding["code"]) for finding in error["errors"]] == [(pointer, code)]


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"meter_id": None}, "/meter_id", "missing_field"),
        ({"reading": None}, "/reading", "missing_field"),
        ({"customer_id": None}, "/customer_id", "missing_field"),
        ({"customer_id": "a b"}, "/customer_id", "bad_format"),
        ({"reading": -1}, "/reading", "out_of_range"),
        ({"reading": 1.1e12}, "/reading", "out_of_range"),
        ({"unit": "W"}, "/unit", "unit_mismatch"),
        ({"register": ""}, "/register", "bad_format"),
        ({"register": "1" * 33}, "/register", "too_long"),
        ({"phase": "L1"}, "/phase", "unknown_field"),
    ],
)
async def test_each_field_of_a_meter_has_its_findings(
    world: World, change: dict[str, Any], pointer: str, code: str
) -> None:
    item = meter_reading(**change)
    single = await world.client.post(METER, item)

    assert codes(single) == {pointer: code}
    if "meter_id" in item:
        (error,) = (await world.client.post(BATCH, {"readings": [item]})).json()["errors"]
        assert [(finding["pointer"], finding["code"]) for finding in error["errors"]] == [(pointer, code)]


async def test_all_findings_are_told_at_once(world: World) -> None:
    reply = await world.client.post(SENSOR, reading(value="x", phase="L9", sensor_id=None, foo=1))

    assert codes(reply) == {
        "/sensor_id": "missing_field",
        "/value": "wrong_type",
        "/phase": "unknown_value",
        "/foo": "unknown_field",
    }


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1" + b"0" * 400])
async def test_number_that_is_not_finite_is_refused(world: World, literal: bytes) -> None:
    body = b'{"sensor_id":"s1","sensor_type":"voltage","value":%s,"location":{"lat":1,"lon":2}}' % literal

    reply = await world.send(SENSOR, body)

    assert reply.status == 400
    assert codes(reply)["/value"] in {"not_finite", "too_long"}


async def test_time_may_be_five_minutes_ahead(world: World) -> None:
    assert (await world.client.post(SENSOR, reading(timestamp="2026-01-15T10:35:00Z"))).status == 201


@pytest.mark.parametrize(
    "change",
    [
        {"value": 0},
        {"value": 1_500_000},
        {"value": 1500, "unit": "kV"},
        {"timestamp": "1970-01-01T00:00:00Z"},
        {"timestamp": "2026-01-15t10:30:00.123456z"},
        {"location": {"lat": -90, "lon": 180}},
        {"seq": 2**53 - 1},
        {"sensor_id": "a" * 128},
        {"metadata": {"a": None, "b": True, "c": 1, "d": "é", "e": 1.5}},
        {"metadata": {}},
    ],
)
async def test_edges_of_every_range_are_good(world: World, change: dict[str, Any]) -> None:
    assert (await world.client.post(SENSOR, reading(**change))).status == 201


async def test_null_is_as_good_as_absent_where_a_field_may_be_absent(world: World) -> None:
    optional = ("timestamp", "unit", "phase", "quality", "seq", "metadata", "corrects", "reason")

    reply = await world.client.post(SENSOR, reading() | dict.fromkeys(optional))

    assert reply.status == 201


async def test_parameters_are_unknown_here(world: World) -> None:
    reply = await world.client.post(f"{SENSOR}?mode=atomic", reading())

    assert codes(reply) == {"?mode": "unknown_parameter"}


async def test_device_writes_its_own_sensors_only(world: World) -> None:
    device = world.client.signed_in("device")

    assert (await device.post(SENSOR, reading(sensor_id="b7-12"))).status == 201
    assert (await device.post(METER, meter_reading())).status == 201
    foreign = await device.post(SENSOR, reading(sensor_id="b8-1"))
    assert (foreign.status, foreign.json()["code"]) == (403, "sensor_out_of_scope")
    assert (await device.post(METER, meter_reading(meter_id="m2"))).status == 403


async def test_device_may_not_correct(world: World) -> None:
    device = world.client.signed_in("device")
    first = await device.post(SENSOR, reading())

    reply = await device.post(SENSOR, reading(value=1, corrects=first.json()["event_id"], reason="wrong"))

    assert (reply.status, reply.json()["code"]) == (403, "forbidden")


async def test_correction_gets_an_id_of_its_own_and_repeats_are_known(world: World) -> None:
    first = (await world.client.post(SENSOR, reading())).json()["event_id"]
    item = reading(value=230, corrects=first, reason="wrong transformer")

    made = await world.client.post(SENSOR, item)
    again = await world.client.post(SENSOR, item)
    plain = await world.client.post(SENSOR, reading())

    assert made.status == 201
    assert made.json()["event_id"] == str(uuid5(NAMESPACE, f"sensor|s1|voltage|-|{AT_US}|-|{first}"))
    assert (again.status, again.json()["event_id"]) == (200, made.json()["event_id"])
    assert (plain.status, plain.json()["event_id"]) == (200, first)


async def test_correction_names_the_newest_of_its_own_key(world: World) -> None:
    first = (await world.client.post(SENSOR, reading())).json()["event_id"]
    other = (await world.client.post(SENSOR, reading(seq=1))).json()["event_id"]
    await world.client.post(SENSOR, reading(value=1, corrects=first, reason="x"))

    of_older = await world.client.post(SENSOR, reading(value=2, corrects=first, reason="x"))
    of_other = await world.client.post(SENSOR, reading(value=2, corrects=other, reason="x"))
    of_unknown = await world.client.post(SENSOR, reading(value=2, corrects=GOOD_ID, reason="x"))

    assert (of_older.status, of_older.json()["code"]) == (409, "correction_conflict")
    assert (of_other.status, of_other.json()["code"]) == (409, "correction_conflict")
    assert (of_unknown.status, of_unknown.json()["code"]) == (404, "not_found")


async def test_event_id_is_a_uuid_of_version_5(world: World) -> None:
    event_id = UUID((await world.client.post(SENSOR, reading(timestamp=AT))).json()["event_id"])

    assert (event_id.version, event_id.variant) == (5, "specified in RFC 4122")
