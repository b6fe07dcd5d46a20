from collections.abc import AsyncIterator
from typing import Any

import msgspec
import psycopg
import pytest
from tests.http.reads.filling import Pool

from smartgrid_adapters.postgres.audit import PostgresChains
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.flush import PostgresReadingStore
from smartgrid_adapters.postgres.queries.events import PostgresEvents
from smartgrid_adapters.sealing import KeySealer
from smartgrid_commands.ingestion import Ingestion
from smartgrid_http.app import build_app
from smartgrid_http.services import Services
from smartgrid_http.testing import AsgiClient

EVENTS = "/api/v1/admin/events"
VERIFY = "/api/v1/admin/audit/verify"
READING = {"sensor_id": "s1", "sensor_type": "power", "value": 1.25, "location": {"lat": 41.0, "lon": 19.0}}
METER = {"meter_id": "m1", "customer_id": "a-secret-customer", "reading": 1250.75}


@pytest.fixture
async def admin(
    services: Services, pool: Pool, store: PostgresEventStore, sealer: KeySealer
) -> AsyncIterator[AsgiClient]:
    """An admin, after a reading of a sensor and one of a meter were posted."""
    readings = PostgresReadingStore(pool, store, sealer=sealer)
    services.ingestion = Ingestion(readings, services.clock)
    services.events, services.chains = PostgresEvents(pool), PostgresChains(pool)
    anyone = AsgiClient(build_app(services))
    operator = anyone.signed_in("operator")
    for kind, body in (("sensor", READING), ("meter", METER)):
        reply = await operator.post(f"/api/v1/ingest/{kind}", body, headers={"X-Request-ID": f"req-{kind}"})
        assert reply.status == 201, reply.body
    yield anyone.signed_in("admin")
    await readings.stop()


async def listed(client: AsgiClient, query: str = "") -> dict[str, Any]:
    reply = await client.get(f"{EVENTS}{query}")
    assert reply.status == 200, reply.body
    answer: dict[str, Any] = reply.json()
    return answer


async def test_every_event_tells_who_and_what_led_to_it(admin: AsgiClient) -> None:
    answer = await listed(admin)

    assert [(row["position"], row["type"], row["stream"], row["version"]) for row in answer["data"]] == [
        ("telemetry@1", "telemetry.sensor-registered.v1", "sensor:s1", 1),
        ("telemetry@2", "telemetry.readings-recorded.v1", "readings:0", 1),
        ("telemetry@3", "metering.meter-registered.v1", "meter:m1", 1),
        ("telemetry@4", "metering.readings-recorded.v1", "registers:15", 1),
    ]
    assert [row["correlation_id"] for row in answer["data"]] == ["req-sensor"] * 2 + ["req-meter"] * 2
    assert [row["causation_id"] for row in answer["data"]] == ["req-sensor"] * 2 + ["req-meter"] * 2
    assert {row["actor"] for row in answer["data"]} == {"user:u-operator"}
    assert answer["data"][0]["data"] == {"sensor_id": "s1", "location": {"lat": 41.0, "lon": 19.0}}
    assert answer["next_after"] == 4


async def test_what_is_personal_is_not_shown(admin: AsgiClient) -> None:
    reply = await admin.get(EVENTS)

    assert b"secret-customer" not in reply.body
    assert reply.json()["data"][2]["data"] == {"meter_id": "m1", "customer_id": {"sealed": True}}


async def test_a_walk_sees_each_event_once_and_waits_at_the_end(admin: AsgiClient) -> None:
    seen: list[str] = []
    after = 0
    for _ in range(5):
        answer = await listed(admin, f"?after={after}&limit=1")
        seen += [row["position"] for row in answer["data"]]
        after = answer["next_after"]

    assert seen == [f"telemetry@{position}" for position in (1, 2, 3, 4)]
    assert after == 4


async def test_events_are_chosen_by_name_and_stream(admin: AsgiClient) -> None:
    by_name = await listed(admin, "?type=metering.meter-registered.v1")
    by_stream = await listed(admin, "?stream=sensor:s1")
    other_log = await listed(admin, "?log=identity")

    assert [row["position"] for row in by_name["data"]] == ["telemetry@3"]
    assert [row["position"] for row in by_stream["data"]] == ["telemetry@1"]
    assert (by_stream["next_after"], other_log["data"], other_log["next_after"]) == (4, [], 0)


async def test_a_whole_log_is_sent_as_lines(admin: AsgiClient) -> None:
    rows = (await listed(admin))["data"]

    lines = await admin.get(f"{EVENTS}?limit=1", headers={"accept": "application/x-ndjson"})
    csv = await admin.get(EVENTS, headers={"accept": "text/csv"})

    assert [msgspec.json.decode(line) for line in lines.body.splitlines()] == rows
    head, *cells = csv.body.decode().split("\r\n")
    assert head.startswith("position,event_id,stream,version,type,recorded_at,actor,")
    assert [line.split(",")[0] for line in cells] == [*(row["position"] for row in rows), ""]


async def test_bytes_that_are_no_event_are_listed_without_fields(admin: AsgiClient, database: str) -> None:
    async with await psycopg.AsyncConnection.connect(database) as conn:
        await conn.execute("SET session_replication_role = replica")
        await conn.execute("UPDATE telemetry_events SET state = 'x', metadata = 'x' WHERE notification_id = 2")

    row = (await listed(admin))["data"][1]

    assert (row["data"], row["actor"], row["correlation_id"], row["type"]) == (
        None,
        None,
        None,
        "telemetry.readings-recorded.v1",
    )


async def test_a_good_log_is_verified(admin: AsgiClient) -> None:
    reply = await admin.post(VERIFY, {})

    told = reply.json()
    assert (reply.status, told["ok"], told["first_bad"], told["logs"]["telemetry"]["events"]) == (200, True, None, 4)
    assert len(told["logs"]["telemetry"]["head"]) == 64
    assert told["logs"]["operations"] == {"events": 0, "head": None}


async def test_a_changed_row_is_named(admin: AsgiClient, database: str) -> None:
    async with await psycopg.AsyncConnection.connect(database) as conn:
        await conn.execute("SET session_replication_role = replica")
        await conn.execute("UPDATE telemetry_events SET state = state || '\\x00'::bytea WHERE notification_id = 3")

    told = (await admin.post(VERIFY, {})).json()

    assert (told["status"], told["ok"]) == ("success", False)
    assert (told["first_bad"]["log"], told["first_bad"]["position"], told["first_bad"]["reason"]) == (
        "telemetry",
        3,
        "altered",
    )


async def test_only_an_admin_may_look(admin: AsgiClient) -> None:
    operator = admin.signed_in("operator")

    assert (await operator.get(EVENTS)).status == 403
    assert (await operator.post(VERIFY, {})).status == 403
    assert (await admin.post(VERIFY, {"log": "telemetry"})).status == 400
    assert (await admin.get(f"{EVENTS}?log=audit")).status == 400
