"""Health and metrics of a process that serves nothing else."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator

from litestar.handlers import HTTPRouteHandler

from smartgrid_adapters.postgres.pool import open_pool
from smartgrid_http import probes
from smartgrid_http.app import build_app
from smartgrid_http.health import HealthBoard
from smartgrid_http.services import Services
from smartgrid_ops.serving import serve
from smartgrid_ops.settings import Settings
from smartgrid_ops.system import SystemClock, SystemIds
from smartgrid_ops.wiring import NoTokens, checks_of, hosts_of, limits_of, watched

HANDLERS: list[HTTPRouteHandler] = [probes.live, probes.ready, probes.health, probes.metrics]


@contextlib.asynccontextmanager
async def probed(
    settings: Settings, url: str, sock: socket.socket, stop: asyncio.Event, *, service: str
) -> AsyncGenerator[Services, None]:
    """
    Answer ``/health*`` and ``/metrics`` on *sock* for the process called *service* until *stop* is set.

    Its caller may add metrics to ``metric_sources`` of what is given.
    """
    pool = await open_pool(url, max_size=1)
    try:
        board = HealthBoard(needed=checks_of(pool), service=service, services=(service,))
        services = Services(
            clock=SystemClock(),
            ids=SystemIds(),
            authenticator=NoTokens(),
            health=board,
            limits=limits_of(settings),
            hosts=hosts_of(settings),
        )

        def leave() -> None:
            board.draining = True

        async with watched(board):
            app = build_app(services, handlers=HANDLERS, hot={})
            serving = asyncio.ensure_future(serve(app, sock, stop=stop, on_stop=leave))
            try:
                yield services
            finally:
                stop.set()
                await serving
    finally:
        await pool.close()
