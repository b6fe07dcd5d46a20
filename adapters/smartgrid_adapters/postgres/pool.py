"""Connections that heal after PostgreSQL restarts."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, InterfaceError, OperationalError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from smartgrid_commands.ports import StoreUnavailable

Connection = AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]
T = TypeVar("T")

APP_ROLE = "smartgrid_app"
WAIT_S = 1.0
"""How long anyone waits for a connection before the answer is "store unavailable" [s]."""

GONE = (OperationalError, InterfaceError)
"""What psycopg raises when the connection, not the statement, is at fault."""

_LINK: Mapping[str, str] = {
    "application_name": "smartgrid",
    "connect_timeout": "2",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "10000",
}


def conninfo_of(url: str, *, role: str = APP_ROLE) -> str:
    """
    Return *url* with our link settings, working as *role* from the first statement on.

    The privileges of *role* hold, not those of the user who signs in, so that not even an administrator's connection
    string lets the application change a log. Times come in UTC.
    """
    options = f"-c role={role} -c timezone=UTC"
    given = conninfo_to_dict(url)
    if given.get("options"):
        options = f"{given['options']} {options}"
    return make_conninfo(url, **{**_LINK, **{k: str(v) for k, v in given.items() if k in _LINK}, "options": options})


async def open_pool(url: str, *, min_size: int = 1, max_size: int = 8, role: str = APP_ROLE) -> Pool:
    """
    Open a pool of autocommit connections to *url* without waiting for the first one.

    There is no check when a connection is handed out: after a restart each stale one would cost a growing back-off
    (8 of them 30 s). Units of work go through :func:`run_safely` instead, which heals the whole pool at once.
    """
    pool: Pool = AsyncConnectionPool(
        conninfo_of(url, role=role),
        connection_class=AsyncConnection[TupleRow],
        kwargs={"autocommit": True},
        min_size=min_size,
        max_size=max_size,
        timeout=WAIT_S,
        reconnect_timeout=300,
        name="smartgrid",
        open=False,
    )
    await pool.open(wait=False)
    return pool


async def run_safely(pool: Pool, unit: Callable[[Connection], Awaitable[T]]) -> T:
    """
    Run *unit* on a connection; if that turns out to be dead, heal the pool and run it once more.

    For units that may run twice: reads, and transactions that are known not to have reached their commit.

    Raises:
        StoreUnavailable: No connection within :data:`WAIT_S`, or the second one died as well, or the server lacks
            space or memory.
    """
    try:
        try:
            async with pool.connection() as conn:
                return await unit(conn)
        except PoolTimeout:
            raise
        except GONE as error:
            if not is_connection_lost(error):
                raise
            await pool.check()
            async with pool.connection() as conn:
                return await unit(conn)
    except PoolTimeout as error:
        raise StoreUnavailable("no connection to PostgreSQL") from error
    except GONE as error:
        if is_connection_lost(error):
            raise StoreUnavailable("the connection to PostgreSQL was lost") from error
        if lacks_means(error):
            raise StoreUnavailable("PostgreSQL lacks space, memory or connections") from error
        raise


def is_connection_lost(error: psycopg.Error) -> bool:
    """
    Return whether *error* means that the connection is gone, not that a statement was refused.

    Without an SQLSTATE the client itself noticed; class 57P is the server shutting down or starting up, and 08 a
    connection failure.
    """
    if not isinstance(error, GONE):
        return False
    state = error.sqlstate
    return state is None or state.startswith(("57P", "08"))


def lacks_means(error: BaseException) -> bool:
    """Return whether a statement was refused for lack of space, memory or connections, or by the disk: try later."""
    return isinstance(error, OperationalError) and (error.sqlstate or "").startswith(("53", "58"))


def dedicated(pool: Pool) -> Callable[[], Awaitable[Connection]]:
    """Return a function that opens a connection like those of *pool*, for someone who keeps it."""

    async def connect() -> Connection:
        kwargs: dict[str, Any] = {"autocommit": True}
        conninfo = pool.conninfo if isinstance(pool.conninfo, str) else ""
        return await AsyncConnection.connect(conninfo, **kwargs)

    return connect
