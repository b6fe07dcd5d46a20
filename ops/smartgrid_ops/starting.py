"""What every process does before it starts to work: find its database, and see that it is fit."""

import asyncio
import contextlib

import structlog
from psycopg import OperationalError

from smartgrid_adapters.postgres.migrate import MigrationFailed, migrate
from smartgrid_ops.doctor import examine_store, refusal_of
from smartgrid_ops.embedded_postgres import attach, url_of
from smartgrid_ops.exits import SETTING, Exit
from smartgrid_ops.settings import Settings

log = structlog.get_logger("smartgrid.starting")

DATABASE_RETRY_S = 0.2


def database_of(settings: Settings, *, supervised: bool) -> str:
    """
    Return the URL of the database.

    Args:
        settings: Names an external one, or the home of the embedded one.
        supervised: Whether our supervisor runs the embedded one, which may be starting at the moment.

    Raises:
        Exit: There is none.
    """
    if settings.pg_url is not None:
        return settings.pg_url
    if supervised:
        return url_of(settings.home)
    url = attach(settings.home)
    if url is None:
        log.error("no database: set SMARTGRID_PG_URL, or run smartgrid up in this home", path=str(settings.home))
        raise Exit(SETTING)
    return url


async def prepared(url: str, stop: asyncio.Event, *, migrating: bool) -> bool:
    """
    Wait for the database, refuse one that may lose what was answered, and bring it up to date if that is ours to do.

    Returns:
        Whether to go on; False once *stop* is set.

    Raises:
        Exit: Nothing may start on this database.
    """
    while not stop.is_set():
        try:
            if refusal := refusal_of(await examine_store(url)):
                log.error("unsafe database", reason=refusal)
                raise Exit(SETTING)
            if migrating and (applied := await migrate(url)):
                log.info("migrated", applied=applied)
        except MigrationFailed as error:
            if not isinstance(error.__cause__, OperationalError):  # such as a lock that somebody held for too long
                log.error("the database cannot be migrated", reason=str(error))  # noqa: TRY400 - the text says it all
                raise Exit(SETTING) from error
            log.warning("the database cannot be migrated yet", reason=str(error))
        except OperationalError as error:
            log.warning("the database does not answer yet", exc_info=error)
        else:
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), DATABASE_RETRY_S)
    return False
