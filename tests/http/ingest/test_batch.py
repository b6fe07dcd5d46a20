import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.http.ingest.kit import (
    AT,
    BATCH,
    COLUMNS,
    CSV,
    NDJSON,
    PLACE,
    SENSOR,
    World,
    codes,
    meter_reading,
    ndjson,
    reading,
)

AT_US = 1_768_473_000_000_000


def times(number: int) -> list[dict[str, Any]]:
    return [reading(timestamp=f"2026-01-15T10:{minute:02}:00Z", value=220 + minute) for minute in range(number)]


def csv_of(items: list[dict[str, Any]]) -> bytes:
    names = ["sensor_id", "sensor_type", "value", "lat", "lon", "timestamp"]
    rows = [
        [*(str(item[n]) for n in names[:3]), *(str(v) for v in item["location"].values()), item["timestamp"]]
        for item in items
    ]
    return "\r\n".join(",".join(row) for row in [names, *rows]).encode()


def columns_of(items: list[dict[str, Any]]) -> bytes:
    series = {
        "sensor_id": "s1",
        "sensor_type": "voltage",
        "location": PLACE,
        "t": [AT_US - 30 * 60_000_000 + number * 60_000_000 for number in range(len(items))],
        "v": [float(item["value"]) for item in items],
    }
    return msgspec.msgpack.encode({"series": [series]})


FORMS: list[tuple[str, Callable[[list[dict[str, Any]]], bytes]]] = [
    ("application/json", lambda items: json.dumps({"readings": items}).encode()),
    (NDJSON, lambda items: ndjson(*items)),
    (CSV, csv_of),
    (COLUMNS, columns_of),
]


@pytest.mark.parametrize(("media_type", "form"), FORMS)
async def test_all_forms_of_a_batch_store_the_same(
    world: World, media_type: str, form: Callable[[list[dict[str, Any]]], bytes]
) -> None:
    reply = await world.send(BATCH, form(times(20)), media_type)

    assert (reply.status, reply.json()) == (
        200,
        {
            "status": "success",
            "accepted": 20,
            "duplicates": 0,
            "rejected": 0,
            "first_position": "telemetry@2",
            "last_position": "telemetry@2",
            "errors": [],
        },
    )
    start = AT_US - 30 * 60_000_000
    assert await world.stored() == [("s1", "voltage", start + m * 60_000_000, 220.0 + m) for m in range(20)]


@pytest.mark.parametrize(("media_type", "form"), FORMS)
async def test_form_repeats_what_another_form_stored(
    world: World, media_type: str, form: Callable[[list[dict[str, Any]]], bytes]
) -> None:
    await world.client.post(BATCH, {"readings": times(20)})

    reply = await world.send(BATCH, form(times(20)), media_type)

    assert (reply.json()["accepted"], reply.json()["duplicates"]) == (0, 20)
    assert reply.json()["first_position"] is None


async def test_each_item_has_its_verdict(world: World) -> None:
    first = (await world.client.post(SENSOR, reading())).json()["event_id"]
    items = [reading(), reading(value=1), reading(value=-1), reading(seq=1), meter_reading()]

    reply = await world.client.post(f"{BATCH}?verdicts=all", {"readings": items})

    body = reply.json()
    assert (body["status"], body["accepted"], body["duplicates"], body["rejected"]) == ("partial", 2, 1, 2)
    assert [(v["index"], v["verdict"], v.get("code")) for v in body["verdicts"]] == [
        (0, "duplicate", None),
        (1, "rejected", "reading_conflict"),
        (2, "rejected", "validation_failed"),
        (3, "accepted", None),
        (4, "accepted", None),
    ]
    assert body["verdicts"][0]["event_id"] == first
    assert body["errors"][0]["existing_event_id"] == first
    assert [error["index"] for error in body["errors"]] == [1, 2]


async def test_first_of_two_equal_keys_wins(world: World) -> None:
    items = [reading(), reading(), reading(value=1), reading(value=220500, unit="mV")]

    reply = await world.client.post(BATCH, {"readings": items})

    assert (reply.json()["accepted"], reply.json()["duplicates"], reply.json()["rejected"]) == (1, 2, 1)
    (error,) = reply.json()["errors"]
    assert (error["index"], error["code"], error["existing_value"]) == (2, "reading_conflict", 220.5)
    assert [value for *_, value in await world.stored()] == [220.5]


async def test_key_that_is_stored_decides_over_the_first_in_the_batch(world: World) -> None:
    await world.client.post(SENSOR, reading())

    reply = await world.client.post(BATCH, {"readings": [reading(value=1), reading()]})

    assert (reply.json()["duplicates"], reply.json()["rejected"]) == (1, 1)


async def test_atomic_batch_with_a_bad_item_stores_nothing(world: World) -> None:
    items = [*times(5), reading(value=-1)]

    reply = await world.client.post(f"{BATCH}?mode=atomic", {"readings": items})

    assert (reply.status, reply.json()["code"]) == (400, "batch_rejected")
    assert (reply.json()["accepted"], reply.json()["rejected"]) == (5, 1)
    assert [error["index"] for error in reply.json()["errors"]] == [5]
    assert await world.stored() == []


async def test_atomic_batch_with_a_conflict_stores_nothing(world: World) -> None:
    await world.client.post(SENSOR, reading(timestamp="2026-01-15T10:02:00Z", value=1))

    reply = await world.client.post(f"{BATCH}?mode=atomic", {"readings": times(5)})

    assert (reply.status, reply.json()["errors"][0]["code"]) == (400, "reading_conflict")
    assert len(await world.stored()) == 1


async def test_atomic_batch_bears_duplicates(world: World) -> None:
    await world.client.post(BATCH, {"readings": times(3)})

    reply = await world.client.post(f"{BATCH}?mode=atomic", {"readings": times(5)})

    assert (reply.status, reply.json()["accepted"], reply.json()["duplicates"]) == (200, 2, 3)


async def test_place_is_needed_by_the_first_item_of_an_unknown_sensor(world: World) -> None:
    items = [reading(location=None), reading(seq=1), reading(location=None, seq=2)]

    reply = await world.client.post(BATCH, {"readings": items})

    assert reply.json()["accepted"] == 2
    assert [(e["index"], e["errors"][0]["pointer"]) for e in reply.json()["errors"]] == [(0, "/location")]


async def test_foreign_sensors_of_a_device_are_rejected_items(world: World) -> None:
    items = [reading(), reading(sensor_id="s2"), reading(sensor_id="b7-1"), meter_reading(meter_id="m9")]

    reply = await world.client.signed_in("device").post(BATCH, {"readings": items})

    assert reply.json()["accepted"] == 2
    assert [(e["index"], e["code"]) for e in reply.json()["errors"]] == [
        (1, "sensor_out_of_scope"),
        (3, "sensor_out_of_scope"),
    ]


async def test_blank_lines_do_not_count_and_a_bad_line_is_one_item(world: World) -> None:
    good = [json.dumps(item).encode() for item in times(3)]
    body = b"\n".join(
        [b"", good[0], b"  ", b"{bad", good[1] + b"\r", b'{"sensor_id":"a","sensor_id":"b"}', good[2], b""]
    )

    reply = await world.send(BATCH, body, NDJSON)

    assert reply.json()["accepted"] == 3
    assert [(e["index"], e["code"]) for e in reply.json()["errors"]] == [(1, "malformed_json"), (3, "duplicate_key")]


async def test_two_items_on_one_line_are_one_bad_item(world: World) -> None:
    one, two = (json.dumps(item).encode() for item in times(2))

    reply = await world.send(BATCH, one + b"," + two, NDJSON)

    assert (reply.json()["accepted"], reply.json()["rejected"]) == (0, 1)


@pytest.mark.parametrize(
    ("body", "media_type", "code"),
    [
        (b'{"readings":[', "application/json", "malformed_json"),
        (b'{"readings":[{"value":NaN}]}', "application/json", "malformed_json"),
        (b'{"readings":[{"sensor_id":"\xff"}]}', "application/json", "malformed_json"),
        (b'\xef\xbb\xbf{"readings":[]}', "application/json", "malformed_json"),
        (b'{"readings":[{"sensor_id":"a","sensor_id":"b"}]}', "application/json", "duplicate_key"),
        (b'{"readings":[{}],"readings":[{}]}', "application/json", "duplicate_key"),
        (b'{"readings":[{"a":' + b"[" * 40 + b"]" * 40 + b"}]}", "application/json", "too_deep"),
        (b'{"readings":[]}', "application/json", "validation_failed"),
        (b"{}", "application/json", "validation_failed"),
        (b'{"readings":[{}],"x":1}', "application/json", "validation_failed"),
        (b"[]", "application/json", "validation_failed"),
        (b"\n\n", NDJSON, "validation_failed"),
        (b"", CSV, "validation_failed"),
        (b"sensor_id,value\n", CSV, "validation_failed"),
        (b"sensor_id,foo\na,b\n", CSV, "validation_failed"),
        (b"sensor_id,sensor_id\na,b\n", CSV, "duplicate_key"),
        (b"sensor_id,value\n\xff,1\n", CSV, "malformed_json"),
        (b'sensor_id,value\n"a,1\n', CSV, "malformed_json"),
        (b"\xc1", COLUMNS, "malformed_json"),
        (msgspec.msgpack.encode({"series": []}), COLUMNS, "validation_failed"),
        (msgspec.msgpack.encode({"series": [{"sensor_id": "a"}]}), COLUMNS, "validation_failed"),
        (msgspec.msgpack.encode([1]), COLUMNS, "validation_failed"),
    ],
)
async def test_body_that_is_no_batch_is_refused_as_a_whole(
    world: World, body: bytes, media_type: str, code: str
) -> None:
    reply = await world.send(BATCH, body, media_type)

    assert (reply.status, reply.json()["code"]) == (400, code)


async def test_too_many_items_are_too_large(world: World) -> None:
    items = b",".join([b"{}"] * 10_001)

    reply = await world.send(BATCH, b'{"readings":[' + items + b"]}")

    assert (reply.status, reply.json()["code"]) == (413, "payload_too_large")


async def test_number_that_overflows_is_one_bad_item(world: World) -> None:
    items = json.dumps({"readings": [*times(2), reading(value=12345)]}).replace("12345", "1e999")

    reply = await world.send(BATCH, items.encode())

    (error,) = reply.json()["errors"]
    assert reply.json()["accepted"] == 2
    assert (error["index"], error["errors"][0]["pointer"], error["errors"][0]["code"]) == (2, "/value", "not_finite")


async def test_escapes_and_blanks_mean_nothing(world: World) -> None:
    item = b'{"sensor_\\u0069d" : "s1", "sensor_type": "voltage", "value" : 1, "location": {"lat":1,"lon":2}}'
    body = b'{ "readings" : [ ' + item + b" ] }"

    reply = await world.send(BATCH, body)

    assert reply.json()["accepted"] == 1


async def test_cells_become_fields(world: World) -> None:
    body = (
        b"sensor_id,sensor_type,value,unit,phase,quality,seq,metadata,lat,lon,timestamp\n"
        b's1,power,1.5,kW,L1,estimated,7,"{""fw"":""1,2""}",1,2,' + AT.encode() + b"\n"
        b"s1,power,nan,,,,,,,," + AT.encode() + b"\n"
        b"s1,power,x,,,,,,,," + AT.encode() + b"\n"
        b"s1,power,1,,,,1.5,,,," + AT.encode() + b"\n"
        b"s1,power\n"
    )

    reply = await world.send(BATCH, body, CSV)

    assert reply.json()["accepted"] == 1
    assert [{f["pointer"]: f["code"] for f in e["errors"]} for e in reply.json()["errors"]] == [
        {"/value": "not_finite"},
        {"/value": "wrong_type"},
        {"/seq": "wrong_type"},
        {"": "bad_format"},
    ]


def column_body(**changes: object) -> bytes:
    series = {"sensor_id": "s1", "sensor_type": "power", "location": PLACE, "t": [AT_US, AT_US + 1], "v": [1.5, 2.5]}
    return msgspec.msgpack.encode({"series": [series | changes]})


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"v": [1.5, float("nan")]}, "/v", "not_finite"),
        ({"v": [1.5, 1e12]}, "/v", "out_of_physical_range"),
        ({"t": [AT_US, -1]}, "/t", "timestamp_out_of_range"),
        ({"t": [AT_US, 2**63]}, "/t", "timestamp_out_of_range"),
        ({"t": [AT_US, AT_US + 301_000_000]}, "/t", "timestamp_in_future"),
    ],
)
async def test_each_number_of_a_column_is_an_item(
    world: World, change: dict[str, Any], pointer: str, code: str
) -> None:
    reply = await world.send(BATCH, column_body(**change), COLUMNS)

    (error,) = reply.json()["errors"]
    assert reply.json()["accepted"] == 1
    assert (error["index"], [(f["pointer"], f["code"]) for f in error["errors"]]) == (1, [(pointer, code)])


async def test_series_that_is_wrong_rejects_its_items(world: World) -> None:
    reply = await world.send(BATCH, column_body(unit="V"), COLUMNS)

    assert [e["errors"][0]["code"] for e in reply.json()["errors"]] == ["unit_mismatch", "unit_mismatch"]


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"v": [1.5]}, "/series/0/v", "bad_format"),
        ({"t": ["x", 1]}, "/series/0/t/0", "wrong_type"),
        ({"v": [True, 1.5]}, "/series/0/v/0", "wrong_type"),
        ({"x": 1}, "/series/0/x", "unknown_field"),
        ({"sensor_id": 5}, "/series/0/sensor_id", "wrong_type"),
    ],
)
async def test_columns_that_are_none_are_refused_as_a_whole(
    world: World, change: dict[str, Any], pointer: str, code: str
) -> None:
    reply = await world.send(BATCH, column_body(**change), COLUMNS)

    assert reply.status == 400
    assert codes(reply) == {pointer: code}


async def test_key_that_comes_twice_in_a_map_is_refused(world: World) -> None:
    body = column_body().replace(b"\x85", b"\x86", 1) + b"\xa4unit\xa1W"
    twice = column_body().replace(b"\x85", b"\x86", 1) + b"\xa9sensor_id\xa2s1"

    assert (await world.send(BATCH, body, COLUMNS)).status == 200
    reply = await world.send(BATCH, twice, COLUMNS)
    assert (reply.status, reply.json()["code"]) == (400, "duplicate_key")


async def test_integers_and_long_heads_are_numbers_too(world: World) -> None:
    long_head = column_body(v=[1, 2]).replace(b"\xa1v\x92", b"\xa1v\xdc\x00\x02")

    reply = await world.send(BATCH, long_head, COLUMNS)

    assert reply.json()["accepted"] == 2
    assert [value for *_, value in await world.stored()] == [1.0, 2.0]


@pytest.mark.parametrize("parameters", ["mode=both", "verdicts=none", "x=1", "mode=atomic&mode=atomic"])
async def test_parameters_are_checked(world: World, parameters: str) -> None:
    assert (await world.client.post(f"{BATCH}?{parameters}", {"readings": times(1)})).status == 400
