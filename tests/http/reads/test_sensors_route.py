import asyncio
import csv
from io import StringIO

from tests.http.reads.filling import Filler

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_http.testing import AsgiClient
from smartgrid_schemas.telemetry import Location, SensorConfigured, SensorRegistered

TIRANA = Location(lat=41.3275, lon=19.8187)


async def seen(filler: Filler, sensor_id: str, *minutes: int, **more: object) -> None:
    """Let a sensor send its first readings."""
    await filler.append(f"sensor:{sensor_id}", SensorRegistered(sensor_id=sensor_id, location=TIRANA))
    await filler.readings(sensor_id, minutes or (0,), **more)


async def listed(client: AsgiClient, query: str = "") -> list[str]:
    reply = await client.get(f"/api/v1/sensors{query}")
    assert reply.status == 200, reply.body
    return [sensor["sensor_id"] for sensor in reply.json()["data"]]


async def test_a_sensor_is_what_its_stream_and_its_readings_tell(client: AsgiClient, filler: Filler) -> None:
    await seen(filler, "s1", 5, 2)
    await filler.readings("s1", [9], measurand="current", phase="L1")

    reply = await client.get("/api/v1/sensors/s1")

    assert (reply.status, reply.headers["etag"], reply.headers["x-event-position"]) == (200, '"v1"', "telemetry@3")
    assert reply.json() == {
        "status": "success",
        "sensor": {
            "sensor_id": "s1",
            "types": ["current", "voltage"],
            "location": {"lat": 41.3275, "lon": 19.8187},
            "nominal": None,
            "expected_interval_s": None,
            "name": None,
            "feeder": None,
            "first_seen": "2026-01-15T00:02:00Z",
            "last_seen": "2026-01-15T00:09:00Z",
            "version": 1,
        },
    }
    for path in ("s2", "s", "S1", "%20", "s1%0A"):
        assert (await client.get(f"/api/v1/sensors/{path}")).status == 404


async def test_settings_change_by_put(client: AsgiClient, filler: Filler, store: PostgresEventStore) -> None:
    await seen(filler, "s1")

    first = await client.put("/api/v1/sensors/s1", {"nominal": 230, "name": "Bay 7", "feeder": "F1"})
    same = await client.put("/api/v1/sensors/s1", {"nominal": 230.0})
    second = await client.put(
        "/api/v1/sensors/s1",
        {"name": None, "location": None, "expected_interval_s": 60},
        headers={"If-Match": '"v9", "v2"'},
    )

    assert [(r.status, r.headers["etag"], r.headers["x-event-position"]) for r in (first, same, second)] == [
        (200, '"v2"', "telemetry@3"),
        (200, '"v2"', "telemetry@3"),
        (200, '"v3"', "telemetry@4"),
    ]
    assert second.json() == (await client.get("/api/v1/sensors/s1")).json()
    history = await store.read_stream("telemetry", "sensor:s1")
    assert [recorded.event for recorded in history[1:]] == [
        SensorConfigured(sensor_id="s1", location=TIRANA, nominal=230.0, name="Bay 7", feeder="F1"),
        SensorConfigured(sensor_id="s1", nominal=230.0, expected_interval_s=60.0, feeder="F1"),
    ]
    assert {recorded.metadata.actor for recorded in history[1:]} == {"user:u-operator"}
    assert all(recorded.metadata.correlation_id for recorded in history[1:])


async def test_a_put_that_cannot_be_is_refused(client: AsgiClient, filler: Filler, anonymous: AsgiClient) -> None:
    await seen(filler, "s1")

    async def refusal(body: object, headers: dict[str, str] | None = None) -> tuple[int, str]:
        reply = await client.put("/api/v1/sensors/s1", body, headers=headers)
        return reply.status, reply.json()["code"]

    for body, pointer, code in (
        ({"nominal": 0}, "/nominal", "out_of_range"),
        ({"nominal": "230"}, "/nominal", "wrong_type"),
        ({"expected_interval_s": -1}, "/expected_interval_s", "out_of_range"),
        ({"name": ""}, "/name", "bad_format"),
        ({"name": "n" * 101}, "/name", "too_long"),
        ({"feeder": "f" * 101}, "/feeder", "too_long"),
        ({"location": {"lat": 91, "lon": 0}}, "/location/lat", "out_of_range"),
        ({"location": {"lat": 0}}, "/location/lon", "missing_field"),
        ({"sensor_id": "s2"}, "/sensor_id", "unknown_field"),
    ):
        reply = await client.put("/api/v1/sensors/s1", body)
        assert (reply.status, [(e["pointer"], e["code"]) for e in reply.json()["errors"]]) == (400, [(pointer, code)])
    assert await refusal([]) == (400, "validation_failed")
    assert await refusal({}, headers={"If-Match": "v1"}) == (400, "validation_failed")
    for tags in ('"v2"', 'W/"v1"', '"1"', '""'):
        assert await refusal({"nominal": 1}, headers={"If-Match": tags}) == (412, "etag_mismatch"), tags
    for tags in ("*", '"v1"', '"x", "v1"'):
        assert (await client.put("/api/v1/sensors/s1", {}, headers={"If-Match": tags})).status == 200, tags
    assert (await client.put("/api/v1/sensors/s2", {"nominal": 1}, headers={"If-Match": '"v1"'})).status == 404
    assert (await anonymous.put("/api/v1/sensors/s1", {})).status == 401
    assert (await anonymous.signed_in("analyst").put("/api/v1/sensors/s1", {})).status == 403


async def test_of_those_who_saw_one_version_only_one_changes_it(client: AsgiClient, filler: Filler) -> None:
    await seen(filler, "s1")

    replies = await asyncio.gather(
        *(client.put("/api/v1/sensors/s1", {"nominal": n}, headers={"If-Match": '"v1"'}) for n in range(1, 6))
    )

    assert sorted(reply.status for reply in replies) == [200, 412, 412, 412, 412]


async def test_those_who_do_not_mind_the_version_all_have_their_way_or_may_repeat(
    client: AsgiClient, filler: Filler, store: PostgresEventStore
) -> None:
    await seen(filler, "s1")

    replies = await asyncio.gather(*(client.put("/api/v1/sensors/s1", {"nominal": n}) for n in range(1, 9)))

    done = [reply for reply in replies if reply.status == 200]
    assert {(r.status, r.json()["code"]) for r in replies if r not in done} <= {(409, "version_conflict")}
    assert len(await store.read_stream("telemetry", "sensor:s1")) == 1 + len(done)


async def test_sensors_are_listed_by_id_page_by_page(client: AsgiClient, filler: Filler) -> None:
    for name in ("b7-2", "a1", "b7-1", "B7-9", "c"):
        await seen(filler, name)
    await filler.readings("c", [0], measurand="power")
    await filler.readings("unregistered", [0])

    assert await listed(client) == ["B7-9", "a1", "b7-1", "b7-2", "c"]
    assert await listed(client, "?prefix=b7-") == ["b7-1", "b7-2"]
    assert await listed(client, "?prefix=%25") == []
    assert await listed(client, "?sensor_type=power") == ["c"]
    first = (await client.get("/api/v1/sensors?limit=2")).json()
    await seen(filler, "a0")
    second = (await client.get(f"/api/v1/sensors?limit=2&cursor={first['next_cursor']}")).json()
    third = (await client.get(f"/api/v1/sensors?limit=2&cursor={second['next_cursor']}")).json()
    pages = [[sensor["sensor_id"] for sensor in page["data"]] for page in (first, second, third)]
    assert pages == [["B7-9", "a1"], ["b7-1", "b7-2"], ["c"]]
    assert third["next_cursor"] is None


async def test_sensors_are_listed_as_csv_too(client: AsgiClient, filler: Filler) -> None:
    await seen(filler, "s1")
    await client.put("/api/v1/sensors/s1", {"name": "=1+1"})
    await filler.readings("s1", [0], measurand="power")

    reply = await client.get("/api/v1/sensors", headers={"Accept": "text/csv"})

    (row,) = csv.DictReader(StringIO(reply.body.decode(), newline=""))
    assert row == {
        "sensor_id": "s1",
        "types": "power voltage",
        "lat": "41.3275",
        "lon": "19.8187",
        "nominal": "",
        "expected_interval_s": "",
        "name": "'=1+1",
        "feeder": "",
        "first_seen": "2026-01-15T00:00:00Z",
        "last_seen": "2026-01-15T00:00:00Z",
        "version": "2",
    }


async def test_the_latest_of_each_type_and_phase(client: AsgiClient, filler: Filler) -> None:
    await seen(filler, "s1", 1, 2)
    (newest,) = await filler.readings("s1", [3])
    (current,) = await filler.readings("s1", [1], measurand="current")
    (gone,) = await filler.readings("s1", [9])
    await filler.retract(gone)

    reply = await client.get("/api/v1/sensors/s1/latest?min_position=telemetry@6&wait_ms=0")

    assert [row["event_id"] for row in reply.json()["data"]] == [str(current.event_id), str(newest.event_id)]
    assert reply.headers["x-event-position"] == "telemetry@6"
    assert (await client.get("/api/v1/sensors/nobody/latest")).json()["data"] == []
    for query in ("at=telemetry@1", "sensor_type=voltage"):
        bad = await client.get(f"/api/v1/sensors/s1/latest?{query}")
        assert (bad.status, bad.json()["errors"][0]["code"]) == (400, "unknown_parameter")
