import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

from msgspec.structs import replace
from tests.http.reads.filling import START, Filler, Pool, Stored

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.facts import PostgresFacts
from smartgrid_commands.ports import StreamWrite
from smartgrid_commands.retracting import RegisteredReading
from smartgrid_http.services import Services
from smartgrid_http.testing import AsgiClient, Reply
from smartgrid_schemas.metering import MeterReadingRetracted, MeterRegistered
from smartgrid_schemas.telemetry import ReadingRetracted

WHY = {"reason": "wrong sensor"}
EXCHANGE = {"old_final": 1300.5, "new_initial": 0, "at": "2026-01-15T09:00:00Z", "reason": "worn out"}


def path(event_id: object) -> str:
    return f"/api/v1/readings/{event_id}/retract"


async def rows_of(pool: Pool, event_id: UUID) -> list[tuple[int, str]]:
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT position, reason FROM reading_retractions WHERE event_id = %s", (event_id,))
        return await cursor.fetchall()


async def test_a_retracted_reading_no_longer_counts_and_stays_visible(
    client: AsgiClient, filler: Filler, pool: Pool, store: PostgresEventStore
) -> None:
    (row,) = await filler.readings("s1", [1], phase="L1", seq=4)

    first = await client.post(path(row.event_id), WHY)
    again = await client.post(path(row.event_id), {"reason": "another"})

    answer = {"status": "success", "event_id": str(row.event_id), "position": "telemetry@2"}
    assert [(r.status, r.json(), r.headers["x-event-position"]) for r in (first, again)] == [
        (200, answer, "telemetry@2")
    ] * 2
    assert await rows_of(pool, row.event_id) == [(2, "wrong sensor")]
    (recorded,) = await store.read_log("telemetry", after=1)
    assert recorded.stream == "readings:0"
    assert recorded.event == ReadingRetracted(
        event_id=str(row.event_id),
        sensor_id="s1",
        sensor_type="voltage",
        phase="L1",
        measured_at=START + timedelta(minutes=1),
        seq=4,
        reason="wrong sensor",
    )
    assert recorded.metadata.actor == "user:u-operator"
    latest = (await client.get("/api/v1/readings?sensor_id=s1")).json()["data"]
    every = (await client.get("/api/v1/readings?sensor_id=s1&versions=all")).json()["data"]
    assert (latest, [(r["retracted"], r["superseded"]) for r in every]) == ([], [(True, False)])


async def test_a_meter_reading_is_retracted_on_the_stream_of_its_shard(
    client: AsgiClient, filler: Filler, store: PostgresEventStore
) -> None:
    row = Stored(subject="meter", subject_id="m1", measurand="1.8.0", minute=1, event_id=uuid4())
    await filler.store(row)

    reply = await client.post(path(row.event_id), WHY)

    assert reply.status == 200
    (recorded,) = await store.read_log("telemetry", after=1)
    assert recorded.stream == "registers:15"
    assert recorded.event == MeterReadingRetracted(
        event_id=str(row.event_id),
        kind="reading",
        meter_id="m1",
        register="1.8.0",
        measured_at=row.measured_at,
        reason="wrong sensor",
    )


async def test_only_the_newest_reading_of_a_key_is_retracted(client: AsgiClient, filler: Filler) -> None:
    (first,) = await filler.readings("s1", [1])
    second = replace(first, revision=1, event_id=uuid4())
    await filler.store(second)

    old = await client.post(path(first.event_id), WHY)
    new = await client.post(path(second.event_id), WHY)

    assert (old.status, old.json()["code"]) == (409, "correction_conflict")
    assert new.status == 200


async def test_a_key_that_came_back_is_retracted_by_its_new_id(client: AsgiClient, filler: Filler) -> None:
    (first,) = await filler.readings("s1", [1])
    assert (await client.post(path(first.event_id), WHY)).json()["position"] == "telemetry@2"
    second = replace(first, revision=1, event_id=uuid4())
    await filler.store(second)

    again = await client.post(path(first.event_id), WHY)
    new = await client.post(path(second.event_id), WHY)

    assert [(r.status, r.json()["position"]) for r in (again, new)] == [(200, "telemetry@2"), (200, "telemetry@4")]


async def test_what_is_not_there_or_not_allowed_is_refused(
    client: AsgiClient, filler: Filler, anonymous: AsgiClient
) -> None:
    (row,) = await filler.readings("s1", [1])

    for name in (uuid4(), "no-id", f"{{{row.event_id}}}", row.event_id.hex):
        reply = await client.post(path(name), WHY)
        assert (reply.status, reply.json()["code"]) == (404, "not_found"), name
    for body, pointer, code in (
        ({}, "/reason", "missing_field"),
        ({"reason": ""}, "/reason", "bad_format"),
        ({"reason": "r" * 501}, "/reason", "too_long"),
        ({"reason": None}, "/reason", "wrong_type"),
        ({"reason": "x", "by": "me"}, "/by", "unknown_field"),
    ):
        reply = await client.post(path(row.event_id), body)
        assert (reply.status, [(e["pointer"], e["code"]) for e in reply.json()["errors"]]) == (400, [(pointer, code)])
    assert (await anonymous.post(path(row.event_id), WHY)).status == 401
    assert (await anonymous.signed_in("analyst").post(path(row.event_id), WHY)).status == 403
    assert (await client.post(path(row.event_id), WHY)).status == 200


async def test_of_many_who_retract_one_reading_one_event_comes(
    client: AsgiClient, filler: Filler, pool: Pool, store: PostgresEventStore
) -> None:
    (row,) = await filler.readings("s1", [1])

    replies = await asyncio.gather(*(client.post(path(row.event_id), WHY) for _ in range(12)))

    assert {(reply.status, reply.json()["position"]) for reply in replies} == {(200, "telemetry@2")}
    assert await store.head("telemetry") == 2
    assert await rows_of(pool, row.event_id) == [(2, "wrong sensor")]


async def test_a_correction_that_comes_first_is_noticed_under_the_lock(
    client: AsgiClient, filler: Filler, pool: Pool, services: Services, store: PostgresEventStore
) -> None:
    (row,) = await filler.readings("s1", [1])

    class Slow(PostgresFacts):
        """Lets a correction in between looking and storing."""

        looks = 0

        async def reading(self, event_id: UUID) -> RegisteredReading | None:
            found = await super().reading(event_id)
            self.looks += 1
            if self.looks == 1:
                await filler.store(replace(row, revision=1, event_id=uuid4()))
            return found

    services.facts = slow = Slow(pool)
    reply = await client.post(path(row.event_id), WHY)

    assert (reply.status, reply.json()["code"], slow.looks) == (409, "correction_conflict", 2)
    assert await rows_of(pool, row.event_id) == []
    assert await store.head("telemetry") == 2


async def test_an_exchange_is_retracted_once_and_may_be_recorded_anew(
    client: AsgiClient, filler: Filler, store: PostgresEventStore
) -> None:
    registered = StreamWrite(stream="meter:m1", events=[MeterRegistered(meter_id="m1")], expected_version=0)
    await store.append("telemetry", [registered])
    await filler.store(Stored(subject="meter", subject_id="m1", measurand="1.8.0", minute=1, event_id=uuid4()))
    first = (await client.post("/api/v1/meters/m1/exchange", EXCHANGE)).json()

    taken = await client.post(path(first["event_id"]), WHY)
    again = await client.post(path(first["event_id"]), WHY)
    second = await client.post("/api/v1/meters/m1/exchange", {**EXCHANGE, "old_final": 1300.6})
    late = await client.post(path(first["event_id"]), WHY)
    reset = await client.post("/api/v1/meters/m1/reset", {"at": "2026-01-15T09:30:00Z", "reason": "power"})
    gone = await client.post(path(reset.json()["event_id"]), WHY)

    assert [(r.status, r.json()["position"]) for r in (taken, again, late)] == [(200, "telemetry@4")] * 3
    assert (second.status, second.json()["duplicate"]) == (201, False)
    assert second.json()["event_id"] != first["event_id"]
    assert (gone.status, gone.json()["position"]) == (200, "telemetry@7")
    events = [recorded.event for recorded in await store.read_stream("telemetry", "meter:m1")]
    assert events[2] == MeterReadingRetracted(
        event_id=first["event_id"],
        kind="exchange",
        meter_id="m1",
        register="1.8.0",
        measured_at=START + timedelta(hours=9),
        reason="wrong sensor",
    )
    assert isinstance(events[-1], MeterReadingRetracted)
    assert events[-1].kind == "reset"


async def test_a_key_gives_the_first_answer_again(
    client: AsgiClient, filler: Filler, store: PostgresEventStore
) -> None:
    registered = StreamWrite(stream="meter:m1", events=[MeterRegistered(meter_id="m1")], expected_version=0)
    await store.append("telemetry", [registered])
    (row,) = await filler.readings("s1", [1])
    reset = {"at": "2026-01-15T09:30:00Z", "reason": "power"}

    async def keyed(key: str, url: str, body: object) -> Reply:
        return await client.post(url, body, headers={"Idempotency-Key": key})

    async def twice(key: str, url: str, body: object) -> tuple[int, int, str | None, bool]:
        first, again = await keyed(key, url, body), await keyed(key, url, body)
        replayed = again.headers.get("idempotency-replayed")
        return first.status, again.status, replayed, first.body == again.body

    at_exchange = {**reset, "at": EXCHANGE["at"]}
    assert await twice("k1", "/api/v1/meters/m1/exchange", EXCHANGE) == (201, 201, "true", True)
    assert await twice("k2", "/api/v1/meters/m1/reset", reset) == (201, 201, "true", True)
    assert await twice("k3", path(row.event_id), WHY) == (200, 200, "true", True)
    assert await twice("k4", "/api/v1/meters/m1/reset", at_exchange) == (409, 409, "true", True)
    other = await keyed("k1", "/api/v1/meters/m1/exchange", {**EXCHANGE, "old_final": 1})
    assert (other.status, other.json()["code"]) == (422, "idempotency_key_reused")
    assert (await keyed("k5", "/api/v1/meters/m1/reset", {})).status == 400
    assert (await keyed("k5", "/api/v1/meters/m1/reset", {**reset, "register": "2.8.0"})).status == 201
