from datetime import timedelta

import pytest
from tests.projections.facts import EPOCH
from tests.projections.meters import QUARTER, MeterRecorder, Step

from smartgrid_adapters.memory.checkpoints import MemoryProjection, MemoryStandings
from smartgrid_adapters.memory.consumption import MemoryConsumption
from smartgrid_adapters.memory.trends import MemoryTrends
from smartgrid_http import analytics
from smartgrid_http.app import build_app
from smartgrid_http.testing import EPOCH as NOW
from smartgrid_http.testing import AsgiClient, fixed_services
from smartgrid_projections.queries.standing import Waiting
from smartgrid_projections.read_models.consumption import project

PATH = "/api/v1/analytics/consumption/trends"


@pytest.fixture
async def client() -> AsgiClient:
    """At 10:30 (11:30 in Tirana): m1 is c1's since yesterday's midnight and counts 1 kWh an hour; m2 is nobody's."""
    recorder = MeterRecorder()
    midnight = (NOW.replace(hour=23, minute=0) - timedelta(days=2) - EPOCH) // timedelta(microseconds=1)
    recorder.clock_us = midnight - QUARTER
    recorder.record([Step("customer", "m1", midnight, customer="c1")])
    recorder.clock_us = (NOW - EPOCH) // timedelta(microseconds=1)
    recorder.read("m1", [(midnight + i * QUARTER, i / 4) for i in range(34 * 4 + 1)])
    recorder.read("m2", [(midnight, 5.0)])
    events = recorder.log.events["telemetry"]
    tables = MemoryConsumption(recorder.register)
    await project(events, tables)
    stored = MemoryProjection(name="consumption", version=1, positions={"telemetry": len(events)}, tables=tables)
    services = fixed_services(
        trends=MemoryTrends(tables, len(events)),
        waiting=Waiting(MemoryStandings([stored])),
        price_eur_per_kwh=0.5,
    )
    return AsgiClient(build_app(services, handlers=analytics.handlers, hot={}))


async def test_days_of_a_customer_by_the_default_zone(client: AsgiClient) -> None:
    reply = await client.signed_in("viewer-of-c1").get(f"{PATH}?customer_id=c1")

    assert (reply.status, reply.headers["x-event-position"]) == (200, "telemetry@3")
    assert reply.json() == {
        "status": "success",
        "period_days": 30,
        "trends": [
            {
                "date": "2026-01-14T00:00:00+01:00",
                "hours": 24,
                "total_consumption_kwh": 24.0,
                "avg_reading": 1.0,
                "reading_count": 96,
                "coverage": None,
                "estimated_kwh": 0.0,
                "cost_eur": 12.0,
            },
            {
                "date": "2026-01-15T00:00:00+01:00",
                "hours": 24,
                "total_consumption_kwh": 10.0,
                "avg_reading": 10 / 24,
                "reading_count": 41,
                "coverage": None,
                "estimated_kwh": 0.0,
                "cost_eur": 5.0,
            },
        ],
        "currency": "EUR",
        "price_eur_per_kwh": 0.5,
    }


async def test_compare_adds_a_column(client: AsgiClient) -> None:
    reply = await client.signed_in("analyst").get(f"{PATH}?meter_id=m1&compare=previous&interval=1w")

    assert [row["compared_kwh"] for row in reply.json()["trends"]] == [None]


@pytest.mark.parametrize(
    ("token", "query", "status"),
    [
        ("viewer-of-c1", "meter_id=m1", 200),
        ("viewer-of-c1", "meter_id=m2", 404),
        ("viewer-of-c1", "meter_id=m9", 404),
        ("viewer-of-c1", "customer_id=c2", 404),
        ("viewer", "customer_id=c1", 404),
        ("viewer", "meter_id=m1", 404),
        ("analyst", "meter_id=m2", 200),
        ("analyst", "customer_id=c9", 200),
        ("device", "customer_id=c1", 403),
    ],
)
async def test_viewers_see_what_is_their_customers(client: AsgiClient, token: str, query: str, status: int) -> None:
    assert (await client.signed_in(token).get(f"{PATH}?{query}")).status == status


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("", "?customer_id"),
        ("customer_id=c1&meter_id=m1", "?customer_id"),
        ("customer_id=c1&days=401", "?days"),
        ("customer_id=c1&days=1&from=2026-01-15T00:00:00Z", "?days"),
        ("customer_id=c1&interval=15m", "?interval"),
        ("customer_id=c1&compare=never", "?compare"),
    ],
)
async def test_a_bad_query_is_told_where_it_is_bad(client: AsgiClient, query: str, pointer: str) -> None:
    reply = await client.signed_in("analyst").get(f"{PATH}?{query}")

    assert (reply.status, [finding["pointer"] for finding in reply.json()["errors"]]) == (400, [pointer])


@pytest.mark.parametrize(("more", "last"), [("", "cost_eur"), ("&compare=previous", "compared_kwh")])
async def test_csv_has_a_line_for_each_bucket(client: AsgiClient, more: str, last: str) -> None:
    reply = await client.signed_in("analyst").get(f"{PATH}?meter_id=m1{more}", headers={"Accept": "text/csv"})

    head, first, second, rest = reply.body.decode().split("\r\n")
    assert (head.split(",")[0], head.split(",")[-1], rest) == ("date", last, "")
    assert (first.split(",")[1:4], second.split(",")[-1]) == (["24", "24.0", "1.0"], "" if more else "5.0")
