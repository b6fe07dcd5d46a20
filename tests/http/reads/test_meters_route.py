import csv
from datetime import datetime, timedelta
from io import StringIO
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from msgspec import json
from msgspec.structs import replace
from tests.http.reads.filling import START, Filler, Pool, Stored

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.sealing import KeySealer
from smartgrid_commands.ports import StreamWrite
from smartgrid_domain.instants import rfc3339
from smartgrid_http.testing import AsgiClient
from smartgrid_schemas.event import Sealed
from smartgrid_schemas.metering import MeterConfigured, MeterExchanged, MeterRegistered, MeterReset


class Meters:
    """Lets meters send register values."""

    def __init__(self, filler: Filler, store: PostgresEventStore) -> None:
        self._filler = filler
        self._store = store

    async def register(self, meter_id: str, customer_id: str | None = None) -> datetime:
        event = MeterRegistered(meter_id=meter_id, customer_id=customer_id)
        write = StreamWrite(stream=f"meter:{meter_id}", events=[event], expected_version=0)
        return (await self._store.append("telemetry", [write])).recorded_at

    async def read(self, meter_id: str, *values_wh: int, minute: int = 0, register: str = "1.8.0") -> list[Stored]:
        """Record one value a minute, each in its own commit."""
        rows = [
            Stored(
                subject="meter",
                subject_id=meter_id,
                measurand=register,
                minute=minute + i,
                mantissa=wh,
                exponent=0,
                event_id=uuid4(),
            )
            for i, wh in enumerate(values_wh)
        ]
        for row in rows:
            await self._filler.store(row)
        return rows


@pytest.fixture
def meters(filler: Filler, store: PostgresEventStore) -> Meters:
    return Meters(filler, store)


async def told(client: AsgiClient, meter_id: str = "m1", query: str = "") -> list[tuple[float, int | None, str | None]]:
    reply = await client.get(f"/api/v1/meters/{meter_id}/readings{query}")
    assert reply.status == 200, reply.body
    return [(row["reading"], row["consumption_wh"], row["register_state"]) for row in reply.json()["data"]]


async def test_a_meter_is_what_its_stream_and_its_readings_tell(
    client: AsgiClient, meters: Meters, store: PostgresEventStore
) -> None:
    await meters.register("m1", "c1")
    await meters.read("m1", 1000, 1400)
    await meters.read("m1", 5, register="2.8.0", minute=9)

    before = await client.get("/api/v1/meters/m1")
    after = await client.put(
        "/api/v1/meters/m1",
        {"rollover_at": 9999.9995, "nominal": 17.25, "name": "Flat 3", "expected_interval_s": 900},
        headers={"If-Match": before.headers["etag"]},
    )

    assert (before.status, before.headers["etag"], before.headers["x-event-position"]) == (200, '"v1"', "telemetry@4")
    assert before.json() == {
        "status": "success",
        "meter": {
            "meter_id": "m1",
            "customer_id": "c1",
            "registers": ["1.8.0", "2.8.0"],
            "rollover_at": None,
            "nominal": None,
            "expected_interval_s": None,
            "name": None,
            "first_seen": "2026-01-15T00:00:00Z",
            "last_seen": "2026-01-15T00:09:00Z",
            "version": 1,
        },
    }
    assert (after.status, after.headers["etag"], after.headers["x-event-position"]) == (200, '"v2"', "telemetry@5")
    assert after.json() == (await client.get("/api/v1/meters/m1")).json()
    changed = {"rollover_at": 10_000.0, "nominal": 17.25, "name": "Flat 3", "expected_interval_s": 900.0, "version": 2}
    assert after.json()["meter"] == {**before.json()["meter"], **changed}
    event = (await store.read_stream("telemetry", "meter:m1"))[1].event
    assert isinstance(event, MeterConfigured)
    assert isinstance(event.name, Sealed)
    assert isinstance(event.customer_id, Sealed)
    assert event.nominal_w == 17_250.0


async def test_null_clears_and_repeats_change_nothing(client: AsgiClient, meters: Meters) -> None:
    await meters.register("m1", "c1")
    await meters.read("m1", 1000)

    steps = [{"name": "Flat 3"}, {"name": "Flat 3"}, {"name": None, "customer_id": None}, {"customer_id": None}, {}]
    replies = [await client.put("/api/v1/meters/m1", step) for step in steps]

    assert [(r.json()["meter"]["name"], r.json()["meter"]["customer_id"], r.headers["etag"]) for r in replies] == [
        ("Flat 3", "c1", '"v2"'),
        ("Flat 3", "c1", '"v2"'),
        (None, None, '"v3"'),
        (None, None, '"v3"'),
        (None, None, '"v3"'),
    ]


BAD_SETTINGS: list[tuple[object, str, str]] = [
    ({"customer_id": "no blanks"}, "/customer_id", "bad_format"),
    ({"rollover_at": 0}, "/rollover_at", "out_of_range"),
    ({"rollover_at": 1e-9}, "/rollover_at", "out_of_range"),
    ({"nominal": -1}, "/nominal", "out_of_range"),
    ({"expected_interval_s": 4e7}, "/expected_interval_s", "out_of_range"),
    ({"name": ""}, "/name", "bad_format"),
    ({"feeder": "F1"}, "/feeder", "unknown_field"),
]
EXCHANGE = {"old_final": 1300.5, "new_initial": 0, "at": "2026-01-15T09:00:00Z", "reason": "worn out"}
BAD_EXCHANGES: list[tuple[dict[str, object], str, str]] = [
    ({"old_final": -1}, "/old_final", "out_of_range"),
    ({"new_initial": 1e13}, "/new_initial", "out_of_range"),
    ({"old_final": None}, "/old_final", "wrong_type"),
    ({"at": "2026-01-15T09:00:00"}, "/at", "timestamp_without_offset"),
    ({"at": "2026-01-15T10:36:00Z"}, "/at", "timestamp_in_future"),
    ({"at": "1969-12-31T23:59:59Z"}, "/at", "timestamp_out_of_range"),
    ({"reason": ""}, "/reason", "bad_format"),
    ({"reason": "r" * 501}, "/reason", "too_long"),
    ({"register": "r" * 33}, "/register", "too_long"),
    ({"note": 1}, "/note", "unknown_field"),
]


async def test_what_is_out_of_range_is_named(client: AsgiClient, meters: Meters) -> None:
    await meters.register("m1")
    await meters.read("m1", 1000)

    for body, pointer, code in BAD_SETTINGS:
        reply = await client.put("/api/v1/meters/m1", body)
        assert (reply.status, [(e["pointer"], e["code"]) for e in reply.json()["errors"]]) == (400, [(pointer, code)])
    for change, pointer, code in BAD_EXCHANGES:
        reply = await client.post("/api/v1/meters/m1/exchange", {**EXCHANGE, **change})
        assert (reply.status, [(e["pointer"], e["code"]) for e in reply.json()["errors"]]) == (400, [(pointer, code)])
    missing = await client.post("/api/v1/meters/m1/reset", {})
    assert [(e["pointer"], e["code"]) for e in missing.json()["errors"]] == [
        ("/at", "missing_field"),
        ("/reason", "missing_field"),
    ]
    for query in ("at=telemetry@1", "max_points=5"):
        reply = await client.get(f"/api/v1/meters/m1/readings?{query}")
        assert [e["code"] for e in reply.json()["errors"]] == ["unknown_parameter"]


async def test_an_exchange_is_recorded_once(client: AsgiClient, meters: Meters, store: PostgresEventStore) -> None:
    await meters.register("m1")
    await meters.read("m1", 1_300_000)

    first = await client.post("/api/v1/meters/m1/exchange", EXCHANGE)
    again = await client.post("/api/v1/meters/m1/exchange", {**EXCHANGE, "reason": "broken"})
    other = await client.post("/api/v1/meters/m1/exchange", {**EXCHANGE, "old_final": 1300.6})
    reset = await client.post("/api/v1/meters/m1/reset", {"at": EXCHANGE["at"], "reason": "power"})

    recorded = (await store.read_stream("telemetry", "meter:m1"))[1]
    assert recorded.event == MeterExchanged(
        meter_id="m1",
        register="1.8.0",
        at=START + timedelta(hours=9),
        old_final_wh=1_300_500,
        new_initial_wh=0,
        reason="worn out",
    )
    receipt = {"status": "success", "event_id": str(recorded.event_id), "position": "telemetry@3"}
    assert (first.status, first.json()) == (201, {**receipt, "duplicate": False})
    assert (again.status, again.json()) == (200, {**receipt, "duplicate": True})
    assert first.headers["x-event-position"] == again.headers["x-event-position"] == "telemetry@3"
    assert [(r.status, r.json()["code"]) for r in (other, reset)] == [(409, "meter_conflict")] * 2


async def test_an_unknown_meter_is_not_found(client: AsgiClient) -> None:
    for method, path, body in (
        ("GET", "", None),
        ("GET", "/latest", None),
        ("GET", "/readings", None),
        ("PUT", "", {"nominal": 1}),
        ("POST", "/exchange", EXCHANGE),
        ("POST", "/reset", {"at": EXCHANGE["at"], "reason": "power"}),
    ):
        more = {} if body is None else {"json": body}
        reply = await client.request(method, f"/api/v1/meters/m9{path}", **more)  # type: ignore[arg-type]  # a body or none
        assert (reply.status, reply.json()["code"]) == (404, "not_found"), path


async def test_readings_tell_what_they_counted(client: AsgiClient, meters: Meters) -> None:
    await meters.register("m1")
    await client.put("/api/v1/meters/m1", {"rollover_at": 10})
    await meters.read("m1", 9_500, 9_600, 50, 40)  # up, over, down
    await meters.read("m1", 9_700, minute=1_000 - 440)  # 09:20

    assert await told(client) == [
        (9.5, None, "first"),
        (9.6, 100, "normal"),
        (0.05, 450, "rollover"),
        (0.04, None, "reset_suspected"),
        (9.7, 9_650, "normal"),
    ]


async def test_an_exchange_splits_and_a_late_reading_is_recounted(client: AsgiClient, meters: Meters) -> None:
    await meters.register("m1")
    await meters.read("m1", 1_000)
    await meters.read("m1", 200, minute=4)
    assert (await told(client))[1] == (0.2, None, "reset_suspected")

    at = rfc3339(START + timedelta(minutes=2))
    change = await client.post(
        "/api/v1/meters/m1/exchange", {"old_final": 1.1, "new_initial": 0.05, "at": at, "reason": "worn out"}
    )
    await meters.read("m1", 1_030, minute=1)

    assert await told(client) == [(1.0, None, "first"), (1.03, 30, "late"), (0.2, 220, "exchanged")]
    taken = await client.post(f"/api/v1/readings/{change.json()['event_id']}/retract", {"reason": "wrong meter"})
    assert taken.status == 200
    assert (await told(client))[2] == (0.2, None, "reset_suspected")


async def test_rows_are_answered_in_the_shape_of_the_api(client: AsgiClient, meters: Meters, filler: Filler) -> None:
    await meters.register("m1", "c1")
    (first, second) = await meters.read("m1", 1_250_750, 1_251_000)
    correction = replace(second, revision=1, event_id=uuid4(), mantissa=1_250_900, quality=4)
    await filler.store(correction)

    reply = await client.get("/api/v1/meters/m1/readings?versions=all")

    rows = reply.json()["data"]
    assert reply.headers["x-event-position"] == "telemetry@4"
    assert rows[0] == {
        "event_id": str(first.event_id),
        "meter_id": "m1",
        "register": "1.8.0",
        "timestamp": "2026-01-15T00:00:00Z",
        "reading": 1250.75,
        "unit": "kWh",
        "consumption_wh": None,
        "register_state": "first",
        "quality": "measured",
        "seq": None,
        "recorded_at": rows[0]["recorded_at"],
        "position": "telemetry@2",
        "superseded": False,
        "corrects": None,
        "retracted": False,
    }
    assert [(r["reading"], r["consumption_wh"], r["superseded"], r["corrects"]) for r in rows[1:]] == [
        (1251.0, None, True, None),
        (1250.9, 150, False, str(second.event_id)),
    ]


async def test_readings_come_in_pages_and_whole(client: AsgiClient, meters: Meters) -> None:
    await meters.register("m1")
    await meters.read("m1", *range(0, 500, 100))
    await meters.read("m1", 7, register="2.8.0")
    whole = (await client.get("/api/v1/meters/m1/readings?register=1.8.0")).json()["data"]

    walked: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await client.get(f"/api/v1/meters/m1/readings?register=1.8.0&limit=2{cursor}")).json()
        walked += page["data"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    lines = await client.get(
        "/api/v1/meters/m1/readings?register=1.8.0&order=desc", headers={"Accept": "application/x-ndjson"}
    )
    table = await client.get("/api/v1/meters/m1/readings?register=1.8.0", headers={"Accept": "text/csv"})

    assert len(whole) == 5
    assert walked == whole
    assert [json.decode(line) for line in lines.body.splitlines()] == whole[::-1]
    assert [row["consumption_wh"] for row in csv.DictReader(StringIO(table.body.decode(), newline=""))] == [
        "",
        *["100"] * 4,
    ]


async def test_the_latest_of_each_register(client: AsgiClient, meters: Meters, filler: Filler) -> None:
    await meters.register("m1")
    (_, newest) = await meters.read("m1", 1_000, 1_100)
    (other,) = await meters.read("m1", 5, register="2.8.0")
    (gone,) = await meters.read("m1", 2_000, minute=7)
    await filler.retract(gone)

    rows = (await client.get("/api/v1/meters/m1/latest")).json()["data"]
    one = (await client.get("/api/v1/meters/m1/latest?register=2.8.0")).json()["data"]

    assert [(row["event_id"], row["consumption_wh"]) for row in rows] == [
        (str(newest.event_id), 100),
        (str(other.event_id), None),
    ]
    assert [row["event_id"] for row in one] == [str(other.event_id)]


async def link(pool: Pool, sealer: KeySealer, meter_id: str, customer_id: str) -> None:
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO meter_links_v1 (meter_id, since_us, until_us, customer) VALUES (%s, 0, %s, %s)",
            (meter_id, 2**63 - 1, sealer.lookup("customer", customer_id)),
        )


async def test_a_viewer_sees_only_the_meters_of_the_own_customer(  # fixtures
    anonymous: AsgiClient, client: AsgiClient, meters: Meters, pool: Pool, sealer: KeySealer
) -> None:
    viewer, stranger = anonymous.signed_in("viewer-of-c1"), anonymous.signed_in("viewer")
    for meter_id, customer_id in (("m1", "c1"), ("m2", "c2"), ("m3", None), ("m4", "c1")):
        await meters.register(meter_id, customer_id)
        await meters.read(meter_id, 1_000)
        if customer_id:
            await link(pool, sealer, meter_id, customer_id)
    await client.put("/api/v1/meters/m4", {"customer_id": "c2"})  # the index of links has not heard of it yet

    async def listed(who: AsgiClient, query: str = "") -> list[str]:
        return [m["meter_id"] for m in (await who.get(f"/api/v1/meters{query}")).json()["data"]]

    assert await listed(client) == ["m1", "m2", "m3", "m4"]
    assert await listed(anonymous.signed_in("analyst"), "?limit=2") == ["m1", "m2"]
    assert await listed(viewer) == await listed(viewer, "?limit=1") == ["m1"]
    assert await listed(stranger) == []
    lines = await viewer.get("/api/v1/meters", headers={"Accept": "application/x-ndjson"})
    assert [json.decode(line)["meter_id"] for line in lines.body.splitlines()] == ["m1"]
    table = await client.get("/api/v1/meters?limit=3", headers={"Accept": "text/csv"})
    assert [line.split(b",")[:3] for line in table.body.splitlines()[1:]] == [
        [b"m1", b"c1", b"1.8.0"],
        [b"m2", b"c2", b"1.8.0"],
        [b"m3", b"", b"1.8.0"],
    ]
    page = (await client.get("/api/v1/meters?limit=3")).json()
    assert [m["meter_id"] for m in page["data"]] == ["m1", "m2", "m3"]
    assert await listed(client, f"?cursor={page['next_cursor']}") == ["m4"]
    for path in ("", "/latest", "/readings"):
        assert (await viewer.get(f"/api/v1/meters/m1{path}")).status == 200
        for foreign in ("m2", "m3", "m4", "m9"):
            reply = await viewer.get(f"/api/v1/meters/{foreign}{path}")
            assert (reply.status, reply.json()["code"]) == (404, "not_found")
        assert (await stranger.get(f"/api/v1/meters/m1{path}")).status == 404
    for path in ("/exchange", "/reset"):
        assert (await anonymous.signed_in("analyst").post(f"/api/v1/meters/m1{path}", {})).status == 403


async def test_a_viewer_sees_nothing_of_the_time_before_the_link(
    anonymous: AsgiClient, client: AsgiClient, meters: Meters
) -> None:
    since = await meters.register("m1", "c1")
    minute = int((since - START).total_seconds() // 60)
    await meters.read("m1", 1_000, 1_100, minute=minute - 1)
    (_, newest) = await meters.read("m1", 1_300, 1_700, minute=minute + 1)
    span = f"?from={quote(rfc3339(START))}&to={quote(rfc3339(START + timedelta(minutes=minute + 9)))}"
    viewer = anonymous.signed_in("viewer-of-c1")

    assert await told(client, query=span) == [
        (1.0, None, "first"),
        (1.1, 100, "normal"),
        (1.3, 200, "normal"),
        (1.7, 400, "normal"),
    ]
    assert await told(viewer, query=span) == [(1.3, None, "first"), (1.7, 400, "normal")]
    latest = (await viewer.get("/api/v1/meters/m1/latest")).json()["data"]
    assert [row["event_id"] for row in latest] == [str(newest.event_id)]


async def test_a_reset_starts_the_register_again(client: AsgiClient, meters: Meters, store: PostgresEventStore) -> None:
    await meters.register("m1")
    await meters.read("m1", 1_000, 30)

    at = START + timedelta(seconds=30)
    reply = await client.post("/api/v1/meters/m1/reset", {"at": rfc3339(at), "reason": "power failure"})

    assert reply.status == 201
    assert await told(client) == [(1.0, None, "first"), (0.03, 30, "exchanged")]
    event = (await store.read_stream("telemetry", "meter:m1"))[1].event
    assert event == MeterReset(meter_id="m1", register="1.8.0", at=at, reason="power failure")
