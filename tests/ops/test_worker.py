"""A worker over the real store: what is appended shows in the read models, and one worker follows another."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from smartgrid_adapters.postgres.checkpoints import PostgresStandings
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_adapters.postgres.queries.users import PostgresUsers
from smartgrid_adapters.postgres.sealing import PostgresDataKeys
from smartgrid_adapters.sealing import KeySealer, master_key
from smartgrid_commands.ports import StreamWrite
from smartgrid_ops.secrets_files import ensure_secret
from smartgrid_ops.settings import Settings
from smartgrid_ops.worker import PROJECTIONS, NoSuchProjection, run_worker
from smartgrid_projections.queries.standing import Waiting, progress_of_all
from smartgrid_schemas.event import Event
from smartgrid_schemas.identity import PasswordChanged, UserChanged, UserRegistered


@pytest.fixture
def settings(tmp_path: Path, database: str) -> Settings:
    return Settings(home=tmp_path, pg_url=database)


@pytest.fixture
def sealer(settings: Settings, pool: Pool) -> KeySealer:
    return KeySealer(PostgresDataKeys(pool), master_key(ensure_secret(settings.keys / "master-key")))


@pytest.fixture
async def store(pool: Pool, sealer: KeySealer) -> AsyncIterator[PostgresEventStore]:
    store = PostgresEventStore(pool, sealer=sealer)
    await store.start()
    yield store
    await store.stop()


def registered(user_id: str) -> UserRegistered:
    return UserRegistered(
        user_id=user_id, username=user_id, email=f"{user_id}@example.com", role="viewer", customer_id="c1", via="self"
    )


async def append(store: PostgresEventStore, user_id: str, *events: Event, version: int = 0) -> int:
    write = StreamWrite(stream=f"user:{user_id}", events=events, expected_version=version)
    return (await store.append("identity", [write])).last_position


class Worker:
    def __init__(self, settings: Settings) -> None:
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(run_worker(settings, ["users"], self._stop))

    async def stop(self) -> None:
        self._stop.set()
        await self._task

    async def kill(self) -> None:
        """End without leaving, as a process does that is killed: its connections just end."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_accounts_show_as_they_are_now(
    settings: Settings, store: PostgresEventStore, pool: Pool, sealer: KeySealer
) -> None:
    worker = Worker(settings)
    await append(store, "u1", registered("u1"))
    await append(store, "u2", registered("u2"), PasswordChanged(user_id="u2"))
    changed = UserChanged(user_id="u1", email="new@example.com", role="operator", customer_id=None, is_active=False)
    last = await append(store, "u1", changed, version=1)

    assert await Waiting(PostgresStandings(pool)).until(["users"], {"identity": last}, 5000)
    await worker.stop()

    accounts = await PostgresUsers(pool, sealer).users(role=None, after=None, limit=10)
    shown = [(one.username, one.email, one.role, one.customer_id, one.is_active, one.version) for one in accounts]
    assert shown == [
        ("u1", "new@example.com", "operator", None, False, 2),
        ("u2", "u2@example.com", "viewer", "c1", True, 2),
    ]


async def test_no_personal_value_is_at_rest_in_clear(settings: Settings, store: PostgresEventStore, pool: Pool) -> None:
    worker = Worker(settings)
    last = await append(store, "u1", registered("u1"))
    assert await Waiting(PostgresStandings(pool)).until(["users"], {"identity": last}, 5000)
    await worker.stop()

    async def read(connection: Connection) -> list[bytes]:
        cursor = await connection.execute("SELECT username || email || customer_id FROM users")
        return [row[0] for row in await cursor.fetchall()]

    (sealed,) = await run_safely(pool, read)
    assert b"example.com" not in sealed


async def test_a_second_worker_takes_over_when_the_first_one_dies(
    settings: Settings, store: PostgresEventStore, pool: Pool
) -> None:
    waiting = Waiting(PostgresStandings(pool))
    first = Worker(settings)
    assert await waiting.until(["users"], {"identity": await append(store, "u1", registered("u1"))}, 5000)
    second = Worker(settings)

    await first.kill()
    last = await append(store, "u2", registered("u2"))

    assert await waiting.until(["users"], {"identity": last}, 5000)
    await second.stop()


async def test_progress_tells_position_head_and_lag(settings: Settings, store: PostgresEventStore, pool: Pool) -> None:
    last = await append(store, "u1", registered("u1"))
    standings = PostgresStandings(pool)

    behind = {one.name: one for one in await progress_of_all(standings, store, datetime.now(UTC))}
    worker = Worker(settings)
    assert await Waiting(standings).until(["users"], {"identity": last}, 5000)
    await worker.stop()
    after = {one.name: one for one in await progress_of_all(standings, store, datetime.now(UTC))}

    assert sorted(behind) == ["aggregates", "consumption", "readings", "users"]
    assert (behind["users"].lag_events, behind["users"].position) == (1, {"identity": 0})
    assert behind["users"].lag_s > 0
    assert (after["users"].lag_events, after["users"].lag_s, after["users"].head) == (0, 0.0, {"identity": 1})


async def test_an_unknown_projection_is_refused(settings: Settings) -> None:
    with pytest.raises(NoSuchProjection, match="there is no projection forecast"):
        await run_worker(settings, ["forecast"], asyncio.Event())

    assert set(PROJECTIONS) == {"aggregates", "consumption", "users"}
