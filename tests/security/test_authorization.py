"""Every route for every role, against a table written by hand from the API's document."""

import pytest

from smartgrid_http.answers import Answer
from smartgrid_http.app import build_app
from smartgrid_http.policy import POLICY, Access
from smartgrid_http.routing import MissingFromPolicy
from smartgrid_http.testing import PRINCIPALS, AsgiClient, fixed_services

CALLERS = (None, "viewer", "analyst", "operator", "admin", "device")
YES, NOT_SIGNED_IN, NOT_ALLOWED = "+", "1", "3"

# One letter for each caller: nobody, viewer, analyst, operator, admin, device. + passes, 1 is 401, 3 is 403.
TABLE = """
GET  /health                                    ++++++
GET  /health/live                               ++++++
GET  /health/ready                              ++++++
GET  /metrics                                   ++++++
GET  /api/test                                  ++++++
GET  /api/v1/openapi.json                       ++++++
GET  /api/v1/schemas                            1++++3
GET  /api/v1/schemas/{event_name}               1++++3
POST /api/v1/ingest/sensor                      133+++
POST /api/v1/ingest/meter                       133+++
POST /api/v1/ingest/batch                       133+++
POST /api/v1/imports                            133++3
GET  /api/v1/imports/{import_id}                133++3
GET  /api/v1/receipts/{event_id}                1+++++
GET  /api/v1/readings                           1++++3
POST /api/v1/readings/{event_id}/retract        133++3
GET  /api/v1/sensors                            1++++3
GET  /api/v1/sensors/{sensor_id}                1++++3
PUT  /api/v1/sensors/{sensor_id}                133++3
GET  /api/v1/sensors/{sensor_id}/latest         1++++3
GET  /api/v1/meters                             1++++3
GET  /api/v1/meters/{meter_id}                  1++++3
PUT  /api/v1/meters/{meter_id}                  133++3
GET  /api/v1/meters/{meter_id}/latest           1++++3
GET  /api/v1/meters/{meter_id}/readings         1++++3
POST /api/v1/meters/{meter_id}/exchange         133++3
POST /api/v1/meters/{meter_id}/reset            133++3
GET  /api/v1/analytics/sensor/stats             1++++3
GET  /api/v1/analytics/consumption/trends       1++++3
POST /api/v1/auth/bootstrap                     ++++++
POST /api/v1/auth/register                      +++++3
POST /api/v1/auth/login                         ++++++
POST /api/v1/auth/logout                        1++++3
GET  /api/v1/auth/verify                        1++++3
GET  /api/v1/auth/jwks                          ++++++
GET  /api/v1/users/me                           1++++3
GET  /api/v1/users                              1333+3
GET  /api/v1/admin/events                       1333+3
POST /api/v1/admin/audit/verify                 1333+3
GET  /api/v1/admin/projections                  1333+3
GET  /api/v1/admin/projections/{name}           1333+3
POST /api/v1/admin/projections/{name}/rebuild   1333+3
GET  /api/v1/admin/projections/{name}/rebuilds/{rebuild_id} 1333+3
GET  /api/v1/admin/projections/{name}/rebuilds/{rebuild_id}/diff 1333+3
POST /api/v1/admin/projections/{name}/switch    1333+3
POST /api/v1/admin/projections/{name}/abort     1333+3
POST /api/v1/admin/projections/{name}/rollback  1333+3
POST /api/v1/admin/projections/{name}/pause     1333+3
POST /api/v1/admin/projections/{name}/resume    1333+3
"""
ROWS = {(method, path): cells for method, path, cells in (line.split() for line in TABLE.split("\n") if line)}
PASSED = 204


async def passes(*_: object) -> Answer:
    return Answer(PASSED)


@pytest.fixture(scope="module")
def client() -> AsgiClient:
    return AsgiClient(build_app(fixed_services(), handlers=[], hot=dict.fromkeys(POLICY, passes)))


def test_the_table_has_a_row_for_every_route() -> None:
    assert set(ROWS) == set(POLICY)


@pytest.mark.parametrize(("method", "path"), ROWS)
async def test_each_role_may_what_the_table_says(client: AsgiClient, method: str, path: str) -> None:
    target = path.replace("{", "").replace("}", "")
    media = {"Content-Type": "text/csv" if path.endswith("imports") else "application/json"}

    cells = ""
    for caller in CALLERS:
        signed = client if caller is None else client.signed_in(caller)
        reply = await signed.request(method, target, headers=media)
        cells += {PASSED: YES, 401: NOT_SIGNED_IN, 403: NOT_ALLOWED}[reply.status]

    assert cells == ROWS[method, path]


async def test_metrics_are_for_this_machine(client: AsgiClient) -> None:
    for peer, status in (("127.0.0.1", PASSED), ("::1", PASSED), ("10.0.0.7", 404), ("", 404), ("127.evil", 404)):
        assert (await client.get("/metrics", peer=peer)).status == status
    admin = client.signed_in("admin")
    assert (await admin.get("/metrics", peer="10.0.0.7", headers={"X-Forwarded-For": "127.0.0.1"})).status == 404


def test_a_handler_without_a_row_stops_the_start() -> None:
    with pytest.raises(MissingFromPolicy, match="GET /api/v1/forgotten"):
        build_app(fixed_services(), handlers=[], hot={("GET", "/api/v1/forgotten"): passes})


def test_a_service_alone_serves_its_own_routes_and_the_probes() -> None:
    app = build_app(fixed_services(), only="users", handlers=[], hot=dict.fromkeys(POLICY, passes))

    services = {route.access.service for route in app.routes.routes}
    assert services == {"users", "gateway"}


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/users/",
        "//api/v1/users",
        "/api//v1/users",
        "/api/v1/./users",
        "/api/v1/../v1/users",
        "/api/v1/users/me/..",
        "/health/../api/v1/users",
        "/health/..%2fapi/v1/users",
        "/api/v1%2fusers",
        "/api/v1/%2e/users",
        "/api/v1/users%00",
        "/api/v1/users%0a",
        "/api/v1/users;x=1",
        "/api/v1/users\\",
        "/api/v1/users%5c",
        "/api/v1/users%ff",
        "/api/v1/users%",
        "/api/v1/USERS",
        "/api/v1/users.json",
        "/api/v1/sensors/",
        "/api/v1/sensors/..",
        "/api/v1/sensors/%2e%2e",
        "/api/v1/sensors/a%2flatest",
        "/api/v1/sensors/a/latest/",
        "/api/v1/users/health",
        "*",
        "",
    ],
)
async def test_no_other_spelling_of_a_path_reaches_anything(client: AsgiClient, path: str) -> None:
    for caller in CALLERS:
        signed = client if caller is None else client.signed_in(caller)
        assert (await signed.get(path)).status in (404, 405), caller


@pytest.mark.parametrize("path", ["/api/v1/%75sers", "/%61pi/v1/users", "/api/v1/users"])
async def test_an_escaped_letter_changes_nothing(client: AsgiClient, path: str) -> None:
    assert (await client.get(path)).status == 401
    assert (await client.signed_in("viewer").get(path)).status == 403
    assert (await client.signed_in("admin").get(path)).status == PASSED


@pytest.mark.parametrize(
    "headers",
    [
        {"X-HTTP-Method-Override": "GET"},
        {"X-Original-URL": "/health"},
        {"X-Rewrite-URL": "/health"},
        {"X-Forwarded-User": "admin"},
        {"X-User-Role": "admin"},
        {"X-Forwarded-Path": "/health"},
        {"Upgrade": "h2c", "Connection": "Upgrade"},
    ],
)
async def test_no_header_overrides_path_method_or_role(client: AsgiClient, headers: dict[str, str]) -> None:
    assert (await client.get("/api/v1/users", headers=headers)).status == 401
    assert (await client.signed_in("viewer").get("/api/v1/users", headers=headers)).status == 403


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "OPTIONS", "HEAD", "PROPFIND", "get", "G\u00cbT", ""])
async def test_no_other_method_reaches_anything(client: AsgiClient, method: str) -> None:
    reply = await client.signed_in("admin").request(method, "/api/v1/users")

    assert (reply.status, reply.headers["allow"]) == (405, "GET")


def test_roles_are_a_ladder() -> None:
    rows = (
        Access(least="viewer", service="users"),
        Access(least="analyst", service="users"),
        Access(least="operator", service="users"),
        Access(least="admin", service="users"),
    )
    allowed = {name: [row.allows(principal) for row in rows] for name, principal in PRINCIPALS.items()}

    assert allowed[b"viewer"] == [True, False, False, False]
    assert allowed[b"analyst"] == [True, True, False, False]
    assert allowed[b"operator"] == [True, True, True, False]
    assert allowed[b"admin"] == [True, True, True, True]
    assert allowed[b"device"] == [False, False, False, False]
