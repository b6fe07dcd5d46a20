from uuid import uuid4

from tests.http.reads.filling import Filler, Pool, Stored

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_commands.ports import StreamWrite
from smartgrid_http.testing import AsgiClient
from smartgrid_schemas.metering import MeterRegistered


async def advance(pool: Pool, projection: str, position: int) -> None:
    async with pool.connection() as conn:
        await conn.execute(
            "UPDATE projection_checkpoints SET position = %s WHERE name = %s AND log = 'telemetry'",
            (position, projection),
        )


async def test_a_receipt_tells_where_a_reading_is(client: AsgiClient, filler: Filler, pool: Pool) -> None:
    (row,) = await filler.readings("s1", [1])
    await filler.readings("s1", [2])
    await advance(pool, "aggregates", 1)

    reply = await client.get(f"/api/v1/receipts/{row.event_id}")

    body = reply.json()
    assert (reply.status, reply.headers["x-event-position"]) == (200, "telemetry@2")
    assert body.pop("recorded_at").endswith("Z")
    assert body == {
        "status": "success",
        "event_id": str(row.event_id),
        "position": "telemetry@1",
        "published": None,
        "visible_in": {"readings": True, "aggregates": True, "consumption": False},
    }


async def test_an_exchange_has_a_receipt(client: AsgiClient, store: PostgresEventStore) -> None:
    registered = StreamWrite(stream="meter:m1", events=[MeterRegistered(meter_id="m1")], expected_version=0)
    await store.append("telemetry", [registered])
    reset = await client.post("/api/v1/meters/m1/reset", {"at": "2026-01-15T09:00:00Z", "reason": "power"})

    reply = await client.get(f"/api/v1/receipts/{reset.json()['event_id']}")

    assert (reply.status, reply.json()["position"]) == (200, "telemetry@2")


async def test_what_the_caller_may_not_know_of_looks_like_nothing(
    anonymous: AsgiClient, filler: Filler, store: PostgresEventStore
) -> None:
    for meter_id, customer_id in (("m1", "c1"), ("m2", "c2")):
        event = MeterRegistered(meter_id=meter_id, customer_id=customer_id)
        await store.append("telemetry", [StreamWrite(stream=f"meter:{meter_id}", events=[event], expected_version=0)])
    seen: dict[str, str] = {}
    for subject_id in ("s1", "b7-1", "s2", "m1", "m2"):
        meter = subject_id[0] == "m"
        row = Stored(
            subject="meter" if meter else "sensor",
            subject_id=subject_id,
            measurand="1.8.0" if meter else "voltage",
            minute=1,
            event_id=uuid4(),
        )
        await filler.store(row)
        seen[subject_id] = f"/api/v1/receipts/{row.event_id}"

    async def allowed(token: str) -> list[str]:
        who = anonymous.signed_in(token)
        statuses = {name: (await who.get(path)).status for name, path in seen.items()}
        assert set(statuses.values()) <= {200, 404}
        return [name for name, status in statuses.items() if status == 200]

    assert await allowed("operator") == ["s1", "b7-1", "s2", "m1", "m2"]
    assert await allowed("viewer") == ["s1", "b7-1", "s2"]
    assert await allowed("viewer-of-c1") == ["s1", "b7-1", "s2", "m1"]
    assert await allowed("device") == ["s1", "b7-1", "m1"]
    for name in (str(uuid4()), "nothing", "x" * 300):
        reply = await anonymous.signed_in("operator").get(f"/api/v1/receipts/{name}")
        assert (reply.status, reply.json()["code"]) == (404, "not_found")
    assert (await anonymous.get(seen["s1"])).status == 401


async def test_a_receipt_waits_for_the_log(client: AsgiClient, filler: Filler) -> None:
    (row,) = await filler.readings("s1", [1])

    reply = await client.get(f"/api/v1/receipts/{row.event_id}?min_position=telemetry@9&wait_ms=0")

    assert (reply.status, reply.json()["code"]) == (503, "projection_behind")
