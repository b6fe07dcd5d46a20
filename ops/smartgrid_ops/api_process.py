"""The process that answers requests."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import structlog

from smartgrid_commands.identity import Identity
from smartgrid_http import probes
from smartgrid_http.app import build_app
from smartgrid_http.gateway import litestar_handlers
from smartgrid_http.policy import Service
from smartgrid_http.services import Services
from smartgrid_ops import listener
from smartgrid_ops.probes import with_metrics_of_its_own
from smartgrid_ops.serving import serve
from smartgrid_ops.settings import PORTS, Settings
from smartgrid_ops.signals import stop_event
from smartgrid_ops.starting import database_of, prepared
from smartgrid_ops.wiring import build_services, watched

log = structlog.get_logger("smartgrid.api")


async def serve_service(
    settings: Settings, service: Service, *, listen_fd: int | None = None, restarted: bool = False
) -> None:
    """
    Serve the routes of *service* until a signal.

    Args:
        settings: All of them.
        service: ``gateway`` serves everything.
        listen_fd: A bound socket of the supervisor, which then has us bring the database up to date.
        restarted: Whether the supervisor started us before: what was handed out then stays good.
    """
    stop = stop_event()
    file = settings.home / "bootstrap-code"
    renew = not restarted or not file.exists()
    supervised = listen_fd is not None
    sock = _adopted(listen_fd) if listen_fd is not None else listener.bind(settings.host, _port(settings, service))
    url = database_of(settings, supervised=supervised)
    if not await prepared(url, stop, migrating=supervised):
        return
    async with build_services(settings, url) as services, watched(services.health) as board:
        board.service = service
        if service != "gateway":
            board.services = (service,)
        if supervised and services.identity is not None:
            await _offer_bootstrap(services.identity, file, renew=renew)
        handlers = litestar_handlers()
        if settings.metrics_port is not None:
            handlers = [handler for handler in handlers if handler is not probes.metrics]
        app = build_app(services, only=None if service == "gateway" else service, handlers=handlers)
        address, port = sock.getsockname()[:2]
        log.info("serving", service=service, address=address, port=port)

        def leave() -> None:
            board.draining = True

        async with _metrics_apart(settings, services, stop):
            await serve(
                app,
                sock,
                stop=stop,
                drain_delay_s=settings.drain_delay_s,
                connections=settings.limits.get("connections", 1000),
                on_stop=leave,
            )


@contextlib.asynccontextmanager
async def _metrics_apart(settings: Settings, services: Services, stop: asyncio.Event) -> AsyncGenerator[None, None]:
    """Show the metrics on a port of their own, if there is one."""
    if settings.metrics_port is None:
        yield
        return
    sock = listener.bind(settings.host, settings.metrics_port)
    serving = asyncio.ensure_future(serve(with_metrics_of_its_own(services), sock, stop=stop))
    yield
    await serving


async def _offer_bootstrap(identity: Identity, file: Path, *, renew: bool) -> None:
    """While there is no admin, let the owner of the home become one."""
    if renew and await identity.issue_bootstrap_code():
        log.info("no admin yet: POST /api/v1/auth/bootstrap takes the code in this file", path=str(file))


def _adopted(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    return sock


def _port(settings: Settings, service: Service) -> int:
    return settings.port or PORTS[service]
