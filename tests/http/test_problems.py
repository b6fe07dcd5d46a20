"""Whatever a handler raises becomes a problem, and tells nothing that a client must not know."""

from typing import Any

import pytest
from litestar import get

from smartgrid_commands.ports import OutcomeUnknown, StoreUnavailable
from smartgrid_domain.errors import Conflict, Finding, Forbidden, Invalid, NotFound
from smartgrid_http.answers import Answer
from smartgrid_http.app import build_app
from smartgrid_http.testing import AsgiClient, fixed_services
from smartgrid_projections.ports import Unavailable

READINGS = "/api/v1/readings"
CANARY = "postgresql://user:secret@host"

ERRORS: list[tuple[Exception, int, str]] = [
    (Invalid("validation_failed", "x", findings=[Finding("/a", "bad_format", "x")]), 400, "validation_failed"),
    (Forbidden("sensor_out_of_scope", "x"), 403, "sensor_out_of_scope"),
    (NotFound("not_found", "x"), 404, "not_found"),
    (Conflict("reading_conflict", "x", extra={"existing_event_id": "e"}), 409, "reading_conflict"),
    (Conflict("etag_mismatch", "x"), 412, "etag_mismatch"),
    (Forbidden("invalid_credentials", "x"), 401, "invalid_credentials"),
    (StoreUnavailable(CANARY), 503, "store_unavailable"),
    (Unavailable(CANARY), 503, "store_unavailable"),
    (OutcomeUnknown(CANARY), 504, "deadline_exceeded"),
    (RuntimeError(CANARY), 500, "internal"),
    (KeyError(CANARY), 500, "internal"),
    (RecursionError(), 500, "internal"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, CANARY), 500, "internal"),
    (TimeoutError(CANARY), 500, "internal"),
]


@pytest.mark.parametrize(("error", "status", "code"), ERRORS)
@pytest.mark.parametrize("kind", ["hot", "litestar"])
async def test_errors_become_problems_without_their_secrets(
    error: Exception, status: int, code: str, kind: str
) -> None:
    logged: list[BaseException] = []

    async def fail(*_: object) -> Answer:
        raise error

    def log_error(_request_id: str, problem: BaseException) -> None:
        logged.append(problem)

    services = fixed_services(log_error=log_error)
    handler = get(READINGS)(_litestar(error))
    app = build_app(
        services, handlers=[] if kind == "hot" else [handler], hot={("GET", READINGS): fail} if kind == "hot" else {}
    )
    reply = await AsgiClient(app).signed_in("viewer").get(READINGS)

    body = reply.json()
    assert (reply.status, body["code"]) == (status, code)
    assert CANARY not in reply.body.decode()
    assert len(reply.body) <= 4096
    assert (error in logged) == (status == 500 or isinstance(error, StoreUnavailable))
    if status == 503:
        assert int(reply.headers["retry-after"]) >= 1
    if status == 504:
        assert body["outcome"] == "unknown"
    if code == "reading_conflict":
        assert body["existing_event_id"] == "e"


def _litestar(error: Exception) -> Any:  # noqa: ANN401  # a handler
    async def fail() -> Answer:
        raise error

    return fail
