"""The OpenAPI document tells of every route that is served, and of no other."""

import re

import pytest

from smartgrid_http.app import build_app
from smartgrid_http.front import Front
from smartgrid_http.policy import POLICY
from smartgrid_http.testing import AsgiClient, fixed_services


@pytest.fixture
def app() -> Front:
    return build_app(fixed_services(ingestion=object()))


async def test_routes_policy_and_document_are_the_same(app: Front) -> None:
    document = (await AsgiClient(app).get("/api/v1/openapi.json")).json()
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}

    assert {(route.method, route.template) for route in app.routes.routes} == told
    assert told == set(POLICY)


async def test_every_reference_leads_somewhere(app: Front) -> None:
    reply = await AsgiClient(app).get("/api/v1/openapi.json")
    document = reply.json()

    references = set(re.findall(r"#/components/schemas/(\w+)", reply.body.decode()))
    assert references == set(document["components"]["schemas"])


async def test_every_operation_says_who_may_call_it(app: Front) -> None:
    document = (await AsgiClient(app).get("/api/v1/openapi.json")).json()

    for (method, template), access in POLICY.items():
        operation = document["paths"].get(template, {}).get(method.lower())
        if operation is not None:
            assert (operation["security"] == []) == (access.least in ("public", "loopback")), template
            assert ("401" in operation["responses"]) or operation["security"] == []
            assert ("requestBody" in operation) == (access.body != "none")
            names = re.findall(r"\{(\w+)\}", template)
            assert [p["name"] for p in operation["parameters"] if p["in"] == "path"] == names


async def test_no_operation_has_the_id_of_another(app: Front) -> None:
    document = (await AsgiClient(app).get("/api/v1/openapi.json")).json()
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]

    assert len(ids) == len(set(ids))
