import pytest
from tests.projections.fakes import FakeLog, some_events

from smartgrid_adapters.memory.checkpoints import MemoryProjection, MemoryStandings
from smartgrid_http import admin
from smartgrid_http.app import build_app
from smartgrid_http.testing import AsgiClient, fixed_services


@pytest.fixture
def client() -> AsgiClient:
    log = FakeLog()
    some_events(log, 5)
    stopped = MemoryProjection(name="aggregates", version=1, positions={"telemetry": 3}, tables=None, rate_per_s=4.0)
    stopped.last_error = "telemetry@4…5: LookupError: no such unit"
    services = fixed_services(store=log, standings=MemoryStandings([stopped]))
    return AsgiClient(build_app(services, handlers=admin.handlers, hot={}))


async def test_projections_tell_how_far_they_are(client: AsgiClient) -> None:
    reply = await client.signed_in("admin").get("/api/v1/admin/projections")

    assert reply.headers["x-event-position"] == "telemetry@3"
    assert reply.json() == {
        "status": "success",
        "data": [
            {
                "name": "aggregates",
                "version": 1,
                "state": "stopped",
                "position": {"telemetry": 3},
                "head": {"telemetry": 5},
                "lag_events": 2,
                "lag_s": 0.0,
                "rate_per_s": 4.0,
                "eta_s": 0.5,
                "parked_keys": 0,
                "last_error": "telemetry@4…5: LookupError: no such unit",
            },
            {
                "name": "readings",
                "version": 1,
                "state": "active",
                "position": {"telemetry": 5},
                "head": {"telemetry": 5},
                "lag_events": 0,
                "lag_s": 0.0,
                "rate_per_s": 0.0,
                "eta_s": None,
                "parked_keys": 0,
                "last_error": None,
            },
        ],
    }


async def test_one_projection_answers_alone_and_an_unknown_one_is_404(client: AsgiClient) -> None:
    one = await client.signed_in("admin").get("/api/v1/admin/projections/readings")
    none = await client.signed_in("admin").get("/api/v1/admin/projections/forecast")

    assert ([row["name"] for row in one.json()["data"]], none.status) == (["readings"], 404)


async def test_only_administrators_may_look(client: AsgiClient) -> None:
    assert (await client.signed_in("operator").get("/api/v1/admin/projections")).status == 403
