"""
The one way in: every request passes here before any handler, plain or Litestar's, sees it.

Refusals come in the order of the API, cheapest first: form of the request, path, method, credentials, role, content
type and length. Whatever is raised behind becomes a problem here, and only here.
"""

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, ip_address
from math import inf
from time import monotonic
from typing import Any

from smartgrid_commands.ports import StoreUnavailable
from smartgrid_domain.errors import Finding
from smartgrid_http.answers import GUARDING, Answer
from smartgrid_http.auth import ambiguous, bearer, unauthenticated
from smartgrid_http.call import KEY, Call
from smartgrid_http.deadlines import Deadlines
from smartgrid_http.guard import ClientGone, body_timeout, too_large
from smartgrid_http.limits import Limits
from smartgrid_http.metrics import OTHER, HttpMetrics
from smartgrid_http.pages import only_json
from smartgrid_http.params import NoParameters, parse_query
from smartgrid_http.policy import MEDIA
from smartgrid_http.problems import Problem, internal, invalid, problem_of, render
from smartgrid_http.routing import Route, RouteTable
from smartgrid_http.services import Services

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

LOOKED_AT = frozenset(
    (
        b"accept authorization content-encoding content-length content-type deadline-ms expect host idempotency-key "
        b"if-match origin traceparent transfer-encoding user-agent x-api-key x-request-id"
    ).split()
)
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}\Z")
IDEMPOTENCY_KEY = re.compile(rb"[!-~]{1,128}\Z")
DIGITS = re.compile(rb"[0-9]{1,12}\Z")
CHARSET_UTF8 = re.compile(rb"\s*;\s*charset\s*=\s*\"?utf-8\"?\s*\Z", re.IGNORECASE)
KEYED_METHODS = frozenset({"POST", "PATCH", "DELETE"})
OPEN = frozenset({"public", "loopback"})
STREAMED = (b"text/csv", b"application/x-ndjson")


class Front:
    """
    The ASGI application that servers run.

    Attributes:
        routes: All routes of this process.
        metrics: What happened on them.
    """

    def __init__(self, services: Services, routes: RouteTable, metrics: HttpMetrics, inner: App) -> None:
        self.services = services
        self.routes = routes
        self.metrics = metrics
        self._inner = inner
        self._limits: Limits = services.limits
        self._hosts = services.hosts
        self._other = metrics.route("gateway", OTHER, OTHER)
        self._prefix = services.ids.token(9)
        self._numbers = itertools.count(1)
        self._deadlines = Deadlines()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the life of the server."""
        kind = scope["type"]
        if kind == "http":
            await self._request(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "not offered"})

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = monotonic()
        heads, doubled, too_big = self._heads(scope)
        own = heads.get(b"x-request-id")
        if own is not None and REQUEST_ID.match(own) and b"x-request-id" not in doubled:
            request_id = own.decode("ascii")
        else:
            request_id = f"{self._prefix}-{next(self._numbers):x}"
        watch = _Sent(send, request_id)
        counts = self._other
        in_flight = self.metrics.in_flight
        service = "gateway"
        in_flight[service] += 1
        try:
            route = self._route(scope, heads, doubled, too_big=too_big)
            in_flight[service] -= 1
            counts, service = route.counts, route.access.service
            in_flight[service] += 1
            call = Call(request_id, route.method, route.template, route.access, _peer(scope), heads, self._limits)
            call.deadline = started + self._limits.deadline_s
            scope[KEY] = call
            ticket = self._deadlines.enter(call)
            try:
                await self._serve(call, route, doubled, watch, (scope, receive))
            except asyncio.CancelledError:
                if not self._deadlines.expired(ticket):
                    raise
                raise (body_timeout() if call.reading else _too_late(call.method)) from None
            finally:
                self._deadlines.leave(ticket)
        except ClientGone:
            # Some servers say so of a body that breaks its framing too: whoever is still there is told.
            if not watch.started:
                await watch.whole(render(_broken("The body broke off"), request_id))
        except Exception as error:
            if watch.started:
                self.services.log_error(request_id, error)
                raise  # half an answer is out: only closing the connection tells the client
            await watch.whole(render(self._problem(error, request_id), request_id))
        finally:
            in_flight[service] -= 1
            counts.add(watch.status or 500, monotonic() - started)

    async def _serve(
        self, call: Call, route: Route, doubled: set[bytes], watch: "_Sent", request: tuple[Scope, Receive]
    ) -> None:
        """Let the handler of *route* answer, if the caller and the head of the request are good enough."""
        scope, receive = request
        token = self._credentials(call, doubled)
        if token is not None:
            authenticator, access = self.services.authenticator, route.access
            principal = authenticator.known(token) or await authenticator.verify(token, strict=access.strict)
            if not access.allows(principal):
                raise Problem(403, "forbidden", "Your role does not allow this")
            call.principal = principal
        self._admit(call, route, scope["query_string"], doubled)
        if route.hot is not None:
            await watch.whole(await route.hot(scope, receive))
        else:
            watch.call = call
            await self._inner(scope, receive, watch.message)

    def _heads(self, scope: Scope) -> tuple[dict[bytes, bytes], set[bytes], bool]:
        """Return the headers that anybody looks at, those that came twice, and whether all are too many."""
        heads: dict[bytes, bytes] = {}
        doubled: set[bytes] = set()
        size = 0
        headers = scope["headers"]
        for name, value in headers:
            size += len(name) + len(value) + 4
            if name in LOOKED_AT:
                if name in heads:
                    doubled.add(name)
                heads[name] = value
        return heads, doubled, size > self._limits.header_bytes or len(headers) > self._limits.header_count

    def _route(self, scope: Scope, heads: dict[bytes, bytes], doubled: set[bytes], *, too_big: bool) -> Route:
        if too_big:
            raise Problem(431, "headers_too_large", "The headers are too large or too many")
        raw: bytes = scope.get("raw_path") or b""
        if len(raw) + len(scope["query_string"]) > self._limits.uri_bytes:
            raise Problem(414, "uri_too_long", f"The URI has at most {self._limits.uri_bytes} bytes")
        if doubled and (b"host" in doubled or b"content-length" in doubled or b"transfer-encoding" in doubled):
            raise _broken("A header that must be single came twice")
        if b"transfer-encoding" in heads and b"content-length" in heads:
            raise _broken("Send Content-Length or Transfer-Encoding, not both")
        hosts = self._hosts
        if hosts is not None and _host(heads.get(b"host", b"")) not in hosts:
            raise _broken("The Host header names another host")
        methods = self.routes.match(scope)
        if methods is None:
            raise Problem(404, "not_found", "There is nothing at this path")
        route = methods.get(scope["method"])
        if route is None:
            allow = ", ".join(sorted(methods))
            raise Problem(405, "method_not_allowed", f"Use one of: {allow}", headers={"Allow": allow})
        return route

    def _credentials(self, call: Call, doubled: set[bytes]) -> bytes | None:
        """Return the token to look at, None where nobody has to be anybody."""
        heads, least = call.headers, call.access.least
        authorization, api_key = heads.get(b"authorization"), heads.get(b"x-api-key")
        if authorization is not None or api_key is not None:
            if (
                (authorization is not None and api_key is not None)
                or b"authorization" in doubled
                or b"x-api-key" in doubled
            ):
                raise ambiguous()
            if least not in OPEN:
                return bearer(authorization, api_key)
        if least == "loopback" and not _is_loopback(call.peer):
            raise Problem(404, "not_found", "There is nothing at this path")
        if least not in OPEN and least != "optional":
            raise unauthenticated()
        return None

    def _admit(self, call: Call, route: Route, query: bytes, doubled: set[bytes]) -> None:
        """Refuse what can be refused before anybody looks at the body."""
        heads = call.headers
        if route.hot is not None:
            only_json(heads.get(b"accept"))
        if route.access.body != "none":
            self._body_heads(call)
        if query and not route.query:
            parse_query(query, NoParameters)
        key = heads.get(b"idempotency-key")
        if key is not None and route.method in KEYED_METHODS:
            if b"idempotency-key" in doubled or not IDEMPOTENCY_KEY.match(key):
                message = "Idempotency-Key is 1 to 128 visible ASCII characters"
                raise invalid([Finding("@Idempotency-Key", "bad_format", message)])
            call.idempotency_key = key.decode("ascii")
        if route.access.body == "import":
            call.deadline = inf  # an upload has an idle limit instead
        elif b"deadline-ms" in heads:
            call.deadline += self._asked_s(heads[b"deadline-ms"]) - self._limits.deadline_s

    def _body_heads(self, call: Call) -> None:
        """Refuse a body by its headers alone."""
        access, heads = call.access, call.headers
        length = heads.get(b"content-length")
        empty = (length is None and b"transfer-encoding" not in heads) or length == b"0"
        if not (access.body == "optional" and empty):
            sent = heads.get(b"content-type", b"")
            if sent != b"application/json" or access.body == "import":
                _media(sent, MEDIA[access.body])
            if heads.get(b"content-encoding", b"identity").strip().lower() != b"identity":
                raise Problem(415, "unsupported_media_type", "Send the body without a Content-Encoding")
        if length is not None:
            limit = self._limits.bytes_of(access.body)
            if not DIGITS.match(length):
                raise _broken("Content-Length is not a number")
            if int(length) > limit:
                raise too_large(limit)

    def _asked_s(self, asked: bytes) -> float:
        if not DIGITS.match(asked):
            raise invalid([Finding("@Deadline-Ms", "bad_format", "Deadline-Ms is a whole number of milliseconds")])
        if int(asked) == 0:
            raise _too_late("GET")
        return min(self._limits.deadline_s, int(asked) / 1000)

    def _problem(self, error: Exception, request_id: str) -> Problem:
        problem = problem_of(error)
        if problem is None:
            self.services.log_error(request_id, error)
            return internal()
        if problem.status == 401:  # noqa: PLR2004  # not signed in
            self.metrics.auth_failure(problem.code)
        if isinstance(error, StoreUnavailable):
            self.services.log_error(request_id, error)
        return problem

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


class _Sent:
    """The way back: adds the headers that every answer has, and sees what went out."""

    __slots__ = ("_request_id", "_send", "call", "started", "status", "streaming")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._request_id = send, request_id
        self.started = False
        self.streaming = False
        self.status = 0
        self.call: Call | None = None

    def _more(self) -> list[tuple[bytes, bytes]]:
        return [(b"x-request-id", self._request_id.encode("ascii")), *GUARDING]

    async def whole(self, answer: Answer) -> None:
        self.status = answer.status
        self.started = True
        await self._send(answer.start(self._more()))
        await self._send({"type": "http.response.body", "body": answer.body})

    async def message(self, message: Any) -> None:  # noqa: ANN401  # the shape of ASGI
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.started = True
            headers = list(message["headers"])
            self.streaming = any(name == b"content-type" and value.startswith(STREAMED) for name, value in headers)
            message = {**message, "headers": [*headers, *self._more()]}
        if self.streaming and self.call is not None:
            self.call.deadline = monotonic() + self.call.limits.idle_s  # exports: no total deadline, no long pause
        await self._send(message)


def _too_late(method: str) -> Problem:
    # Whatever writes may have been committed: only repeating it, or looking, tells.
    extra = {} if method == "GET" else {"outcome": "unknown"}
    return Problem(504, "deadline_exceeded", "The answer did not come in time", extra=extra)


def _broken(what: str) -> Problem:
    return Problem(400, "bad_request", what, headers={"Connection": "close"})


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _host(value: bytes) -> str:
    name, _, port = value.decode("latin-1").lower().rpartition(":")
    return name if port.isdigit() else value.decode("latin-1").lower()


def _media(sent: bytes, allowed: tuple[str, ...]) -> None:
    kind, semicolon, rest = sent.partition(b";")
    name = kind.strip().lower().decode("latin-1")
    if name not in allowed or (semicolon and not CHARSET_UTF8.match(b";" + rest)):
        raise Problem(415, "unsupported_media_type", f"Send the body as {' or '.join(allowed)}")
