"""Metrics on a listener of their own: everything that the process counts, and nothing but metrics."""

from typing import Any

from smartgrid_http.app import build_app
from smartgrid_http.services import Services
from smartgrid_ops.probes import with_metrics_of_its_own
from smartgrid_ops.serving import App
from smartgrid_ops.system import SystemClock, SystemIds
from smartgrid_ops.telemetry import Build
from smartgrid_ops.wiring import NoTokens


async def asked(app: App, path: str, peer: str) -> tuple[int, bytes]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": (peer, 5),
        "server": ("localhost", 1),
        "state": {},
    }
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def services() -> Services:
    return Services(clock=SystemClock(), ids=SystemIds(), authenticator=NoTokens(), metric_sources=[Build()])


async def test_the_own_listener_shows_each_family_once_to_any_peer() -> None:
    ours = services()
    public = build_app(ours)
    await asked(public, "/health/live", "127.0.0.1")

    status, text = await asked(with_metrics_of_its_own(ours), "/metrics", "203.0.113.7")

    assert status == 200
    assert text.count(b"# TYPE smartgrid_http_requests_total ") == 1
    assert b'route="/health/live"' in text
    assert b"smartgrid_build_info" in text


async def test_the_own_listener_has_nothing_else() -> None:
    app = with_metrics_of_its_own(services())

    assert (await asked(app, "/health/live", "127.0.0.1"))[0] == 404
    assert (await asked(app, "/api/v1/users/me", "127.0.0.1"))[0] == 404
