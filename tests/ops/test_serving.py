"""A stop loses no request: what is in flight is finished, and who keeps a connection is told with an answer."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from smartgrid_ops import listener
from smartgrid_ops.serving import Receive, Send, serve

REQUEST = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
LIMIT_S = 10.0


class Application:
    """Answers at once, but on ``/held`` only when released."""

    def __init__(self) -> None:
        self.held = asyncio.Event()
        self.released = asyncio.Event()
        self.answered = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        _ = receive
        if scope["path"] == "/held":
            self.held.set()
            await self.released.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        self.answered += 1


class Served:
    """A running server and what a client does with it."""

    def __init__(self, application: Application, port: int, stop: asyncio.Event, task: "asyncio.Task[None]") -> None:
        self.application, self.port, self.stop, self.task = application, port, stop, task
        self.told: list[str] = []

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncGenerator["Connection", None]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Connection(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def refuses(self) -> bool:
        return not await _accepts(self.port)

    async def was_told(self) -> bool:
        return bool(self.told)

    async def is_busy(self) -> bool:
        return self.application.answered >= 500

    async def ended(self) -> None:
        await asyncio.wait_for(self.task, LIMIT_S)


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, path: bytes = b"/") -> None:
        self._writer.write(REQUEST % path)

    async def answer(self) -> bytes:
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), LIMIT_S)
        assert await self._reader.readexactly(2) == b"ok"
        return head

    async def get(self, path: bytes = b"/") -> bytes:
        self.send(path)
        return await self.answer()

    async def closed(self) -> bool:
        return await asyncio.wait_for(self._reader.read(1), LIMIT_S) == b""


@contextlib.asynccontextmanager
async def served(drain_delay_s: float = 0.0) -> AsyncGenerator[Served, None]:
    sock = listener.bind("127.0.0.1", 0)
    application, stop = Application(), asyncio.Event()
    one = Served(application, sock.getsockname()[1], stop, asyncio.Task[None](asyncio.sleep(0)))
    one.task = asyncio.create_task(
        serve(application, sock, stop=stop, drain_delay_s=drain_delay_s, on_stop=lambda: one.told.append("stop"))
    )
    await _until(lambda: _accepts(one.port))
    try:
        yield one
    finally:
        application.released.set()
        stop.set()
        await one.ended()


async def _until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not await true():  # noqa: ASYNC110 - what is waited for happens in the kernel or the server
            await asyncio.sleep(0.005)


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_what_is_in_flight_is_answered_after_it_stopped_listening() -> None:
    async with served() as server, server.connection() as held:
        held.send(b"/held")
        await server.application.held.wait()
        server.stop.set()
        await _until(server.refuses)

        assert not server.task.done()
        server.application.released.set()
        assert b"connection: close" in await held.answer()
        await server.ended()


async def test_a_kept_connection_learns_with_an_answer_that_it_has_to_go() -> None:
    async with served() as server, server.connection() as kept, server.connection() as held:
        held.send(b"/held")  # keeps the server from being quiet
        await server.application.held.wait()

        assert b"connection: close" not in await kept.get()
        server.stop.set()
        await _until(server.was_told)
        assert b"connection: close" in await kept.get()
        assert await kept.closed()


async def test_during_the_drain_delay_it_serves_as_before_but_has_said_so_first() -> None:
    async with served(drain_delay_s=0.5) as server, server.connection() as kept:
        server.stop.set()
        await _until(server.was_told)

        assert b"connection: close" not in await kept.get()
        assert b"connection: close" not in await kept.get()


async def test_an_idle_server_ends_at_once_and_refuses() -> None:
    async with served() as server, server.connection() as idle:
        await idle.get()
        server.stop.set()
        async with asyncio.timeout(2.0):
            await server.ended()

        assert await idle.closed()
        assert not await _accepts(server.port)


async def test_clients_that_hammer_through_a_stop_lose_nothing() -> None:
    lost: list[str] = []
    asked = 0

    async def hammer(server: Served) -> None:
        nonlocal asked
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            except ConnectionRefusedError:
                return  # it said that it is gone before anything was asked
            except OSError as error:
                lost.append(f"connect: {error!r}")
                return
            connection = Connection(reader, writer)
            try:
                while b"connection: close" not in await connection.get():
                    asked += 1
            except (OSError, asyncio.IncompleteReadError) as error:
                lost.append(repr(error))
                return
            finally:
                writer.close()

    async with served() as server:
        clients = [asyncio.create_task(hammer(server)) for _ in range(25)]
        await _until(server.is_busy)
        server.stop.set()
        await server.ended()
        await asyncio.wait_for(asyncio.gather(*clients), LIMIT_S)

    assert asked >= 475
    assert lost == []


async def test_a_port_that_somebody_listens_on_is_refused_when_bound() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(listener.PortInUse, match="SMARTGRID_PORT"):
        listener.bind("127.0.0.1", other.getsockname()[1])


async def test_a_bound_port_refuses_clients_until_it_listens() -> None:
    sock = listener.bind("127.0.0.1", 0)
    with contextlib.closing(sock):
        port = sock.getsockname()[1]

        assert not await _accepts(port)
        listener.listen(sock)
        assert await _accepts(port)


async def test_a_socket_that_was_held_off_accepts_again_for_its_next_user() -> None:
    sock = listener.bind("127.0.0.1", 0)
    with contextlib.closing(sock):
        listener.listen(sock)
        listener.hold_off(sock)
        listener.listen(sock)

        async with asyncio.timeout(0.5):
            assert await _accepts(sock.getsockname()[1])
