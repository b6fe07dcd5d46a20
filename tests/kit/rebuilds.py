"""Comparing read models with what a fold from the beginning makes."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from tests.kit import checkers
from tests.kit.tables import Connection, dump, forget

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import dedicated, open_pool
from smartgrid_adapters.postgres.sealing import PostgresDataKeys
from smartgrid_adapters.sealing import KeySealer
from smartgrid_ops.worker import runner_of
from smartgrid_projections.runtime.runner import Pace
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event

MASTER = b"m" * 32


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[tuple[PostgresEventStore, KeySealer]]:
    """Open the store of a database, with the sealer of the kit."""
    pool = await open_pool(url)
    sealer = KeySealer(PostgresDataKeys(pool), MASTER)
    store = PostgresEventStore(pool, sealer=sealer)
    try:
        yield store, sealer
    finally:
        await store.stop()
        await pool.close()


async def whole_log(store: PostgresEventStore) -> list[Recorded[Event]]:
    """Return all events of the telemetry log."""
    events: list[Recorded[Event]] = []
    while more := await store.read_log("telemetry", after=len(events), limit=5_000):
        events += more
    return events


async def fold_all(store: PostgresEventStore, sealer: KeySealer, names: Sequence[str], batch_events: int) -> None:
    """Bring projections up to date."""
    for name in names:
        runner = runner_of(name, dedicated(store.pool), store, sealer, pace=Pace(batch_events=batch_events))
        while await runner.step():
            pass
        await runner.leave()


async def check_against_a_rebuild(url: str, names: Sequence[str]) -> None:
    """Check I7: fold all of *names* from the beginning and compare."""
    async with await Connection.connect(url, autocommit=True) as watch, opened(url) as (store, sealer):
        stored = await dump(watch)
        await forget(watch)
        await fold_all(store, sealer, names, 7)
        checkers.converged(" and ".join(names), 0, 0, stored, await dump(watch))
