"""The process that folds the log."""

from collections.abc import Sequence

import structlog
from msgspec.structs import replace

from smartgrid_ops import listener
from smartgrid_ops.exits import SETTING, Exit
from smartgrid_ops.settings import WORKER_PORT, Settings
from smartgrid_ops.signals import stop_event
from smartgrid_ops.starting import database_of, prepared
from smartgrid_ops.worker import PROJECTIONS, run_worker

log = structlog.get_logger("smartgrid.worker")


async def work(settings: Settings, names: Sequence[str], *, supervised: bool) -> None:
    """
    Fold the log into read models until a signal.

    Args:
        settings: All of them.
        names: Projections; none means all.
        supervised: Whether our supervisor started us: then the database is ours to bring up to date, and no port is
            opened.

    Raises:
        Exit: There is no such projection, or no database.
    """
    if unknown := sorted(set(names) - set(PROJECTIONS)):
        log.error("no such projection", name=unknown[0])
        raise Exit(SETTING)
    stop = stop_event()
    url = database_of(settings, supervised=supervised)
    settings = replace(settings, pg_url=url)
    if not await prepared(url, stop, migrating=supervised):
        return
    if supervised:
        await run_worker(settings, names, stop)
        return
    from smartgrid_ops.probes import probed  # noqa: PLC0415 - the web framework is not needed under a supervisor

    sock = listener.bind(settings.host, settings.port or WORKER_PORT)
    async with probed(settings, url, sock, stop, service="worker"):
        await run_worker(settings, names, stop)
