"""The connection breaks around a commit: whatever is answered is true."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

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


class Proxy:
    """
    Stands between client and server and cuts the connections that write to a log.

    Attributes:
        cut_answer: Cut instead of passing on an answer that holds these bytes.
        cut_request: Cut instead of passing on a request that holds these bytes.
        cut_after: Cut when this many bytes of answers have passed.
        swallow: Pass on no answer that holds these bytes, but stay connected.
        refuse: Take no new connection.
        refuse_then: What *refuse* becomes at a cut.
        cuts: How often it has cut.
    """

    def __init__(self, socket: str) -> None:
        self._server_socket = socket
        self.cut_answer: bytes | None = None
        self.cut_request: bytes | None = None
        self.cut_after: int | None = None
        self.swallow: bytes | None = None
        self.refuse = False
        self.refuse_then = False
        self.cuts = 0

    async def serve(self, folder: Path) -> asyncio.Server:
        return await asyncio.start_unix_server(self._meet, folder / ".s.PGSQL.5432")

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_unix_connection(self._server_socket)
        link = _Link(self)
        both = [
            asyncio.create_task(link.upwards(reader, far_writer)),
            asyncio.create_task(link.downwards(far_reader, writer)),
        ]
        _, pending = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        for end in (writer, far_writer):
            end.close()

    def cut(self) -> None:
        self.cut_answer = self.cut_request = self.cut_after = None
        self.cuts += 1
        self.refuse = self.refuse_then


class _Link:
    """One connection; each direction returns when it is to be cut."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._writes = False

    async def upwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            self._writes = self._writes or b"log_" in data
            if self._writes and self._proxy.cut_request is not None and self._proxy.cut_request in data:
                self._proxy.cut()
                return
            writer.write(data)

    async def downwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy = self._proxy
        while data := await reader.read(1 << 20):
            if not self._writes:
                writer.write(data)
            elif proxy.cut_answer is not None and proxy.cut_answer in data:
                proxy.cut()
                return
            elif proxy.cut_after is not None:
                writer.write(data[: proxy.cut_after])
                proxy.cut_after -= len(data)
                if proxy.cut_after <= 0:
                    proxy.cut()
                    return
            elif proxy.swallow is None or proxy.swallow not in data:
                writer.write(data)


class Note(Effect, frozen=True, kw_only=True):
    text: str


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[tuple[Proxy, str]]:
    given = {key: str(value) for key, value in conninfo_to_dict(database).items()}
    folder = Path(tempfile.mkdtemp(prefix="sgp"))
    proxy = Proxy(f"{given['host']}/.s.PGSQL.5432")
    server = await proxy.serve(folder)
    yield proxy, make_conninfo(**{**given, "host": str(folder)})
    server.close()
    shutil.rmtree(folder)


@pytest.fixture
async def far_pool(proxy: tuple[Proxy, str]) -> AsyncIterator[Pool]:
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
    proxy: tuple[Proxy, str], far_store: PostgresEventStore, pool: Pool, append: Appending, n: int, answer: bytes
) -> None:
    proxy[0].cut_answer = answer

    appended = await append(far_store)

    assert proxy[0].cuts == 1
    assert (appended.first_position, appended.last_position) == (1, n)
    assert await stored(pool) == (n, 1, int(append is with_effect))


@pytest.mark.parametrize(
    ("append", "n", "request_"),
    [
        (plain, 1, b"log_append"),
        (large, 300, b"COMMIT"),
        (large, 300, b"COPY"),
        (with_effect, 1, b"COMMIT"),
        (own_flush, 1, b"COMMIT"),
    ],
)
async def test_a_commit_that_never_arrived_is_sent_again(  # noqa: PLR0913, PLR0917
    proxy: tuple[Proxy, str], far_store: PostgresEventStore, pool: Pool, append: Appending, n: int, request_: bytes
) -> None:
    proxy[0].cut_request = request_

    appended = await append(far_store)

    assert proxy[0].cuts == 1
    assert (appended.first_position, appended.last_position) == (1, n)
    assert await stored(pool) == (n, 1, int(append is with_effect))


async def test_a_cut_after_any_byte_stores_once(
    proxy: tuple[Proxy, str], far_store: PostgresEventStore, pool: Pool
) -> None:
    await far_store.append(LOG, [write()])
    for after in range(1, 200):
        proxy[0].cut_after = after
        version = await _versions(far_store)
        again = StreamWrite(stream="sensor:a", events=write().events, expected_version=version)

        appended = await far_store.append(LOG, [again])

        assert appended.first_position == after + 1
    assert await stored(pool) == (200, 200, 0)
    assert proxy[0].cuts > 150


async def _versions(store: PostgresEventStore) -> int:
    return len(await store.read_stream(LOG, "sensor:a"))


async def test_an_outcome_that_cannot_be_learnt_is_called_unknown(
    proxy: tuple[Proxy, str], far_store: PostgresEventStore, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "RESOLVE_S", 0.3)
    commit_id = uuid4()
    proxy[0].cut_answer = b"appended"
    proxy[0].refuse_then = True

    with pytest.raises(OutcomeUnknown):
        await far_store.append(LOG, [write()], commit_id=commit_id)

    proxy[0].refuse = False
    appended = await far_store.append(LOG, [write()], commit_id=commit_id)
    assert appended.first_position == 1
    assert await stored(pool) == (1, 1, 0)


async def test_an_unreachable_store_says_so_within_a_second_and_heals(
    proxy: tuple[Proxy, str], far_store: PostgresEventStore, pool: Pool
) -> None:
    proxy[0].refuse = True
    loop = asyncio.get_running_loop()
    start = loop.time()

    answers = await asyncio.gather(*(plain(far_store) for _ in range(20)), return_exceptions=True)

    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert loop.time() - start < 1.5
    assert await stored(pool) == (0, 0, 0)
    proxy[0].refuse = False
    assert (await plain(far_store)).first_position == 1


async def test_a_server_that_hangs_is_given_up_at_the_deadline(
    proxy: tuple[Proxy, str], far_pool: Pool, pool: Pool
) -> None:
    writer = LogWriter(far_pool, deadline_s=0.3)
    proxy[0].swallow = b"COMMIT\0"
    commit_id = uuid4()

    async def body(conn: Connection, begun: Begun) -> None:
        await copy_events(conn, begun, [EventRow("sensor:a", 1, "telemetry.sensor-configured.v1", b"\x80", None)])

    with pytest.raises(OutcomeUnknown):
        await writer.transact(LOG, commit_id, body)

    proxy[0].swallow = None
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
