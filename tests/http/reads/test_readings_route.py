import csv
from io import StringIO
from typing import Any
from uuid import uuid4

from msgspec import json
from msgspec.structs import replace
from tests.http.reads.filling import Filler

from smartgrid_http.testing import AsgiClient, FixedClock

READINGS = "/api/v1/readings?sensor_id=s1"


async def ids(client: AsgiClient, query: str = "") -> list[str]:
    reply = await client.get(READINGS + query)
    assert reply.status == 200, reply.body
    return [row["event_id"] for row in reply.json()["data"]]


async def codes(client: AsgiClient, path: str) -> list[tuple[str, str]]:
    reply = await client.get(path)
    assert reply.status == 400, reply.body
    return [(one["pointer"], one["code"]) for one in reply.json()["errors"]]


async def test_a_reading_is_answered_in_the_shape_of_the_api(client: AsgiClient, filler: Filler) -> None:
    (row,) = await filler.readings("s1", [3], mantissa=2205)

    reply = await client.get(READINGS)

    assert reply.status == 200
    assert reply.headers["x-event-position"] == "telemetry@1"
    body = reply.json()
    recorded_at = body["data"][0].pop("recorded_at")
    assert recorded_at.endswith("Z")
    assert body == {
        "status": "success",
        "downsampled": False,
        "data": [
            {
                "event_id": str(row.event_id),
                "sensor_id": "s1",
                "sensor_type": "voltage",
                "phase": None,
                "timestamp": "2026-01-15T00:03:00Z",
                "value": 220.5,
                "unit": "V",
                "quality": "measured",
                "seq": None,
                "position": "telemetry@1",
                "superseded": False,
                "corrects": None,
                "retracted": False,
            }
        ],
        "next_cursor": None,
    }


async def test_an_unknown_sensor_has_no_readings(client: AsgiClient) -> None:
    reply = await client.get("/api/v1/readings?sensor_id=nobody")

    assert (reply.status, reply.json()["data"], reply.json()["next_cursor"]) == (200, [], None)
    assert reply.headers["x-event-position"] == "telemetry@0"


async def test_without_a_range_it_is_the_last_24_hours(client: AsgiClient, filler: Filler, clock: FixedClock) -> None:
    rows = await filler.readings("s1", [0, 60, 629, 630, 700])

    assert await ids(client) == [str(row.event_id) for row in rows[:3]]
    clock.advance(24 * 3600)
    assert await ids(client) == [str(row.event_id) for row in rows[3:]]


async def test_ranges_are_half_open(client: AsgiClient, filler: Filler) -> None:
    rows = await filler.readings("s1", range(5))

    found = await ids(client, "&from=2026-01-15T01:01:00%2B01:00&to=2026-01-15T00:03:00Z")

    assert found == [str(row.event_id) for row in rows[1:3]]


async def test_filters_choose_and_order_turns(client: AsgiClient, filler: Filler) -> None:
    (plain,) = await filler.readings("s1", [1])
    (phase,) = await filler.readings("s1", [2], phase="L1")
    (current,) = await filler.readings("s1", [2], measurand="current", phase="L1", seq=4)

    assert await ids(client, "&phase=L1") == [str(phase.event_id), str(current.event_id)]
    assert await ids(client, "&sensor_type=current") == [str(current.event_id)]
    assert await ids(client, "&order=desc") == [str(current.event_id), str(phase.event_id), str(plain.event_id)]


async def test_all_versions_show_what_was_replaced_and_taken_back(client: AsgiClient, filler: Filler) -> None:
    (first,) = await filler.readings("s1", [1])
    second = replace(first, revision=1, event_id=uuid4(), mantissa=2310, quality=4)
    await filler.store(second)
    (gone,) = await filler.readings("s1", [2])
    await filler.retract(gone)

    rows = (await client.get(READINGS + "&versions=all")).json()["data"]

    assert await ids(client) == [str(second.event_id)]
    assert [(r["event_id"], r["quality"], r["superseded"], r["corrects"], r["retracted"]) for r in rows] == [
        (str(first.event_id), "measured", True, None, False),
        (str(second.event_id), "corrected", False, str(first.event_id), False),
        (str(gone.event_id), "measured", False, None, True),
    ]


async def walk(client: AsgiClient, query: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor = ""
    while True:
        body = (await client.get(f"{READINGS}{query}{cursor}")).json()
        rows += body["data"]
        if body["next_cursor"] is None:
            return rows
        assert body["data"]
        cursor = f"&cursor={body['next_cursor']}"


async def test_pages_join_to_the_whole(client: AsgiClient, filler: Filler) -> None:
    for phase in ("L1", "L2"):
        await filler.readings("s1", range(10), phase=phase)

    for order in ("asc", "desc"):
        whole = (await client.get(f"{READINGS}&order={order}")).json()["data"]

        assert len(whole) == 20
        for limit in (1, 3, 20):
            assert await walk(client, f"&order={order}&limit={limit}") == whole


async def test_a_walk_stays_where_it_began_while_time_and_data_move_on(
    client: AsgiClient, filler: Filler, clock: FixedClock
) -> None:
    rows = await filler.readings("s1", range(0, 8, 2))
    page = (await client.get(f"{READINGS}&limit=2")).json()
    await filler.readings("s1", range(1, 8, 2))
    clock.advance(3599)

    rest = await client.get(f"{READINGS}&limit=9&cursor={page['next_cursor']}")

    assert [row["event_id"] for row in rest.json()["data"]] == [str(row.event_id) for row in rows[2:]]
    assert rest.headers["x-event-position"] == "telemetry@1"


async def test_a_cursor_is_for_one_caller_and_one_query(
    client: AsgiClient, filler: Filler, anonymous: AsgiClient, clock: FixedClock
) -> None:
    await filler.readings("s1", range(3))
    cursor = (await client.get(f"{READINGS}&limit=1")).json()["next_cursor"]

    for who, query in (
        (client, f"{READINGS}&order=desc&cursor={cursor}"),
        (client, f"/api/v1/readings?sensor_id=s2&cursor={cursor}"),
        (client, f"{READINGS}&cursor={cursor[:-1]}"),
        (client, f"/api/v1/sensors?cursor={cursor}"),
        (anonymous.signed_in("admin"), f"{READINGS}&limit=1&cursor={cursor}"),
    ):
        reply = await who.get(query)
        assert (reply.status, reply.json()["code"]) == (400, "invalid_cursor"), query
    clock.advance(3600)
    assert (await client.get(f"{READINGS}&cursor={cursor}")).json()["code"] == "invalid_cursor"


async def test_csv_and_ndjson_hold_the_whole_range(client: AsgiClient, filler: Filler) -> None:
    await filler.readings("s1", range(2), phase="L1")
    whole = (await client.get(READINGS)).json()["data"]

    text = await client.get(READINGS, headers={"Accept": "text/csv"})
    lines = await client.get(READINGS + "&limit=1", headers={"Accept": "application/x-ndjson"})

    table = list(csv.DictReader(StringIO(text.body.decode(), newline="")))
    assert text.status == lines.status == 200
    assert text.headers["content-type"].startswith("text/csv")
    assert text.headers["x-event-position"] == "telemetry@1"
    assert [(row["event_id"], row["value"], row["phase"], row["seq"], row["retracted"]) for row in table] == [
        (row["event_id"], "230.0", "L1", "", "false") for row in whole
    ]
    assert table[0].keys() == whole[0].keys()
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [json.decode(line) for line in lines.body.splitlines()] == whole[:1]


async def test_another_form_is_not_acceptable(client: AsgiClient) -> None:
    reply = await client.get(READINGS, headers={"Accept": "text/html"})

    assert (reply.status, reply.json()["code"]) == (406, "not_acceptable")


BAD_PARAMETERS = [
    ("", "?sensor_id", "missing_field"),
    ("sensor_id=", "?sensor_id", "bad_format"),
    ("sensor_id=a%20b", "?sensor_id", "bad_format"),
    ("sensor_id=s1&sensor_id=s1", "?sensor_id", "duplicate_parameter"),
    ("sensor_id=s1&sensor_type=heat", "?sensor_type", "unknown_value"),
    ("sensor_id=s1&phase=L9", "?phase", "unknown_value"),
    ("sensor_id=s1&order=up", "?order", "unknown_value"),
    ("sensor_id=s1&versions=some", "?versions", "unknown_value"),
    ("sensor_id=s1&limit=0", "?limit", "out_of_range"),
    ("sensor_id=s1&limit=10001", "?limit", "out_of_range"),
    ("sensor_id=s1&limit=x", "?limit", "wrong_type"),
    ("sensor_id=s1&from=2026-01-15T00:00:00", "?from", "timestamp_without_offset"),
    ("sensor_id=s1&to=yesterday", "?to", "bad_format"),
    ("sensor_id=s1&from=2026-01-15T00:00:00Z&to=2026-01-15T00:00:00Z", "?from", "out_of_range"),
    ("sensor_id=s1&min_position=telemetry", "?min_position", "bad_format"),
    ("sensor_id=s1&min_position=telemetry@1,telemetry@2", "?min_position", "bad_format"),
    ("sensor_id=s1&wait_ms=5001", "?wait_ms", "out_of_range"),
    ("sensor_id=s1&as_of=telemetry", "?as_of", "bad_format"),
    ("sensor_id=s1&as_of=telemetry@1,identity@1", "?as_of", "bad_format"),
    ("sensor_id=s1&as_of=2026-01-15T00:00:00", "?as_of", "timestamp_without_offset"),
    ("sensor_id=s1&as_of=2026-01-15T00:00:00.1234567Z", "?as_of", "timestamp_too_precise"),
    ("sensor_id=s1&as_of=2099-01-15T00:00:00Z", "?as_of", "timestamp_in_future"),
    ("sensor_id=s1&as_of=telemetry@1", "?as_of", "out_of_range"),
    ("sensor_id=s1&max_points=10", "?max_points", "unknown_parameter"),
]


async def test_a_bad_parameter_is_named(client: AsgiClient) -> None:
    for query, pointer, code in BAD_PARAMETERS:
        assert await codes(client, f"/api/v1/readings?{query}") == [(pointer, code)], query


async def test_a_read_waits_for_a_position_and_gives_up(client: AsgiClient, filler: Filler) -> None:
    await filler.readings("s1", [1])

    included = await client.get(READINGS + "&min_position=telemetry@1,identity@7&wait_ms=0")
    behind = await client.get(READINGS + "&min_position=telemetry@2&wait_ms=30")

    assert included.status == 200
    assert (behind.status, behind.json()["code"]) == (503, "projection_behind")
    assert int(behind.headers["retry-after"]) >= 1


async def test_readings_need_a_viewer(anonymous: AsgiClient) -> None:
    assert (await anonymous.get(READINGS)).status == 401
    assert (await anonymous.signed_in("device").get(READINGS)).status == 403
    assert (await anonymous.signed_in("viewer").get(READINGS)).status == 200
