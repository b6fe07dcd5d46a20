"""Health and metrics of a process that serves nothing else."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from dataclasses import replace

from litestar.handlers import HTTPRouteHandler

from smartgrid_adapters.postgres.checkpoints import PostgresStandings
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import open_pool
from smartgrid_http import probes
from smartgrid_http.app import build_app
from smartgrid_http.health import HealthBoard
from smartgrid_http.policy import Access
from smartgrid_http.services import Services
from smartgrid_ops.serving import App, serve
from smartgrid_ops.settings import Settings
from smartgrid_ops.system import SystemClock, SystemIds
from smartgrid_ops.telemetry import Build, Heads
from smartgrid_ops.wiring import NoTokens, checks_of, hosts_of, limits_of, watched

HANDLERS: list[HTTPRouteHandler] = [probes.live, probes.ready, probes.health, probes.metrics]
OPEN = {("GET", "/metrics"): Access(least="public", service="gateway")}
"""Who may see the metrics on a listener of their own: whoever the operator lets reach it."""


def with_metrics_of_its_own(services: Services) -> App:
    """Return an application that shows the metrics of *services* and nothing else, to everyone who can reach it."""
    apart = replace(services, metric_sources=list(services.metric_sources))
    app = build_app(apart, handlers=[probes.metrics], hot={}, policy=OPEN)
    apart.metric_sources.pop()  # the counts of this very listener: the others have these names
    return app


@contextlib.asynccontextmanager
async def probed(
    settings: Settings, url: str, sock: socket.socket, stop: asyncio.Event, *, service: str
) -> AsyncGenerator[Services, None]:
    """
    Answer ``/health*`` and ``/metrics`` on *sock* for the process called *service* until *stop* is set.

    It tells how far logs and projections are; its caller may add to ``metric_sources`` of what is given.
    """
    pool = await open_pool(url, max_size=1)
    try:
        board = HealthBoard(needed=checks_of(pool), service=service, services=(service,))
        clock = SystemClock()
        heads = Heads(PostgresStandings(pool), PostgresEventStore(pool), clock)
        services = Services(
            clock=clock,
            ids=SystemIds(),
            authenticator=NoTokens(),
            health=board,
            limits=limits_of(settings),
            hosts=hosts_of(settings),
            metric_sources=[Build(), heads],
        )

        def leave() -> None:
            board.draining = True

        async with watched(board), heads.refreshed():
            app = build_app(services, handlers=HANDLERS, hot={})
            serving = asyncio.ensure_future(serve(app, sock, stop=stop, on_stop=leave))
            try:
                yield services
            finally:
                stop.set()
                await serving
    finally:
        await pool.close()
