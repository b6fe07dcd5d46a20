"""For tests: a client that speaks ASGI to an application without a socket, and an authenticator of fixed tokens."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import msgspec

from smartgrid_domain.errors import Forbidden
from smartgrid_http.principal import LADDER, Principal
from smartgrid_http.services import Services

EPOCH = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


class FixedClock:
    """
    A clock that only tests move.

    Attributes:
        time: The present time.
    """

    def __init__(self, time: datetime = EPOCH) -> None:
        self.time = time
        self.ticks = 0.0

    def now(self) -> datetime:
        """Return the present time."""
        return self.time

    def monotonic(self) -> float:
        """Return seconds since the start."""
        return self.ticks

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self.time += timedelta(seconds=seconds)
        self.ticks += seconds


class CountedIds:
    """Ids that count up."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def uuid(self) -> UUID:
        """Return the next id."""
        return UUID(int=next(self._numbers))

    def token(self, n_bytes: int = 32) -> str:
        """Return the next token, *n_bytes* in base64."""
        return f"t{next(self._numbers)}".ljust((n_bytes * 4 + 2) // 3, "x")


PRINCIPALS: dict[bytes, Principal] = {
    **{
        role.encode(): Principal(kind="user", id=f"u-{role}", role=role, session_id=f"s-{role}", username=role)
        for role in LADDER
    },
    b"viewer-of-c1": Principal(kind="user", id="u-c1", role="viewer", session_id="s-c1", customer_id="c1"),
    b"device": Principal(kind="key", id="k-1", role="device", sensors=("s1", "b7-*"), meters=("m1",)),
}
"""What the tokens ``viewer``, ``analyst``, ``operator``, ``admin``, ``viewer-of-c1`` and ``device`` stand for."""


class FixedAuthenticator:
    """Knows the tokens of :data:`PRINCIPALS`."""

    def known(self, token: bytes) -> Principal | None:
        """Return the principal of *token*."""
        return PRINCIPALS.get(token)

    async def verify(self, token: bytes, *, strict: bool) -> Principal:
        """Refuse every other token."""
        _ = token, strict
        raise Forbidden("unauthenticated", "Sign in first")


def fixed_services(**ports: Any) -> Services:  # noqa: ANN401  # fields of Services
    """Return services with fixed clock, ids and tokens, and the *ports* given."""
    basics: dict[str, Any] = {"clock": FixedClock(), "ids": CountedIds(), "authenticator": FixedAuthenticator()}
    return Services(**{**basics, **ports})


class Reply:
    """
    An answer.

    Attributes:
        status: HTTP status.
        headers: Headers by lower-case name.
        body: Bytes.
    """

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def json(self) -> Any:  # noqa: ANN401  # whatever it holds
        """Return the body as JSON."""
        return msgspec.json.decode(self.body)


class AsgiClient:
    """Sends requests to an application."""

    def __init__(self, app: Any, *, token: str | None = None) -> None:  # noqa: ANN401  # any ASGI application
        self._app = app
        self._token = token

    def signed_in(self, token: str) -> "AsgiClient":
        """Return a client that sends *token*."""
        return AsgiClient(self._app, token=token)

    async def request(  # noqa: PLR0913  # the parts of a request
        self,
        method: str,
        path: str,
        *,
        json: object = msgspec.UNSET,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        peer: str = "127.0.0.1",
    ) -> Reply:
        """Send a request, *path* with its query as in a URL, and return the answer."""
        raw_headers = {"host": "localhost", **{name.lower(): value for name, value in (headers or {}).items()}}
        if self._token is not None:
            raw_headers.setdefault("authorization", f"Bearer {self._token}")
        content = b"" if body is None else body
        if json is not msgspec.UNSET:
            content = msgspec.json.encode(json)
            raw_headers.setdefault("content-type", "application/json")
        if content:
            raw_headers.setdefault("content-length", str(len(content)))
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in raw_headers.items()]
        return await self.raw(method, path, pairs, content, peer=peer)

    async def raw(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes = b"", *, peer: str = "127.0.0.1"
    ) -> Reply:
        """Send a request with exactly *headers*."""
        target, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": unquote(target),
            "raw_path": target.encode(),
            "query_string": query.encode(),
            "headers": headers,
            "client": (peer, 50000),
            "server": ("localhost", 5000),
            "state": {},
        }
        messages: list[dict[str, Any]] = []
        incoming = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if incoming:
                return incoming.pop()
            await asyncio.Event().wait()  # a client that stays and waits
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        await self._app(scope, receive, send)
        content = b"".join(message.get("body", b"") for message in messages[1:])
        got = {name.decode(): value.decode("latin-1") for name, value in messages[0]["headers"]}
        return Reply(messages[0]["status"], got, content)

    async def get(self, path: str, **more: Any) -> Reply:  # noqa: ANN401  # as for request
        """GET *path*."""
        return await self.request("GET", path, **more)

    async def post(self, path: str, json: object = msgspec.UNSET, **more: Any) -> Reply:  # noqa: ANN401
        """POST *json* to *path*."""
        return await self.request("POST", path, json=json, **more)

    async def put(self, path: str, json: object = msgspec.UNSET, **more: Any) -> Reply:  # noqa: ANN401
        """PUT *json* to *path*."""
        return await self.request("PUT", path, json=json, **more)
