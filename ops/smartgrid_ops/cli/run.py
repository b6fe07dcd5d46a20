"""Commands that run something until a signal."""

import logging
import os
from collections.abc import Coroutine
from enum import StrEnum
from typing import Annotated, Any

import typer

from smartgrid_ops import lifeline, logs
from smartgrid_ops.cli.common import exit_codes, settings_of
from smartgrid_ops.exits import DRAINED

ListenFd = Annotated[int | None, typer.Option(hidden=True)]
LifelineFd = Annotated[int | None, typer.Option(hidden=True)]
Restarted = Annotated[bool, typer.Option("--restarted", hidden=True)]


class ServiceName(StrEnum):
    """What can be served."""

    GATEWAY = "gateway"
    INGESTION = "ingestion"
    ANALYTICS = "analytics"
    NOTIFICATION = "notification"
    USERS = "users"


def register(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.command("up")(up)
    app.command("serve")(serve)
    app.command("worker")(worker)


def up() -> None:
    """
    Run everything on this machine, in the foreground: PostgreSQL, the API and the worker.

    Ends with 0 after SIGINT or SIGTERM, 1 after a crash, 2 for a bad setting, 3 if the home is in use, 4 if the port
    is.
    """
    settings = settings_of()
    from smartgrid_ops.supervisor import Supervisor  # noqa: PLC0415 - each command imports what it runs, no more

    raise typer.Exit(Supervisor(settings).run())


def serve(
    service: ServiceName,
    listen_fd: ListenFd = None,
    lifeline_fd: LifelineFd = None,
    *,
    restarted: Restarted = False,
) -> None:
    """Serve one service on its own port; gateway serves them all."""
    settings = settings_of()
    _born(lifeline_fd)
    with exit_codes():
        logs.configure("api" if listen_fd is not None else service.value, settings.logs)
        from smartgrid_ops.api_process import serve_service  # noqa: PLC0415 - see up

        _run(serve_service(settings, service.value, listen_fd=listen_fd, restarted=restarted))


def worker(names: Annotated[list[str] | None, typer.Argument()] = None, lifeline_fd: LifelineFd = None) -> None:
    """Fold the log into read models; all of them, or those named."""
    settings = settings_of()
    _born(lifeline_fd)
    with exit_codes():
        logs.configure("worker", settings.logs)
        from smartgrid_ops.worker_process import work  # noqa: PLC0415 - see up

        _run(work(settings, names or [], supervised=lifeline_fd is not None))


def _born(lifeline_fd: int | None) -> None:
    if lifeline_fd is not None:
        os.set_inheritable(lifeline_fd, False)  # noqa: FBT003 - the only form there is
        lifeline.follow(lifeline_fd)


def _run(main: Coroutine[Any, Any, None]) -> None:
    import uvloop  # noqa: PLC0415 - the supervisor has no event loop

    uvloop.run(main)
    logging.shutdown()
    # Not by way of the interpreter's end: a thread of the HTTP server that asks for the interpreter then is unwound
    # through Rust, which aborts the process after a perfect drain.
    os._exit(DRAINED)
