"""Bodies: read within their limits, decoded strictly, refused with everything that is wrong with them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

import msgspec
from litestar import Request

from smartgrid_domain.errors import Finding
from smartgrid_domain.strict_json import JSON_LIMITS, JsonLimits, strict_value
from smartgrid_http.call import Call, call_of
from smartgrid_http.findings import explain, has_checks
from smartgrid_http.problems import Problem, invalid

T = TypeVar("T")
Req = Request[Any, Any, Any]
Receive = Callable[[], Awaitable[Any]]

MIN_RATE = 1024
"""An upload that brings less than this [bytes/s] over the idle time is ended."""


class ClientGone(Exception):
    """The client closed the connection before its body had come; nobody waits for an answer."""


@cache
def _decoder(wanted: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(cast("type[Any]", wanted))


def decode_json(body: bytes, wanted: type[T], limits: JsonLimits = JSON_LIMITS) -> T:
    """
    Return *body* as a *wanted*.

    Raises:
        Problem: 400, with every finding.
        Invalid: 400 likewise, for what is wrong with the JSON itself.

    Guarantees:
        Nothing else comes out, whatever the bytes are.
    """
    value = strict_value(body, limits)
    try:
        decoded: T = _decoder(cast("Hashable", wanted)).decode(body)
    except msgspec.ValidationError as error:
        raise invalid(explain(value, wanted) or [_finding_of(error)]) from None
    if has_checks(cast("Hashable", wanted)) and (findings := explain(value, wanted)):
        raise invalid(findings)
    return decoded


def _finding_of(error: msgspec.ValidationError) -> Finding:
    """Return the decoder's own words, for a difference that has no finding of its own."""
    message, _, path = str(error).partition(" - at `")
    pointer = path.removesuffix("`").removeprefix("$").replace("[", "/").replace("]", "").replace(".", "/")
    return Finding(pointer, "wrong_type", message)


async def read_body(scope: Mapping[str, Any], receive: Receive) -> bytes:
    """
    Return the body of the request in *scope*, at most as long as its route allows.

    Raises:
        Problem: 413 for a longer one, 408 for a slow one.
        ClientGone: The client went away.
    """
    call = call_of(scope)
    limit = call.limits.bytes_of(call.access.body)
    call.reading = True
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGone
    body: bytes = message.get("body", b"")
    # Servers tell the end of a body in a message of its own; a body that is as long as announced has none to come.
    if message.get("more_body") and call.headers.get(b"content-length") != b"%d" % len(body):
        body = await _rest(body, receive, limit, call)
    if len(body) > limit:
        raise too_large(limit)
    call.reading = False
    return body


async def _rest(first: bytes, receive: Receive, limit: int, call: Call) -> bytes:
    parts = [first]
    size = len(first)
    try:
        async with asyncio.timeout(call.limits.body_s):
            while size <= limit:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientGone
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if not message.get("more_body"):
                    break
    except TimeoutError:
        raise body_timeout() from None
    return b"".join(parts)


async def body_chunks(scope: Mapping[str, Any], receive: Receive) -> AsyncIterator[bytes]:
    """
    Yield the body of an upload as it comes, without a total deadline.

    Raises:
        Problem: 413 for one above the route's limit, 408 for one that pauses or drips.
        ClientGone: The client went away.
    """
    call = call_of(scope)
    limit, idle_s = call.limits.bytes_of(call.access.body), call.limits.idle_s
    loop = asyncio.get_running_loop()
    size, window_start, window_bytes, more = 0, loop.time(), 0, True
    while more:
        try:
            async with asyncio.timeout(idle_s):
                message = await receive()
        except TimeoutError:
            raise body_timeout() from None
        if message["type"] != "http.request":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        more = bool(message.get("more_body"))
        size += len(chunk)
        window_bytes += len(chunk)
        if size > limit:
            raise too_large(limit)
        now = loop.time()
        if now - window_start >= idle_s:
            if more and window_bytes < MIN_RATE * (now - window_start):
                raise body_timeout()
            window_start, window_bytes = now, 0
        if chunk:
            yield chunk


def too_large(limit: int) -> Problem:
    """Return the problem of a body above *limit* bytes."""
    return Problem(413, "payload_too_large", f"The body has at most {limit} bytes here")


def body_timeout() -> Problem:
    """Return the problem of a body that comes too slowly."""
    return Problem(408, "body_timeout", "The body did not come in time", headers={"Connection": "close"})


async def body_of(request: Req, wanted: type[T]) -> T:
    """Return the JSON body of *request* as a *wanted*; raises as :func:`read_body` and :func:`decode_json`."""
    body = await read_body(request.scope, request.receive)
    return decode_json(body, wanted, call_of(request.scope).limits.json())


async def optional_body_of(request: Req, wanted: type[T]) -> T | None:
    """Return the JSON body of *request* as a *wanted*, None when there is none."""
    body = await read_body(request.scope, request.receive)
    return decode_json(body, wanted, call_of(request.scope).limits.json()) if body else None


def decoded(request: Req, body: bytes, wanted: type[T]) -> T:
    """Return the JSON *body* of *request*, read before, as a *wanted*; raises as :func:`decode_json`."""
    return decode_json(body, wanted, call_of(request.scope).limits.json())
