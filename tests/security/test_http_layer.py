"""
What raw sockets may do to the server and the front together.

Where granian itself answers, its answer is written down here, so that a change of the server is noticed.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from smartgrid_http.app import build_app
from smartgrid_http.limits import Limits
from smartgrid_http.testing import fixed_services
from smartgrid_ops import listener
from smartgrid_ops.serving import serve

HOST = b"Host: localhost\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\n"
LOGIN = b"POST /api/v1/auth/login HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
LIMIT_S = 5.0


@pytest.fixture(scope="module")
async def port() -> AsyncIterator[int]:
    """Return the port of a server of the whole front."""
    app = build_app(fixed_services(hosts=frozenset({"localhost"}), limits=Limits(body_s=0.3, deadline_s=0.5)))
    stop = asyncio.Event()
    sock = listener.bind("127.0.0.1", 0)
    number: int = sock.getsockname()[1]
    task = asyncio.ensure_future(serve(app, sock, stop=stop))
    await asyncio.sleep(0)  # from then on the socket listens
    yield number
    stop.set()
    await task


@contextlib.asynccontextmanager
async def connection(port: int) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Read one answer."""
    async with asyncio.timeout(LIMIT_S):
        head = await reader.readuntil(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(line.split()[1]), headers, body


async def ask(port: int, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    async with connection(port) as (reader, writer):
        writer.write(raw)
        return await answer_of(reader)


OURS = {
    "no host": (LIVE + b"\r\n", 400),
    "two hosts": (LIVE + HOST + HOST + b"\r\n", 400),
    "a foreign host": (LIVE + b"Host: evil.example\r\n\r\n", 400),
    "an empty host": (LIVE + b"Host:\r\n\r\n", 400),
    "a host list": (LIVE + b"Host: localhost, evil.example\r\n\r\n", 400),
    "TRACE": (b"TRACE /health/live HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "CONNECT": (b"CONNECT localhost:22 HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "dot segments": (b"GET /health/../api/v1/users HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "encoded dot segments": (b"GET /health/%2e%2e/api/v1/users HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "an encoded slash": (b"GET /health%2flive HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "doubled slashes": (b"GET //health/live HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "an override of the method": (LIVE + HOST + b"X-HTTP-Method-Override: DELETE\r\n\r\n", 200),
    "an upgrade": (LIVE + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 200),
    "an upgrade to HTTP/2": (LIVE + HOST + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n", 200),
    "both lengths": (LOGIN + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400),
    "a broken chunk": (LOGIN + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400),
    "an oversized expectation": (LOGIN + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", 413),
    "half a body": (LOGIN + b"Content-Length: 20\r\n\r\n{", 408),
    "no body": (LOGIN + b"Content-Length: 20\r\n\r\n", 408),
    "a dripping chunk": (LOGIN + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", 408),
    "a large header": (LIVE + HOST + b"X: " + b"x" * 16_500 + b"\r\n\r\n", 431),
    "a long URI": (b"GET /health/live?" + b"x" * 8_300 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "bytes in the path": (b"GET /api/v1/sensors/\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n", 401),
    "bad UTF-8 in the path": (b"GET /api/v1/sensors/%ff HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "bad UTF-8 in the body": (LOGIN + b'Content-Length: 4\r\n\r\n"\xff"\n', 400),
    "deep nesting": (LOGIN + b"Content-Length: 9000\r\n\r\n" + b"[" * 9000, 400),
    "HTTP/1.0": (b"GET /health/live HTTP/1.0\r\n" + HOST + b"\r\n", 200),
}
"""Cases that the front answers: always a problem of ours, or the answer as if nothing was odd."""

GRANIANS = {
    "two content lengths": (LOGIN + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    "a signed content length": (LOGIN + b"Content-Length: +2\r\n\r\n{}", 400),
    "a NUL in a header": (LIVE + HOST + b"X: a\0b\r\n\r\n", 400),
    "a folded header": (LIVE + HOST + b"X: a\r\n b\r\n\r\n", 400),
    "a blank before the colon": (LIVE + HOST + b"X : a\r\n\r\n", 400),
    "a bare carriage return": (LIVE + HOST + b"X: a\rb\r\n\r\n", 400),
    "bytes in the query": (b"GET /health/live?\xff HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no version": (b"GET /health/live\r\n" + HOST + b"\r\n", 400),
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
}
"""Cases that never reach the front."""


@pytest.mark.parametrize("case", OURS)
async def test_the_front_answers_odd_requests(port: int, case: str) -> None:
    raw, expected = OURS[case]

    status, headers, body = await ask(port, raw)

    assert status == expected, body
    assert headers["x-request-id"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "granian/" not in headers.get("server", "")
    if expected >= 400:
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["status"] == expected
        assert len(body) <= 4096


@pytest.mark.parametrize("case", GRANIANS)
async def test_the_server_refuses_what_is_no_request(port: int, case: str) -> None:
    raw, expected = GRANIANS[case]

    status, _, body = await ask(port, raw)

    assert (status, body) == (expected, b"")


async def test_one_request_gets_one_answer(port: int) -> None:
    async with connection(port) as (reader, writer):
        writer.write((LIVE + HOST + b"\r\n") * 3)
        statuses = [(await answer_of(reader))[0] for _ in range(3)]
        writer.write(LOGIN + b"Content-Length: 2\r\n\r\n{}" + LIVE + HOST + b"Connection: close\r\n\r\n")
        statuses += [(await answer_of(reader))[0] for _ in range(2)]
        async with asyncio.timeout(LIMIT_S):
            rest = await reader.read()

    assert statuses == [200, 200, 200, 400, 200]
    assert rest == b""


async def test_a_refused_body_is_never_read_as_the_next_request(port: int) -> None:
    smuggled = LIVE + HOST + b"\r\n"
    async with connection(port) as (reader, writer):
        writer.write(LOGIN.replace(b"json", b"text") + b"Content-Length: %d\r\n\r\n" % len(smuggled) + smuggled)
        status, _, _ = await answer_of(reader)
        writer.write_eof()
        async with asyncio.timeout(LIMIT_S):
            rest = await reader.read()

    assert status == 415
    assert b"alive" not in rest


async def test_slow_clients_do_not_stop_others(port: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(50):
            _, writer = await stack.enter_async_context(connection(port))
            writer.write(LOGIN + b"Content-Length: 20\r\n\r\n{")
        status, _, _ = await ask(port, LIVE + HOST + b"\r\n")

    assert status == 200
