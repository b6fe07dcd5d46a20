from pathlib import Path

import pytest

from smartgrid_http import schemas
from smartgrid_http.app import build_app
from smartgrid_http.testing import AsgiClient, fixed_services
from smartgrid_ops.schema_files import frozen_copies
from smartgrid_schemas.compatibility import same
from smartgrid_schemas.registry import EVENT_OF

SCHEMAS = Path(__file__).parents[2] / "schemas"


@pytest.fixture(scope="module")
def client() -> AsgiClient:
    return AsgiClient(build_app(fixed_services(), handlers=schemas.handlers, hot={})).signed_in("viewer")


async def test_every_event_is_listed_once_with_its_version_and_topic(client: AsgiClient) -> None:
    reply = await client.get("/api/v1/schemas")

    listed = reply.json()
    assert (reply.status, listed["status"]) == (200, "success")
    assert [one["name"] for one in listed["data"]] == sorted(EVENT_OF)
    assert {"name": "identity.user-registered.v1", "version": 1, "topic": "smartgrid-users"} in listed["data"]


@pytest.mark.parametrize("name", EVENT_OF)
async def test_what_is_served_is_what_was_frozen(client: AsgiClient, name: str) -> None:
    reply = await client.get(f"/api/v1/schemas/{name}")

    served = reply.json()
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert served["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert served["$id"] == f"urn:smartgrid:schema:{name}"
    assert same(served, frozen_copies(SCHEMAS, name)[-1])


@pytest.mark.parametrize("name", ["telemetry.readings-recorded.v2", "telemetry.readings-recorded", "..", "x" * 200])
async def test_an_event_that_does_not_exist_is_not_found(client: AsgiClient, name: str) -> None:
    reply = await client.get(f"/api/v1/schemas/{name}")

    assert (reply.status, reply.json()["code"]) == (404, "not_found")


async def test_parameters_and_other_forms_are_refused(client: AsgiClient) -> None:
    name = next(iter(EVENT_OF))

    assert (await client.get("/api/v1/schemas?limit=1")).status == 400
    assert (await client.get(f"/api/v1/schemas/{name}?version=1")).status == 400
    assert (await client.get(f"/api/v1/schemas/{name}", headers={"Accept": "text/csv"})).status == 406
    assert (await client.post(f"/api/v1/schemas/{name}", {})).status == 405


async def test_devices_and_strangers_may_not_look(client: AsgiClient) -> None:
    assert (await client.signed_in("device").get("/api/v1/schemas")).status == 403
    assert (await client.signed_in("nobody").get("/api/v1/schemas")).status == 401
