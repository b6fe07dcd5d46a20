"""The connection breaks around a commit: whatever is answered is true."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.kit.proxy import HEALTHY, FaultProxy, Faults, Way

from smartgrid_adapters.postgres import effects as postgres_effects
from smartgrid_adapters.postgres import group_commit, log_writer
from smartgrid_adapters.postgres.arrays import EventRow
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.log_writer import Begun, LogWriter, copy_events
from smartgrid_adapters.postgres.pool import Connection, Pool, open_pool
from smartgrid_commands.ports import Appended, Effect, OutcomeUnknown, StoreUnavailable, StreamWrite
from smartgrid_schemas.telemetry import SensorConfigured

pytestmark = pytest.mark.faults

LOG = "telemetry"


WRITING = b"telemetry"
"""What only connections that append send."""


def cut(*, answer: bytes | None = None, request: bytes | None = None, after: int | None = None) -> Faults:
    """Cut the next connection that appends: at bytes of an answer or request, or after so many bytes of answers."""
    return Faults(up=Way(cut_at=request), down=Way(cut_at=answer, cut_after=after), armed_by=WRITING)


class Note(Effect, frozen=True, kw_only=True):
    text: str


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[tuple[FaultProxy, str]]:
    given = {key: str(value) for key, value in conninfo_to_dict(database).items()}
    folder = Path(tempfile.mkdtemp(prefix="sgp"))
    proxy = FaultProxy(Path(f"{given['host']}/.s.PGSQL.5432"))
    await proxy.listen(folder / ".s.PGSQL.5432")
    yield proxy, make_conninfo(**{**given, "host": str(folder)})
    await proxy.close()
    shutil.rmtree(folder)


@pytest.fixture
async def far_pool(proxy: tuple[FaultProxy, str]) -> AsyncIterator[Pool]:
    pool = await open_pool(proxy[1])
    yield pool
    await pool.close()


@pytest.fixture
async def far_store(far_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresEventStore]:
    monkeypatch.setattr(group_commit, "COPY_ROWS", 200)
    store = PostgresEventStore(far_pool)
    yield store
    await store.stop()


def write(n: int = 1) -> StreamWrite:
    events = [SensorConfigured(sensor_id="s", name=f"{i}") for i in range(n)]
    return StreamWrite(stream="sensor:a", events=events, expected_version=0)


async def plain(store: PostgresEventStore) -> Appended:
    return await store.append(LOG, [write()])


async def large(store: PostgresEventStore) -> Appended:
    return await store.append(LOG, [write(300)])


async def with_effect(store: PostgresEventStore) -> Appended:
    return await store.append(LOG, [write()], effects=[Note(text="once")])


async def own_flush(store: PostgresEventStore) -> Appended:
    async def body(conn: Connection, begun: Begun) -> None:
        await copy_events(conn, begun, [EventRow("sensor:a", 1, "telemetry.sensor-configured.v1", b"\x80", None)])

    commit, _ = await store.writer.transact(LOG, uuid4(), body)
    assert commit.recorded_at is not None
    return Appended(
        first_position=commit.first_position, last_position=commit.last_position, recorded_at=commit.recorded_at
    )


Appending = Callable[[PostgresEventStore], Awaitable[Appended]]


@pytest.fixture(autouse=True)
async def notes(pool: Pool, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await pool.connection_class.connect(database, autocommit=True) as owner:
        await owner.execute("CREATE TABLE notes (text text)")
        await owner.execute("GRANT ALL ON notes TO smartgrid_app")

    def note(effect: Note) -> postgres_effects.Statement:
        return "INSERT INTO notes VALUES (%s)", (effect.text,)

    monkeypatch.setattr(postgres_effects, "EFFECT_SQL", {Note: note})


async def stored(pool: Pool) -> tuple[int, int, int]:
    async with pool.connection() as conn:
        cursor = await conn.execute(
            "SELECT (SELECT count(*) FROM telemetry_events), (SELECT count(*) FROM telemetry_commits), "
            "(SELECT count(*) FROM notes)"
        )
        ((events, commits, notes),) = await cursor.fetchall()
    return events, commits, notes


@pytest.mark.parametrize(
    ("append", "n", "answer"),
    [
        (plain, 1, b"appended"),
        (large, 300, b"COMMIT\0"),
        (with_effect, 1, b"COMMIT\0"),
        (own_flush, 1, b"COMMIT\0"),
    ],
)
async def test_a_commit_whose_answer_was_lost_gives_its_own_answer(  # noqa: PLR0913, PLR0917
    proxy: tuple[FaultProxy, str], far_store: PostgresEventStore, pool: Pool, append: Appending, n: int, answer: bytes
) -> None:
    proxy[0].arm(cut(answer=answer))

    appended = await append(far_store)

    assert proxy[0].cuts == 1
    assert (appended.first_position, appended.last_position) == (1, n)
    assert await stored(pool) == (n, 1, int(append is with_effect))


@pytest.mark.parametrize(
    ("append", "n", "request_"),
    [
        (plain, 1, b"telemetry_append"),
        (large, 300, b"COMMIT"),
        (large, 300, b"COPY"),
        (with_effect, 1, b"COMMIT"),
        (own_flush, 1, b"COMMIT"),
    ],
)
async def test_a_commit_that_never_arrived_is_sent_again(  # noqa: PLR0913, PLR0917
    proxy: tuple[FaultProxy, str], far_store: PostgresEventStore, pool: Pool, append: Appending, n: int, request_: bytes
) -> None:
    proxy[0].arm(cut(request=request_))

    appended = await append(far_store)

    assert proxy[0].cuts == 1
    assert (appended.first_position, appended.last_position) == (1, n)
    assert await stored(pool) == (n, 1, int(append is with_effect))


async def test_a_cut_after_any_byte_stores_once(
    proxy: tuple[FaultProxy, str], far_store: PostgresEventStore, pool: Pool
) -> None:
    await far_store.append(LOG, [write()])
    for after in range(1, 200):
        proxy[0].arm(cut(after=after))
        version = await _versions(far_store)
        again = StreamWrite(stream="sensor:a", events=write().events, expected_version=version)

        appended = await far_store.append(LOG, [again])

        assert appended.first_position == after + 1
    assert await stored(pool) == (200, 200, 0)
    assert proxy[0].cuts > 150


async def _versions(store: PostgresEventStore) -> int:
    return len(await store.read_stream(LOG, "sensor:a"))


async def test_an_outcome_that_cannot_be_learnt_is_called_unknown(
    proxy: tuple[FaultProxy, str], far_store: PostgresEventStore, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "RESOLVE_S", 0.3)
    commit_id = uuid4()
    proxy[0].arm(cut(answer=b"appended"), then=Faults(refuse=True))

    with pytest.raises(OutcomeUnknown):
        await far_store.append(LOG, [write()], commit_id=commit_id)

    proxy[0].faults = HEALTHY
    appended = await far_store.append(LOG, [write()], commit_id=commit_id)
    assert appended.first_position == 1
    assert await stored(pool) == (1, 1, 0)


async def test_an_unreachable_store_says_so_within_a_second_and_heals(
    proxy: tuple[FaultProxy, str], far_store: PostgresEventStore, pool: Pool
) -> None:
    proxy[0].faults = Faults(refuse=True)
    loop = asyncio.get_running_loop()
    start = loop.time()

    answers = await asyncio.gather(*(plain(far_store) for _ in range(20)), return_exceptions=True)

    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert loop.time() - start < 1.5
    assert await stored(pool) == (0, 0, 0)
    proxy[0].faults = HEALTHY
    assert (await plain(far_store)).first_position == 1


async def test_a_store_that_went_away_before_the_append_is_unavailable_not_unknown(
    database: str, proxy: tuple[FaultProxy, str], far_store: PostgresEventStore, pool: Pool
) -> None:
    await plain(far_store)
    proxy[0].faults = Faults(refuse=True)
    async with await pool.connection_class.connect(database, autocommit=True) as admin:
        await admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    with pytest.raises(StoreUnavailable):
        await far_store.head(LOG)
    with pytest.raises(StoreUnavailable):
        await far_store.append(LOG, [StreamWrite(stream="b", events=write().events, expected_version=0)])


async def test_a_server_that_hangs_is_given_up_at_the_deadline(
    proxy: tuple[FaultProxy, str], far_pool: Pool, pool: Pool
) -> None:
    writer = LogWriter(far_pool, deadline_s=0.3)
    proxy[0].faults = Faults(down=Way(swallow_at=b"COMMIT\0"), armed_by=WRITING)
    commit_id = uuid4()

    async def body(conn: Connection, begun: Begun) -> None:
        await copy_events(conn, begun, [EventRow("sensor:a", 1, "telemetry.sensor-configured.v1", b"\x80", None)])

    with pytest.raises(OutcomeUnknown):
        await writer.transact(LOG, commit_id, body)

    proxy[0].faults = HEALTHY
    commit, _ = await writer.transact(LOG, commit_id, body)
    assert commit.known
    assert await stored(pool) == (1, 1, 0)
    await writer.close()


async def test_a_body_that_broke_with_its_connection_runs_again(
    database: str, store: PostgresEventStore, pool: Pool
) -> None:
    runs = 0

    async def body(conn: Connection, begun: Begun) -> int:
        nonlocal runs
        runs += 1
        await copy_events(conn, begun, [EventRow("sensor:a", 1, "telemetry.sensor-configured.v1", b"\x80", None)])
        if runs == 1:
            async with await conn.connect(database, autocommit=True) as admin:
                await admin.execute("SELECT pg_terminate_backend(%s)", (conn.info.backend_pid,))
        return runs

    commit, result = await store.writer.transact(LOG, uuid4(), body)

    assert (commit.first_position, result, runs) == (1, 2, 2)
    assert await stored(pool) == (1, 1, 0)
