"""PostgreSQL is killed, restarted, cut at its commits and without space: what was answered stays, and it heals."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.kit import checkers
from tests.kit.filling import SENDER, answer_of, at, prepared, voltage
from tests.kit.history import Answer, Fact, History, fact_of, stored_facts
from tests.kit.proxy import COMMIT_ANSWER, FaultProxy, Faults, Way
from tests.kit.shares import seed_of, share

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.flush import PostgresReadingStore
from smartgrid_adapters.postgres.migrate import migrate
from smartgrid_adapters.postgres.pool import open_pool
from smartgrid_commands.ingestion import Ingestion
from smartgrid_commands.ports import ANY_VERSION, OutcomeUnknown, StoreUnavailable, StreamWrite
from smartgrid_http.testing import FixedClock
from smartgrid_ops.embedded_postgres import EmbeddedPostgres
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.telemetry import SensorConfigured

pytestmark = pytest.mark.timeout(600)

CLIENTS = 8
HEALED_S = 2.0
"""How soon after the server takes connections the first good answer has to come [s]."""

RESTARTS_S = 60.0


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="sgf"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[EmbeddedPostgres]:
    """Return a durable server that may be killed."""
    postgres = EmbeddedPostgres(home)
    asyncio.run(migrate(postgres.start()))
    yield postgres
    postgres.stop()


Say = Callable[[str], None]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def out(text: str) -> None:
        with capsys.disabled():
            print(f"\n  {text}", end="")  # noqa: T201  # counts to show

    return out


class Load:
    """
    Clients in this process that record readings, and remember what they were told.

    Attributes:
        history: What they sent and were told.
        failures: Number of answers of each kind that were none.
        healed: Set at each answer.
    """

    def __init__(self, url: str, first: int) -> None:
        self._url = url
        self._number = first
        self.history = History()
        self.failures: dict[str, int] = {}
        self.answered = 0
        self.last_answer = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[PostgresEventStore]:
        pool = await open_pool(self._url)
        store = PostgresEventStore(pool)
        await store.start()
        readings = PostgresReadingStore(pool, store)
        ingestion = Ingestion(readings, FixedClock(at(10**7)))
        ending = asyncio.Event()
        clients = [asyncio.create_task(self._client(ingestion, ending)) for _ in range(CLIENTS)]
        try:
            yield store
        finally:
            ending.set()
            await asyncio.gather(*clients)
            await readings.stop()
            await store.stop()
            await pool.close()

    async def _client(self, ingestion: Ingestion, ending: asyncio.Event) -> None:
        while not ending.is_set():
            self._number += 1
            items = [voltage(f"s{self._number % 5}", self._number / 1000, 220.5)]
            request = self.history.send([fact_of(item) for item in items])
            try:
                outcome = await ingestion.record_many(prepared(items), SENDER, atomic=False, verdicts=True)
            except (StoreUnavailable, OutcomeUnknown) as error:
                self.failures[type(error).__name__] = self.failures.get(type(error).__name__, 0) + 1
                await asyncio.sleep(0.02)
            else:
                request.answers.append(answer_of(outcome))
                self.answered += 1
                self.last_answer = time.monotonic()

    async def goes_on(self, since: float, limit_s: float) -> float:
        """Wait for an answer after *since*; return how long it took [s]."""
        while self.last_answer <= since:
            assert time.monotonic() < since + limit_s, f"no answer for {limit_s} s"
            await asyncio.sleep(0.005)
        return self.last_answer - since


async def check(url: str, history: History) -> int:
    """Check I1, I2 and I4; return the number of events."""
    pool = await open_pool(url)
    store = PostgresEventStore(pool)
    log: list[Recorded[Event]] = []
    while more := await store.read_log("telemetry", after=len(log), limit=5_000):
        log += more
    await store.stop()
    await pool.close()
    mine = {fact for request in history.requests for fact in request.facts}
    checkers.in_order(log)
    checkers.no_lost_ack(history, log)
    found = stored_facts(log)
    others = History()
    others.send([fact for fact in found if fact not in mine])  # of the tests before
    others.requests += history.requests
    checkers.no_phantom(others, log)
    return len(log)


async def accepts(url: str, limit_s: float = RESTARTS_S) -> float:
    """Wait until the server takes connections; return when it did."""
    end = time.monotonic() + limit_s
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(url, connect_timeout=2):
                return time.monotonic()
        except psycopg.OperationalError:
            assert time.monotonic() < end, f"no server for {limit_s} s"
            await asyncio.sleep(0.01)


def started(server: EmbeddedPostgres) -> None:
    """Start *server* again; the lock file holds until the last backend of the old one is gone."""
    end = time.monotonic() + RESTARTS_S
    while True:
        try:
            server.start()
        except Exception:  # whatever it says, it is not up yet
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


def kill_a_backend(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url, autocommit=True) as conn:
        row = conn.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() "
            "AND application_name = 'smartgrid' ORDER BY random() LIMIT 1"
        ).fetchone()
    assert row is not None
    os.kill(row[0], signal.SIGKILL)


def kill_the_server(server: EmbeddedPostgres) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)


def restart_fast(server: EmbeddedPostgres) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGINT)


def restart_immediately(server: EmbeddedPostgres) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGQUIT)


FAULTS = {
    "a backend is killed": (kill_a_backend, False),
    "the server is killed": (kill_the_server, True),
    "a fast restart": (restart_fast, True),
    "an immediate restart": (restart_immediately, True),
}
_first = iter(range(0, 10**9, 1_000_000))


async def rounds_of(server: EmbeddedPostgres, names: list[str], draw: random.Random) -> tuple[Load, list[float], int]:
    load = Load(server.url, next(_first))
    healed: list[float] = []
    async with load.running():
        for name in names:
            strike, gone = FAULTS[name]
            await load.goes_on(time.monotonic(), 30.0)
            await asyncio.sleep(draw.uniform(0.05, 0.3))
            await asyncio.to_thread(strike, server)
            if gone:
                await asyncio.to_thread(_wait_for_its_end, server)
                await asyncio.to_thread(started, server)
            healed.append(await load.goes_on(await accepts(server.url), 30.0))
    return load, healed, await check(server.url, load.history)


def _wait_for_its_end(server: EmbeddedPostgres) -> None:
    end = time.monotonic() + RESTARTS_S
    while server.pid is not None:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.faults
@pytest.mark.parametrize("name", FAULTS)
async def test_what_was_answered_outlives_the_server(
    server: EmbeddedPostgres, name: str, request: pytest.FixtureRequest, say: Say
) -> None:
    load, healed, events = await rounds_of(server, [name] * 2, random.Random(seed_of(request.config, name)))

    say(
        f"{name}: {load.answered} answered, {load.failures} while it was gone, {events} events, 0 lost, 0 doubled; "
        f"first answer {max(healed):.2f} s after it took connections"
    )
    assert max(healed) <= HEALED_S


@pytest.mark.soak
@pytest.mark.timeout(3_600)
async def test_a_hundred_deaths_of_the_server_lose_nothing(
    server: EmbeddedPostgres, request: pytest.FixtureRequest, say: Say
) -> None:
    seed = seed_of(request.config, "postgres")
    draw = random.Random(seed)
    total = share(request.config, 100)
    load, healed, events = await rounds_of(server, [draw.choice(list(FAULTS)) for _ in range(total)], draw)

    say(
        f"PostgreSQL: seed {seed}, {total} deaths, {load.answered} answered, {load.failures} while it was gone, "
        f"{events} events, 0 lost, 0 doubled, 0 out of order; median first answer {sorted(healed)[total // 2]:.2f} s"
    )


CUTS = [pytest.param(10, marks=pytest.mark.faults, id="smoke"), pytest.param(200, marks=pytest.mark.soak, id="soak")]


@pytest.mark.parametrize("cuts", CUTS)
async def test_a_commit_cut_from_its_answer_is_answered_once_it_is_repeated(
    database: str, cuts: int, request: pytest.FixtureRequest, say: Say
) -> None:
    cuts = share(request.config, cuts)
    given = {key: str(value) for key, value in conninfo_to_dict(database).items()}
    folder = Path(tempfile.mkdtemp(prefix="sgp"))
    proxy = FaultProxy(Path(f"{given['host']}/.s.PGSQL.5432"))
    await proxy.listen(folder / ".s.PGSQL.5432")
    pool = await open_pool(make_conninfo(**{**given, "host": str(folder)}))
    store = PostgresEventStore(pool)
    history = History()
    for number in range(1, cuts + 1):
        # Two callers with ids of their own make the flush a transaction whose COMMIT is answered by itself.
        writes = [
            StreamWrite(
                stream="sensor:a",
                events=[SensorConfigured(sensor_id="a", name=f"{number} {part}")],
                expected_version=ANY_VERSION,
            )
            for part in range(2)
        ]
        requests = [history.send([Fact(("name", "a", f"{number} {part}"))]) for part in range(2)]
        ids = [uuid4(), uuid4()]
        proxy.arm(Faults(down=Way(cut_at=COMMIT_ANSWER), armed_by=b"log_"))

        for _ in range(2):  # the first time cut, then repeated
            appended = await asyncio.gather(
                *(store.append("telemetry", [w], commit_id=i) for w, i in zip(writes, ids, strict=True))
            )
            for sent, done in zip(requests, appended, strict=True):
                sent.answers.append(Answer(states=("accepted",), first=done.first_position, last=done.last_position))
                sent.key = "commit id"
        assert proxy.cuts == number
    log = await store.read_log("telemetry", limit=10_000)
    await store.stop()
    await pool.close()
    await proxy.close()
    shutil.rmtree(folder)

    checkers.in_order(log)
    checkers.no_lost_ack(history, log)
    checkers.no_phantom(history, log)
    checkers.one_effect(history, log, None)
    say(f"cuts between COMMIT and its answer: {proxy.cuts}, {len(log)} events, each once, each repeat as before")


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Return a folder of 160 MiB of its own."""
    folder = Path(tempfile.mkdtemp(prefix="sgd"))
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root mounts a small file system")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=160m,mode=755", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no small file system can be mounted: {done.stderr}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)  # noqa: S607  # as found above
    folder.rmdir()


FULL = [pytest.param(1, marks=pytest.mark.faults, id="smoke"), pytest.param(10, marks=pytest.mark.soak, id="soak")]


@pytest.mark.parametrize("rounds", FULL)
async def test_a_full_disk_is_said_and_heals(
    small_disk: Path, rounds: int, request: pytest.FixtureRequest, say: Say
) -> None:
    server = EmbeddedPostgres(small_disk / "home", settings={"max_wal_size": "48MB", "min_wal_size": "32MB"})
    await migrate(await asyncio.to_thread(server.start))
    filler = small_disk / "filler"
    load = Load(server.url, 0)
    healed: list[float] = []
    try:
        async with load.running():
            for _ in range(share(request.config, rounds)):
                await load.goes_on(time.monotonic(), 30.0)
                before = sum(load.failures.values())
                with filler.open("wb") as file, suppress(OSError):
                    while True:
                        file.write(bytes(1 << 16))
                        file.flush()
                await _until(lambda: sum(load.failures.values()) > before + CLIENTS, 60.0)  # noqa: B023  # at once
                filler.unlink()
                if server.pid is None:
                    await asyncio.to_thread(started, server)
                healed.append(await load.goes_on(await accepts(server.url), 30.0))
        events = await check(server.url, load.history)
    finally:
        await asyncio.to_thread(server.stop)

    say(
        f"disk full {len(healed)} times: {load.answered} answered, {load.failures} while it was full, {events} events, "
        f"0 lost; first answer {max(healed):.2f} s after it was back"
    )
    assert max(healed) <= HEALED_S


async def _until(done: Callable[[], bool], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
