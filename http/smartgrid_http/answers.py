"""What handlers give back."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

Headers = list[tuple[bytes, bytes]]
Scope = dict[str, Any]

ENCODER = msgspec.json.Encoder()
JSON_TYPE = b"application/json"
GUARDING: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'"),
]
"""On every answer: no guessing of types, no copies in caches, nothing to run."""


class Answer:
    """
    A whole answer; an ASGI application, so that Litestar handlers may return it too.

    Attributes:
        status: HTTP status.
        body: Encoded body.
        headers: Every header but those that the front adds (``X-Request-ID`` and the guarding ones).
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes = b"", headers: Headers | None = None) -> None:
        self.status = status
        self.body = body
        self.headers: Headers = headers if headers is not None else []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG002  # the shape of ASGI
        """Send it."""
        await send(self.start())
        await send({"type": "http.response.body", "body": self.body})

    def start(self, more: Sequence[tuple[bytes, bytes]] = ()) -> Scope:
        """Return the message that opens the answer, with *more* headers."""
        headers = [*self.headers, *more, (b"content-length", b"%d" % len(self.body))]
        if self.status == 204:  # noqa: PLR2004  # no content has no length
            headers.pop()
        return {"type": "http.response.start", "status": self.status, "headers": headers}


def answer(
    payload: object,
    *,
    status: int = 200,
    position: str | None = None,
    etag: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """
    Return *payload* as JSON.

    Args:
        payload: A struct or a dict; objects carry ``"status": "success"`` by their own field.
        status: HTTP status.
        position: Token list of what the answer includes, for ``X-Event-Position``.
        etag: Version of the single object in the answer.
        headers: Further headers.
    """
    return encoded(ENCODER.encode(payload), status=status, position=position, etag=etag, headers=headers)


def encoded(  # noqa: PLR0913  # each is a part of the answer
    body: bytes,
    *,
    status: int = 200,
    media_type: bytes = JSON_TYPE,
    position: str | None = None,
    etag: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Return *body* as it is; the rest as for :func:`answer`."""
    all_headers: Headers = [(b"content-type", media_type)]
    if position is not None:
        all_headers.append((b"x-event-position", position.encode("ascii")))
    if etag is not None:
        all_headers.append((b"etag", b'"v%d"' % etag))
    if headers:
        all_headers += [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
    return Answer(status, body, all_headers)


def no_content(*, position: str | None = None) -> Answer:
    """Return the answer 204."""
    return Answer(204, b"", [] if position is None else [(b"x-event-position", position.encode("ascii"))])
