"""The front refuses in the order of the API and adds what every answer has."""

import pytest

from smartgrid_http.app import build_app
from smartgrid_http.testing import AsgiClient, fixed_services


@pytest.fixture
def client() -> AsgiClient:
    return AsgiClient(build_app(fixed_services(hosts=frozenset({"localhost"}))))


async def test_hello_needs_no_credentials(client: AsgiClient) -> None:
    reply = await client.get("/api/test")

    assert reply.status == 200
    assert reply.json()["status"] == "success"


async def test_every_answer_carries_an_id_and_the_guarding_headers(client: AsgiClient) -> None:
    for path in ("/api/test", "/nowhere", "/health"):
        reply = await client.get(path, headers={"X-Request-ID": "my-id.1"})

        assert reply.headers["x-request-id"] == "my-id.1"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["content-security-policy"] == "default-src 'none'"
        assert "server" not in reply.headers
