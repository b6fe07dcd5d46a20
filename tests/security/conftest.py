"""Worlds in memory and on PostgreSQL."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from tests.security.world import MASTER, World, memory_world, world_of

from smartgrid_adapters.postgres.accounts import PostgresAccounts
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import open_pool
from smartgrid_adapters.postgres.sealing import PostgresDataKeys
from smartgrid_adapters.sealing import KeySealer
from smartgrid_http.testing import FixedClock


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a world without a database."""
    return memory_world(tmp_path)


@pytest.fixture(params=["memory", "postgres"])
def database_or_none(request: pytest.FixtureRequest) -> str | None:
    """Return the URL of a fresh database, or None for a store in memory."""
    return cast("str", request.getfixturevalue("database")) if request.param == "postgres" else None


@pytest.fixture
async def each_world(database_or_none: str | None, tmp_path: Path) -> AsyncIterator[World]:
    """Return a world on each kind of store."""
    if database_or_none is None:
        yield memory_world(tmp_path)
        return
    pool = await open_pool(database_or_none)
    sealer = KeySealer(PostgresDataKeys(pool), MASTER)
    store = PostgresEventStore(pool, sealer=sealer)
    await store.start()
    yield world_of(tmp_path, store=store, accounts=PostgresAccounts(pool), sealer=sealer, clock=FixedClock())
    await store.stop()
    await pool.close()
