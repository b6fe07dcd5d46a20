"""What was posted is what is read, at once: the ingestion of readings and these routes on one log."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.http.reads.filling import Pool

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.flush import PostgresReadingStore
from smartgrid_adapters.sealing import KeySealer
from smartgrid_commands.ingestion import Ingestion
from smartgrid_http.app import build_app
from smartgrid_http.services import Services
from smartgrid_http.testing import AsgiClient

READING = {
    "sensor_id": "s1",
    "sensor_type": "power",
    "value": 1.25,
    "unit": "kW",
    "location": {"lat": 41.3275, "lon": 19.8187},
    "timestamp": "2026-01-15T10:00:00.5Z",
    "phase": "total",
    "seq": 3,
}
VALUE = {"meter_id": "m1", "customer_id": "c1", "reading": 1250.75, "timestamp": "2026-01-15T10:00:00Z"}


@pytest.fixture
async def operator(
    services: Services, pool: Pool, store: PostgresEventStore, sealer: KeySealer
) -> AsyncIterator[AsgiClient]:
    readings = PostgresReadingStore(pool, store, sealer=sealer)
    services.ingestion = Ingestion(readings, services.clock)
    yield AsgiClient(build_app(services)).signed_in("operator")
    await readings.stop()


async def ingest(client: AsgiClient, kind: str, body: dict[str, Any], **more: object) -> dict[str, Any]:
    reply = await client.post(f"/api/v1/ingest/{kind}", {**body, **more})
    assert reply.status in (200, 201), reply.body
    answer: dict[str, Any] = reply.json()
    return answer


async def rows(client: AsgiClient, path: str, posted: dict[str, Any]) -> list[dict[str, Any]]:
    mark = "&" if "?" in path else "?"
    reply = await client.get(f"/api/v1{path}{mark}min_position={posted['position']}")
    assert reply.status == 200, reply.body
    data: list[dict[str, Any]] = reply.json()["data"]
    return data


async def test_a_posted_reading_is_read_in_the_canonical_unit(operator: AsgiClient) -> None:
    posted = await ingest(operator, "sensor", READING)

    (row,) = await rows(operator, "/readings?sensor_id=s1", posted)
    sensor = (await operator.get("/api/v1/sensors/s1")).json()["sensor"]
    receipt = (await operator.get(f"/api/v1/receipts/{posted['event_id']}")).json()

    assert row["event_id"] == receipt["event_id"] == posted["event_id"]
    assert row["position"] == receipt["position"] == posted["position"]
    assert row["recorded_at"] == receipt["recorded_at"] == posted["recorded_at"]
    assert (row["value"], row["unit"], row["phase"], row["seq"], row["timestamp"]) == (
        1250.0,
        "W",
        "total",
        3,
        "2026-01-15T10:00:00.500000Z",
    )
    assert (sensor["types"], sensor["location"], sensor["version"]) == (["power"], READING["location"], 1)


async def test_a_posted_meter_reading_is_read_as_it_was_answered(operator: AsgiClient) -> None:
    first = await ingest(operator, "meter", VALUE)
    second = await ingest(operator, "meter", VALUE, reading=1251.5, timestamp="2026-01-15T10:15:00Z")
    late = await ingest(operator, "meter", VALUE, reading=1251.0, timestamp="2026-01-15T10:05:00Z")

    told = await rows(operator, "/meters/m1/readings", late)

    assert [(p["consumption_wh"], p["register_state"]) for p in (first, second, late)] == [
        (None, "first"),
        (750, "normal"),
        (250, "late"),
    ]
    assert [(r["event_id"], r["reading"], r["consumption_wh"], r["register_state"]) for r in told] == [
        (first["event_id"], 1250.75, None, "first"),
        (late["event_id"], 1251.0, 250, "late"),
        (second["event_id"], 1251.5, 500, "normal"),
    ]
    meter = (await operator.get("/api/v1/meters/m1")).json()["meter"]
    assert (meter["customer_id"], meter["registers"]) == ("c1", ["1.8.0"])


async def test_a_correction_replaces_and_a_retraction_takes_back(operator: AsgiClient) -> None:
    first = await ingest(operator, "sensor", READING)
    second = await ingest(operator, "sensor", READING, value=1.5, corrects=first["event_id"], reason="wrong ratio")
    assert [row["value"] for row in await rows(operator, "/readings?sensor_id=s1", second)] == [1500.0]

    old = await operator.post(f"/api/v1/readings/{first['event_id']}/retract", {"reason": "x"})
    taken = await operator.post(f"/api/v1/readings/{second['event_id']}/retract", {"reason": "x"})
    repeat = await operator.post("/api/v1/ingest/sensor", READING)
    back = await ingest(operator, "sensor", READING, value=1.75, corrects=second["event_id"], reason="checked")

    assert (old.status, old.json()["code"]) == (409, "correction_conflict")
    assert taken.status == 200
    assert (repeat.status, repeat.json()["duplicate"]) == (200, True)
    every = await rows(operator, "/readings?sensor_id=s1&versions=all", back)
    assert [(r["value"], r["superseded"], r["retracted"], r["corrects"]) for r in every] == [
        (1250.0, True, False, None),
        (1500.0, True, True, first["event_id"]),
        (1750.0, False, False, second["event_id"]),
    ]
    assert [row["value"] for row in await rows(operator, "/readings?sensor_id=s1", back)] == [1750.0]


async def test_of_a_correction_and_a_retraction_at_once_the_log_tells_which_came_first(
    operator: AsgiClient,
) -> None:
    for n in range(12):
        first = await ingest(operator, "sensor", READING, seq=n)
        correction = {**READING, "seq": n, "value": 2.0, "corrects": first["event_id"], "reason": "wrong ratio"}

        corrected, retracted = await asyncio.gather(
            operator.post("/api/v1/ingest/sensor", correction),
            operator.post(f"/api/v1/readings/{first['event_id']}/retract", {"reason": "x"}),
        )

        assert corrected.status == 201
        if retracted.status == 200:  # then it came first, and the correction brought the key back
            assert position(retracted.json()) < position(corrected.json())
        else:
            assert (retracted.status, retracted.json()["code"]) == (409, "correction_conflict")
        latest = await rows(operator, "/readings?sensor_id=s1", corrected.json())
        assert [row["value"] for row in latest if row["seq"] == n] == [2000.0]


def position(answer: dict[str, Any]) -> int:
    return int(answer["position"].partition("@")[2])


async def test_a_posted_reading_is_answered_as_json_only(operator: AsgiClient) -> None:
    reply = await operator.post("/api/v1/ingest/sensor", READING, headers={"Accept": "text/csv"})

    assert (reply.status, reply.json()["code"]) == (406, "not_acceptable")
    assert (await operator.get("/api/v1/readings?sensor_id=s1")).json()["data"] == []
