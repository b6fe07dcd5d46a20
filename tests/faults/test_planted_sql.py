"""Bugs planted in what only PostgreSQL runs: each healthy store passes the same check that finds the bug."""

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psycopg
import pytest
from tests.kit import checkers
from tests.kit.checkers import Violated

from smartgrid_adapters.postgres import group_commit
from smartgrid_adapters.postgres.audit import PostgresChains
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import open_pool
from smartgrid_commands.ports import ANY_VERSION, Appended, StoreUnavailable, StreamWrite, WrongExpectedVersion
from smartgrid_schemas.telemetry import SensorConfigured

pytestmark = pytest.mark.faults

LOG = "telemetry"
LOCK = "pg_advisory_xact_lock(1397181511"
WRITERS = 4
EACH = 25


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[PostgresEventStore]:
    pool = await open_pool(url)
    store = PostgresEventStore(pool)
    try:
        yield store
    finally:
        await store.stop()
        await pool.close()


def write(n: int = 1, expected_version: int = ANY_VERSION) -> StreamWrite:
    events = [SensorConfigured(sensor_id="s", name=f"{i}") for i in range(n)]
    return StreamWrite(stream="sensor:a", events=events, expected_version=expected_version)


def plant(url: str, function: str, *changes: tuple[str, str]) -> None:
    """Replace pieces of the text of *function*; each has to be there."""
    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = %s", (function,)).fetchone()
        assert row is not None, function
        text: str = row[0]
        for old, new in changes:
            assert old in text, f"{function} does not hold {old}: {text}"
            text = text.replace(old, new)
        conn.execute(text.encode())


async def check_writers(url: str) -> None:
    """Append from several processes at once: all succeed, and the log is in order."""
    async with opened(url) as first, opened(url) as second, opened(url) as third, opened(url) as fourth:
        stores = (first, second, third, fourth)
        for _ in range(EACH):
            await asyncio.gather(*(store.append(LOG, [write()]) for store in stores))
        checkers.in_order(await first.read_log(LOG, limit=10_000))


async def test_an_append_without_the_lock_is_found(database: str) -> None:
    await check_writers(database)

    plant(database, f"{LOG}_append", (LOCK, "mod(1397181511"))

    with pytest.raises((psycopg.Error, Violated)):
        await check_writers(database)


async def check_gapless(url: str) -> None:
    """Append, be refused, append again: no position is missing."""
    async with opened(url) as store:
        await store.append(LOG, [write()])
        with pytest.raises(WrongExpectedVersion):
            await store.append(LOG, [write(1, 77)])
        await store.append(LOG, [write()])
        checkers.in_order(await store.read_log(LOG))


async def test_positions_from_a_sequence_are_found(database: str) -> None:
    await check_gapless(database)

    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("CREATE SEQUENCE planted")  # the healthy check left two events
        conn.execute("GRANT ALL ON SEQUENCE planted TO smartgrid_app")
    plant(database, f"{LOG}_append", ("coalesce(c.last_position, 0), c.rec", "nextval('planted') + 1, c.rec"))

    with pytest.raises((psycopg.Error, Violated)):
        await check_gapless(database)


async def check_chain(url: str) -> None:
    """Follow the chain of digests over some commits."""
    async with opened(url) as store:
        for size in (1, 3, 2):
            await store.append(LOG, [write(size)])
        found = await PostgresChains(store.pool).verify()
        assert found.ok, found.first_bad


async def test_a_digest_that_skips_an_event_is_found(database: str) -> None:
    await check_chain(database)

    plant(database, f"{LOG}_append", ("v_hashes, v_n", "substr(v_hashes, 33), v_n"))

    with pytest.raises(AssertionError):
        await check_chain(database)


async def check_bounded(url: str) -> None:
    """While the log's lock is held elsewhere, callers beyond the queue's bound are refused at once."""
    async with opened(url) as store, await psycopg.AsyncConnection.connect(url) as holder:
        await holder.execute("SELECT pg_advisory_xact_lock(1397181511, 1)")
        callers = [asyncio.create_task(store.append(LOG, [write(10)])) for _ in range(50)]
        await asyncio.wait(callers, timeout=0.3)
        refused = sum(task.done() and isinstance(task.exception(), StoreUnavailable) for task in callers)
        await holder.rollback()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        assert refused > 0, "all wait"
        assert all(isinstance(outcome, Appended | StoreUnavailable) for outcome in outcomes)


async def test_a_queue_without_bound_is_found(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "QUEUE_ROWS", 100)
    await check_bounded(database)

    monkeypatch.setattr(group_commit, "QUEUE_ROWS", math.inf)

    with pytest.raises(AssertionError, match="all wait"):
        await check_bounded(database)
