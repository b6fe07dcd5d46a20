"""Keeps projections up to date until told to stop."""

import asyncio
import os
import platform
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from smartgrid_adapters.postgres.checkpoints import PostgresCheckpoints
from smartgrid_adapters.postgres.consumption import PostgresConsumption
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.folding import fold_into
from smartgrid_adapters.postgres.pool import Connection, Pool, dedicated, open_pool
from smartgrid_adapters.postgres.rollups import PostgresRollups
from smartgrid_adapters.postgres.sealing import PostgresDataKeys
from smartgrid_adapters.postgres.user_tables import PostgresUserTables
from smartgrid_adapters.postgres.versions import PostgresVersions
from smartgrid_adapters.sealing import KeySealer, master_key
from smartgrid_commands.ports import StoreUnavailable
from smartgrid_commands.sealing import Sealer
from smartgrid_ops.failpoints import Calls, calls_of, counted
from smartgrid_ops.secrets_files import ensure_secret
from smartgrid_ops.settings import Settings
from smartgrid_ops.tending import Tending
from smartgrid_projections.ports import Checkpoints, EventLog, Unavailable
from smartgrid_projections.projection import Projection
from smartgrid_projections.read_models.aggregates import AGGREGATES
from smartgrid_projections.read_models.consumption import CONSUMPTION
from smartgrid_projections.read_models.users import USERS
from smartgrid_projections.runtime.runner import Pace, Runner
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event

Tables = Callable[[Any, Sealer, int], Any]
PROJECTIONS: Mapping[str, tuple[Projection[Any], Tables]] = {
    AGGREGATES.name: (AGGREGATES, lambda connection, _, version: PostgresRollups(connection, version)),
    CONSUMPTION.name: (CONSUMPTION, PostgresConsumption),
    USERS.name: (USERS, PostgresUserTables),
}
"""What a worker can fold, and the tables it fills. ``readings`` is written with the log itself."""

MOST_PROCESSES = 4
"""Processes that fold a long log in parts; the store and what is in use need theirs too."""


class NoSuchProjection(ValueError):
    """A worker was asked for a projection that does not exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no projection {name}; there are {', '.join(sorted(PROJECTIONS))}")


async def run_worker(settings: Settings, names: Sequence[str], stop_event: asyncio.Event) -> None:
    """
    Fold the logs until *stop_event* is set; then finish the batches in hand and return.

    A projection that another worker has is waited for. One that meets an event it cannot fold stops, with its error
    in ``projections``, while the others go on. Other versions of it are built beside it.

    Args:
        settings: All of them; ``pg_url`` names the database.
        names: Projections; none means all.
        stop_event: When to stop.

    Raises:
        NoSuchProjection: *names* holds something else.
    """
    for name in names:
        if name not in PROJECTIONS:
            raise NoSuchProjection(name)
    async with _opened(settings) as (pool, store, sealer):
        calls = calls_of(settings.failpoint, "projections", Unavailable)
        versions, url = PostgresVersions(pool), settings.pg_url or ""

        async def fold(tables: PostgresRollups, up_to: int) -> None:
            await fold_into(tables, url, up_to, max(1, min(MOST_PROCESSES, os.cpu_count() or 1)))

        folds = {AGGREGATES.name: fold}

        def tending(name: str) -> Tending:
            def runner(version: int, pace: Pace | None) -> Runner[Any]:
                return runner_of(name, dedicated(pool), store, sealer, calls=calls, pace=pace, version=version)

            return Tending(name, versions, runner, folds.get(name))

        await asyncio.gather(*(tending(name).run(stop_event) for name in names or PROJECTIONS))


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[tuple[Pool, PostgresEventStore, Sealer], None]:
    if settings.pg_url is None:
        raise RuntimeError("a worker is told its database")  # a mistake of ours
    pool = await open_pool(settings.pg_url, max_size=4)
    try:
        key_file = settings.master_key or ensure_secret(settings.keys / "master-key")
        sealer = KeySealer(PostgresDataKeys(pool), master_key(key_file))
        store = PostgresEventStore(pool, sealer=sealer)
        await store.start()
        try:
            yield pool, store, sealer
        finally:
            await store.stop()
    finally:
        await pool.close()


def runner_of(  # noqa: PLR0913  # what a runner is made of, and what tests change of it
    name: str,
    connect: Callable[[], Awaitable[Connection]],
    store: EventLog,
    sealer: Sealer,
    *,
    calls: Calls | None = None,
    pace: Pace | None = None,
    lease_s: float = 5.0,
    version: int = 1,
) -> Runner[Any]:
    """Return what folds a version of projection *name*; its port calls are counted by *calls*, if given."""
    projection, tables = PROJECTIONS[name]
    checkpoints: Checkpoints[Any] = PostgresCheckpoints(
        connect,
        name=projection.name,
        version=version,
        owner=f"{platform.node()}:{os.getpid()}",
        tables=lambda connection: tables(connection, sealer, version),
        lease_s=lease_s,
    )
    source: EventLog = HealingLog(store)
    return Runner(projection, counted(calls, source, "log"), counted(calls, checkpoints, "checkpoints"), pace)


class HealingLog:
    """A log whose outages the runner waits out."""

    def __init__(self, store: EventLog) -> None:
        self._store = store

    async def read_log(
        self, log: str, *, after: int = 0, limit: int = 1000, up_to: int | None = None
    ) -> list[Recorded[Event]]:
        """Return up to *limit* events after *after*."""
        try:
            return await self._store.read_log(log, after=after, limit=limit, up_to=up_to)
        except StoreUnavailable as error:
            raise Unavailable(str(error)) from error

    async def head(self, log: str) -> int:
        """Return the newest position."""
        try:
            return await self._store.head(log)
        except StoreUnavailable as error:
            raise Unavailable(str(error)) from error

    async def wait_for(self, log: str, position: int, *, timeout_s: float) -> bool:
        """Wait until *position* is visible."""
        try:
            return await self._store.wait_for(log, position, timeout_s=timeout_s)
        except StoreUnavailable as error:
            raise Unavailable(str(error)) from error
