"""Figures 1 to 5: appending to the store, beside COPY and beside the recorder of the eventsourcing library."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from uuid import uuid4

import psycopg
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from tests.bench.database import Server, fresh_database
from tests.bench.harness import Figure, compared, in_turns, medians, quantile

from smartgrid_adapters.postgres.codec import encode
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import Pool, open_pool
from smartgrid_commands.ports import StreamWrite
from smartgrid_schemas.registry import name_of
from smartgrid_schemas.telemetry import Location, SensorRegistered

LOG = "telemetry"
WINDOW_S = 1.0
EVENT = SensorRegistered(sensor_id="transformer-north-0042", location=Location(lat=41.3275, lon=19.8187))
STATE = encode(EVENT)
TOPIC = name_of(EVENT)
_streams = itertools.count()


class Desk(Struct, frozen=True):
    """
    A database with our store in it.

    Attributes:
        url: Of the database.
        pool: Connections to it.
        store: Our store.
    """

    url: str
    pool: Pool
    store: PostgresEventStore

    async def append(self, n: int) -> None:
        """Append *n* events to a stream of their own."""
        stream = f"sensor:{next(_streams)}"
        await self.store.append(LOG, [StreamWrite(stream=stream, events=[EVENT] * n, expected_version=0)])


@asynccontextmanager
async def desk(server: Server) -> AsyncGenerator[Desk]:
    """Yield our store over a database of its own."""
    async with fresh_database(server) as url:
        pool = await open_pool(url, max_size=8)
        store = PostgresEventStore(pool)
        await store.start()
        try:
            yield Desk(url, pool, store)
        finally:
            await store.stop()
            await pool.close()


async def per_second(n: int, once: Callable[[], Awaitable[None]], window_s: float = WINDOW_S) -> float:
    """Call *once*, which handles *n* events, over and over; return events per second."""
    start = time.perf_counter()
    calls = 0
    while (spent := time.perf_counter() - start) < window_s:
        await once()
        calls += 1
    return n * calls / spent


async def append_by_copy(server: Server) -> list[Figure]:
    """Figure 1: 1,000 events per append against a bare COPY into a table with the same columns and indexes."""
    async with desk(server) as it, await AsyncConnection.connect(it.url) as conn:
        await conn.execute(f"CREATE TABLE copied (LIKE {LOG}_events INCLUDING ALL)")
        await conn.commit()
        position = 0

        async def copy() -> None:
            nonlocal position
            stream = f"sensor:{next(_streams)}"
            async with conn.cursor() as cursor:
                fields = "notification_id, originator_id, originator_version, topic, state, metadata"
                async with cursor.copy(f"COPY copied ({fields}) FROM STDIN (FORMAT BINARY)") as rows:
                    rows.set_types(["int8", "text", "int8", "text", "bytea", "bytea"])
                    for version in range(1, 1001):
                        position += 1
                        await rows.write_row((position, stream, version, TOPIC, STATE, None))
            await conn.commit()

        rounds = await in_turns(
            lambda: per_second(1000, lambda: it.append(1000)), lambda: per_second(1000, copy), server.rounds
        )
    what = "append, 1,000 events per call, one writer ÷ raw COPY into the same indexed table"
    return [compared("1", what, rounds, ("append", "COPY"), "events/s", floor=0.30, goal=0.50)]


class Stock(Struct, frozen=True):
    """
    The recorder of the eventsourcing library, as it ships.

    Attributes:
        recorder: Its application recorder, with its table lock: no tailing reader loses an event.
        thread: It is synchronous; one thread calls it.
    """

    recorder: PostgresApplicationRecorder
    thread: ThreadPoolExecutor

    def insert(self, n: int) -> None:
        """Insert *n* events of a new originator."""
        originator = uuid4()
        self.recorder.insert_events([StoredEvent(originator, version, TOPIC, STATE) for version in range(1, n + 1)])

    def per_second(self, n: int) -> float:
        """Insert *n* events over and over; return events per second."""
        start = time.perf_counter()
        calls = 0
        while (spent := time.perf_counter() - start) < WINDOW_S:
            self.insert(n)
            calls += 1
        return n * calls / spent

    async def measured(self, n: int) -> float:
        """Do it in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, self.per_second, n)


@contextmanager
def stock(url: str) -> Generator[Stock]:
    """Yield the library's recorder in the database *url*."""
    at = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    with PostgresDatastore(
        at["dbname"], at.get("host", ""), at.get("port", "5432"), at.get("user", ""), at.get("password", "")
    ) as datastore:
        recorder = PostgresApplicationRecorder(datastore)
        recorder.create_table()
        with ThreadPoolExecutor(1) as thread:
            yield Stock(recorder, thread)


async def append_by_stock(server: Server) -> list[Figure]:
    """Figure 2: one writer, n events per call, against the stock recorder."""
    found: list[Figure] = []
    async with desk(server) as it:
        with stock(it.url) as other:
            for n in (1, 10, 100, 1000):
                rounds = await in_turns(_ours(it, n), _stocks(other, n), server.rounds)
                what = f"append ÷ stock eventsourcing recorder, one writer, {n} events per call"
                sides = ("append", "stock")
                found.append(compared(f"2 n={n}", what, rounds, sides, "events/s", floor=2.5, goal=4))
    return found


def _ours(it: Desk, n: int) -> Callable[[], Awaitable[float]]:
    return lambda: per_second(n, lambda: it.append(n))


def _stocks(other: Stock, n: int) -> Callable[[], Awaitable[float]]:
    return lambda: other.measured(n)


async def at_once(callers: int, once: Callable[[], Awaitable[None]], window_s: float = WINDOW_S) -> list[float]:
    """Let *callers* call *once* over and over; return how long each call took [s]."""
    end = time.perf_counter() + window_s
    took: list[float] = []

    async def caller() -> None:
        while (start := time.perf_counter()) < end:
            await once()
            took.append(time.perf_counter() - start)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return took


async def grouped(server: Server) -> list[Figure]:
    """Figure 3: group commit against a commit per request on a pool of 8, 64 callers with one event each."""
    async with desk(server) as it:

        async def group() -> float:
            return len(await at_once(64, lambda: it.append(1))) / WINDOW_S

        async def alone() -> None:
            stream = f"sensor:{next(_streams)}"
            arrays = (LOG, uuid4(), [stream], [0], [TOPIC], [STATE], [None])
            async with it.pool.connection(timeout=10) as conn:
                await conn.execute(
                    "SELECT * FROM log_append(%s, %s, %s, %s::bigint[], %s, %s::bytea[], %s::bytea[])", arrays
                )

        async def pooled() -> float:
            return len(await at_once(64, alone)) / WINDOW_S

        rounds = await in_turns(group, pooled, server.rounds)
    what = "group commit ÷ a commit per request on a pool of 8, 64 callers, one event each"
    return [compared("3", what, rounds, ("group", "pool"), "events/s", floor=8, goal=15)]


async def many_callers(server: Server) -> list[Figure]:
    """Figure 4: 128 callers with one event each, against the stock recorder on one thread; and their p99."""
    p99_ms: list[float] = []
    async with desk(server) as it:
        with stock(it.url) as other:

            async def ours() -> float:
                took = await at_once(128, lambda: it.append(1))
                p99_ms.append(1000 * quantile(took, 0.99))
                return len(took) / WINDOW_S

            rounds = await in_turns(ours, lambda: other.measured(1), server.rounds)
    what = "128 callers with one event each ÷ stock eventsourcing recorder, one thread"
    later = p99_ms[1:]
    return [
        compared("4", what, rounds, ("128 callers", "stock"), "events/s", floor=20, goal=40),
        Figure(
            number="4 p99",
            what="append of one event among 128 callers, p99",
            value=round(medians([[value] for value in later])[0], 2),
            unit="ms",
            better="less",
            floor=15,
            goal=5,
            rounds=[[round(value, 3)] for value in later],
        ),
    ]


_FILL = """
INSERT INTO telemetry_events (notification_id, originator_id, originator_version, topic, state)
SELECT n, 'filler:' || n / 100, n %% 100 + 1, %s, %s FROM generate_series(%s::bigint, %s::bigint) n
"""
_FILL_COMMIT = """
INSERT INTO telemetry_commits (last_position, n, recorded_at, commit_id, digest)
SELECT %s, %s, now(), gen_random_uuid(), ''
"""


async def _fill(conn: AsyncConnection[TupleRow], last: int, up_to: int) -> int:
    for end in range(last + 250_000, up_to + 1, 250_000):
        async with conn.transaction():
            await conn.execute(_FILL, (TOPIC, STATE, last + 1, end))
            await conn.execute(_FILL_COMMIT, (end, end - last))
        last = end
    await conn.execute("VACUUM (ANALYZE) telemetry_events, telemetry_commits")
    await conn.execute("CHECKPOINT")
    return last


async def append_at_size(server: Server) -> list[Figure]:
    """Figure 5: append with 10 million events stored against the same with 1 million, in turns on two databases."""
    async with desk(server) as small, desk(server) as large:
        for it, size in ((small, 1_000_000), (large, 10_000_000)):
            async with await psycopg.AsyncConnection.connect(it.url, autocommit=True) as conn:
                await _fill(conn, 0, size)
        rounds = await in_turns(_ours(large, 100), _ours(small, 100), max(server.rounds, 5))
    what = "append, 100 events per call, at 10 M stored ÷ at 1 M stored"
    return [compared("5", what, rounds, ("at 10 M", "at 1 M"), "events/s", floor=0.80, goal=0.95)]
