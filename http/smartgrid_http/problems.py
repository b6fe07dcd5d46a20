"""Errors as answers: RFC 9457 plus the original's ``error``. This module alone knows status codes of errors."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from smartgrid_commands.ports import OutcomeUnknown, StoreUnavailable
from smartgrid_domain.errors import Conflict, Finding, Forbidden, Invalid, NotFound, Rejected
from smartgrid_http.answers import ENCODER, Answer, Headers
from smartgrid_projections.ports import Unavailable

MAX_FINDINGS = 100
MAX_FINDINGS_OF_A_BATCH = 1000

TITLES = {
    400: "Invalid request",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    408: "The body came too slowly",
    409: "Conflict",
    412: "The object changed",
    413: "Too large",
    414: "URI too long",
    415: "Unsupported media type",
    422: "Key used for another request",
    428: "If-Match is required",
    429: "Too many requests",
    431: "Headers too large",
    500: "Internal error",
    502: "Bad upstream",
    503: "Unavailable",
    504: "No answer in time",
}

KINDS: tuple[tuple[type[Rejected], int], ...] = ((Invalid, 400), (Forbidden, 403), (NotFound, 404), (Conflict, 409))
CODES = {
    "unauthenticated": 401,
    "token_expired": 401,
    "token_revoked": 401,
    "invalid_credentials": 401,
    "refresh_reused": 401,
    "bootstrap_code_invalid": 401,
    "payload_too_large": 413,
    "etag_mismatch": 412,
    "precondition_required": 428,
    "idempotency_key_reused": 422,
    "rate_limited": 429,
    "overloaded": 503,
    "projection_behind": 503,
    "store_unavailable": 503,
}
"""Codes whose status is not that of their kind of rejection."""


class Problem(Exception):
    """
    An answer that is an error.

    Attributes:
        status: HTTP status.
        code: One of the codes of the API.
        detail: The ``error`` text: what to do about it.
        findings: The ``errors`` list.
        extra: Further members of the body.
        headers: Further headers of the answer, such as ``Retry-After``.
    """

    def __init__(  # noqa: PLR0913  # each is a member of the answer
        self,
        status: int,
        code: str,
        detail: str,
        *,
        findings: Sequence[Finding] = (),
        extra: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = HTTPStatus(status)
        self.code = code
        self.detail = detail
        self.findings = tuple(findings)
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})


def problem_of(error: BaseException) -> Problem | None:
    """Return the problem that *error* is to a client; None for a mistake of ours."""
    match error:
        case Problem():
            return error
        case Rejected():
            status = CODES.get(error.code) or next((status for kind, status in KINDS if isinstance(error, kind)), 400)
            return Problem(status, error.code, str(error), findings=error.findings, extra=error.extra)
        case StoreUnavailable() | Unavailable():
            return unavailable()
        case OutcomeUnknown():
            detail = "The commit was sent and no answer came; repeat the request with the same Idempotency-Key"
            return Problem(504, "deadline_exceeded", detail, extra={"outcome": "unknown"})
        case _:
            return None


def unavailable(
    code: str = "store_unavailable", detail: str = "The store cannot be reached", retry_s: int = 1
) -> Problem:
    """Return the problem that nothing was stored and that trying again helps."""
    return Problem(503, code, detail, headers={"Retry-After": str(retry_s)})


def invalid(findings: Sequence[Finding], code: str = "validation_failed") -> Problem:
    """Return the problem that a request has *findings*; the first one is its text."""
    return Problem(400, code, findings[0].message, findings=findings)


def internal() -> Problem:
    """Return the problem of a mistake of ours; what it was stands in the log under the request's id."""
    return Problem(500, "internal", "Something went wrong here")


def render(problem: Problem, request_id: str) -> Answer:
    """Return *problem* as an answer to the request *request_id*."""
    status = int(problem.status)
    body: dict[str, object] = {
        "type": f"urn:smartgrid:problem:{problem.code}",
        "title": TITLES.get(status, problem.status.phrase),
        "status": status,
        "error": problem.detail,
        "code": problem.code,
        "request_id": request_id,
    }
    if problem.findings:
        most = MAX_FINDINGS_OF_A_BATCH if problem.code == "batch_rejected" else MAX_FINDINGS
        body["errors"] = problem.findings[:most]
    body.update(problem.extra)
    headers: Headers = [(b"content-type", b"application/problem+json")]
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b'Bearer realm="smartgrid"'))
    retry = problem.headers
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE) and "Retry-After" not in retry:
        retry = {**retry, "Retry-After": "1"}
    headers += [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in retry.items()]
    return Answer(status, ENCODER.encode(body), headers)
