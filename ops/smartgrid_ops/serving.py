"""
Serve an ASGI app with granian inside our own event loop, and stop without losing a request.

granian as a program of its own refuses new connections the moment it gets a signal. Embedded, the signal is ours: first
readiness turns false, then the server goes on as before for the drain delay, then every answer says
``Connection: close`` while no new connection comes in, then it stops listening, and what is in flight is finished.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from smartgrid_ops import listener

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

HEADER_TIMEOUT_MS = 5000
IN_FLIGHT_S = 30.0
"""How long requests in flight may take once the server has stopped listening [s]."""

_LAST_ANSWERS_S = 1.0
_QUIET_S = 0.05
_LOGGING = {"incremental": True, "handlers": {}, "formatters": {}, "loggers": {"_granian": {"propagate": True}}}
"""Leave the handlers of this process as they are, and use them."""
_CLOSE = (b"connection", b"close")

log = structlog.get_logger("smartgrid.serving")


class Draining:
    """
    An ASGI app around *app* that knows what is in flight and can tell clients to go.

    Attributes:
        in_flight: Requests that have no whole answer yet.
        closing: Whether every answer from now on closes its connection.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self.in_flight = 0
        self.closing = False

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_closing(message: Message) -> None:
            if self.closing and message["type"] == "http.response.start":
                headers = message.get("headers", ())
                message["headers"] = [*(head for head in headers if head[0] != b"connection"), _CLOSE]
            await send(message)

        self.in_flight += 1
        try:
            await self._app(scope, receive, send_closing)
        finally:
            self.in_flight -= 1

    async def quiet(self) -> None:
        """
        Return when nothing has been in flight for a moment, or a second has passed.

        A client that keeps its connection learns with an answer that it has to go; closing under its next request would
        lose that one.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _LAST_ANSWERS_S
        quiet_since = loop.time()
        while loop.time() < min(end, quiet_since + _QUIET_S):
            await asyncio.sleep(0.005)
            if self.in_flight:
                quiet_since = loop.time()


class _Embedded(Server):
    """granian on a socket that we opened."""

    def __init__(self, sock: socket.socket, app: App, connections: int) -> None:
        self._sock = sock
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,  # behind HTTP/2 health checks it hangs at stop
            websockets=False,
            backlog=listener.BACKLOG,
            backpressure=connections,  # below the number of kept connections it looks like time-outs
            http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS),
            log_dictconfig=_LOGGING,
            log_level=LogLevels.error,
        )

    def _init_shared_socket(self) -> None:
        from granian._granian import SocketHolder  # noqa: PLC0415 - private, so in the one place that needs it

        holder: Any = SocketHolder  # its type hints lack the arguments
        self._ssp = None
        self._shd: Any = holder(self._sock.detach(), False, listener.BACKLOG)  # noqa: FBT003 - a TCP socket


async def serve(  # noqa: PLR0913 - all by name
    app: App,
    sock: socket.socket,
    *,
    stop: asyncio.Event,
    drain_delay_s: float = 0.0,
    connections: int = 1000,
    on_stop: Callable[[], None] = lambda: None,
) -> None:
    """
    Serve *app* on the bound socket *sock* until *stop* is set and everything received was answered.

    Args:
        app: The application; its lifespan is not run.
        sock: Bound; it is closed when this returns.
        stop: Starts the drain.
        drain_delay_s: How long to go on as before once *stop* is set [s].
        connections: Most connections at a time; more wait.
        on_stop: Called first of all; turns readiness false.

    Raises:
        PortInUse: Another program got the port in the meantime.
    """
    draining = Draining(app)
    listener.listen(sock)
    control = sock.dup()
    server = _Embedded(sock, draining, connections)
    serving = asyncio.ensure_future(server.serve())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        stopping.cancel()
        await serving
        raise RuntimeError("the HTTP server ended by itself")
    on_stop()
    log.info("draining", delay_s=drain_delay_s)
    await asyncio.sleep(drain_delay_s)
    draining.closing = True
    with control:
        listener.hold_off(control)
        await draining.quiet()
    server.stop()  # type: ignore[no-untyped-call]  # granian's
    try:
        await asyncio.wait_for(serving, IN_FLIGHT_S)
    except TimeoutError:
        log.warning("requests were cut", count=draining.in_flight)
