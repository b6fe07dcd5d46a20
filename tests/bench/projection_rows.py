"""Figures 12 and 13: folding the log, beside one event a transaction, and how soon an append shows in a read model."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import psycopg
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from msgspec import Struct
from psycopg.conninfo import conninfo_to_dict
from tests.bench.database import Server, fresh_database
from tests.bench.harness import Figure, compared, in_turns, quantile

from smartgrid_adapters.postgres.checkpoints import PostgresCheckpoints
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import Connection, Pool, dedicated, open_pool
from smartgrid_commands.ports import StreamWrite
from smartgrid_projections.ports import Claim, Move
from smartgrid_projections.projection import Projection
from smartgrid_projections.runtime.runner import Pace, Runner
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.telemetry import Location, SensorRegistered

LOG = "telemetry"
EVENTS = 20_000
PER_APPEND = 1_000
SENSORS = 500
WINDOW_S = 1.5
RATE = 1_000
_SETUP = (
    "CREATE TABLE counted (sensor_id text PRIMARY KEY, n bigint NOT NULL)",
    "GRANT ALL ON counted TO smartgrid_app",
    "INSERT INTO projection_versions (name, version) VALUES ('counted', 1)",
    "INSERT INTO projection_checkpoints (name, version, log) VALUES ('counted', 1, 'telemetry')",
)
_COUNT = """
    INSERT INTO counted AS c SELECT * FROM unnest(%s::text[], %s::bigint[])
    ON CONFLICT (sensor_id) DO UPDATE SET n = c.n + excluded.n
"""


class Counts:
    """How often each sensor was named: the smallest read model there is."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, names: Sequence[str]) -> None:
        """Count *names*."""
        counts = Counter(names)
        await self._connection.execute(_COUNT, (list(counts), list(counts.values())))


async def _project(batch: Sequence[Recorded[Event]], tables: Counts) -> None:
    await tables.add([r.event.sensor_id for r in batch if isinstance(r.event, SensorRegistered)])


COUNTED: Projection[Counts] = Projection(name="counted", version=1, logs=(LOG,), project=_project)


class Seen(PostgresCheckpoints[Counts]):
    """Tells when a position became visible."""

    on_commit: Callable[[int], None] | None = None

    @asynccontextmanager
    async def step(self, claim: Claim, move: Move) -> AsyncGenerator[Counts]:
        """Move the checkpoint."""
        async with super().step(claim, move) as tables:
            yield tables
        if self.on_commit is not None:
            self.on_commit(move.new)


class Place(Struct, frozen=True):
    """
    A database with a log and the read model.

    Attributes:
        url: Of the database.
        pool: Connections to it.
        store: Its store.
    """

    url: str
    pool: Pool
    store: PostgresEventStore

    def checkpoints(self) -> Seen:
        """Return one worker's checkpoints."""
        return Seen(dedicated(self.pool), name="counted", version=1, owner="bench", tables=Counts)


@asynccontextmanager
async def _place(server: Server) -> AsyncGenerator[Place]:
    async with fresh_database(server) as url:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as setup:
            for statement in _SETUP:
                await setup.execute(statement)
        pool = await open_pool(url)
        store = PostgresEventStore(pool)
        await store.start()
        try:
            yield Place(url, pool, store)
        finally:
            await store.stop()
            await pool.close()


def _event(number: int) -> SensorRegistered:
    return SensorRegistered(sensor_id=f"sensor-{number % SENSORS}", location=Location(lat=41.3275, lon=19.8187))


async def projections_in_batches(server: Server) -> list[Figure]:
    """Figure 12: our runner in batches of 500 against one event a transaction with the library's tracking."""
    async with _place(server) as place:
        for first in range(0, EVENTS, PER_APPEND):
            events = [_event(first + i) for i in range(PER_APPEND)]
            await place.store.append(LOG, [StreamWrite(stream=f"sensor:{first}", events=events, expected_version=0)])
        at = conninfo_to_dict(place.url)
        with (
            PostgresDatastore(
                str(at["dbname"]),
                str(at.get("host", "")),
                str(at.get("port", "5432")),
                str(at.get("user", "")),
                str(at.get("password", "")),
            ) as datastore,
            ThreadPoolExecutor(1) as thread,
        ):
            recorder = PostgresTrackingRecorder(datastore)
            recorder.create_table()
            positions = itertools.count(1)

            def one_by_one() -> float:
                start = time.perf_counter()
                done = 0
                while (spent := time.perf_counter() - start) < WINDOW_S:
                    position = next(positions)
                    with datastore.transaction(commit=True) as cursor:
                        cursor.execute(_COUNT, ([f"sensor-{position % SENSORS}"], [1]))
                        recorder._insert_tracking(cursor, Tracking("telemetry", position))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # as its docs do
                    done += 1
                return done / spent

            async def stock() -> float:
                return await asyncio.get_running_loop().run_in_executor(thread, one_by_one)

            rounds = await in_turns(lambda: _folded_per_second(place), stock, server.rounds)
    return [
        compared(
            "12",
            "projection, exactly once, batches of 500 ÷ one event a transaction",
            rounds,
            ("ours", "eventsourcing"),
            "events/s",
            floor=40,
            goal=100,
            note="ours reads and decodes the log too; the other side is given its events",
        )
    ]


async def _folded_per_second(place: Place) -> float:
    async with place.pool.connection() as connection:
        await connection.execute("UPDATE projection_checkpoints SET position = 0 WHERE name = 'counted'")
    checkpoints = place.checkpoints()
    runner = Runner(COUNTED, place.store, checkpoints, Pace(batch_events=500))
    done = 0
    start = time.perf_counter()
    while number := await runner.step():
        done += number
    spent = time.perf_counter() - start
    await checkpoints.close()
    return done / spent


async def soon_visible(server: Server) -> list[Figure]:
    """Figure 13: from the start of an append until its event is in a read model, at 1,000 appends a second."""
    async with _place(server) as place:
        checkpoints = place.checkpoints()
        runner = Runner(COUNTED, place.store, checkpoints)
        stop = asyncio.Event()
        running = asyncio.create_task(runner.run(stop))
        committed: list[tuple[int, float]] = []
        began: dict[int, float] = {}
        total = RATE * server.rounds

        def commit(position: int) -> None:
            committed.append((position, time.perf_counter()))
            if position == total:
                stop.set()

        checkpoints.on_commit = commit

        async def append(number: int) -> None:
            start = time.perf_counter()
            write = StreamWrite(stream=f"sensor:{number}", events=[_event(number)], expected_version=0)
            began[(await place.store.append(LOG, [write])).last_position] = start

        opened = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(total):
                await asyncio.sleep(max(0.0, opened + number / RATE - time.perf_counter()))
                group.create_task(append(number))
        rate = total / (time.perf_counter() - opened)
        await running
    took_ms: list[float] = []
    last = 0
    for position, at in committed:
        took_ms += [1000 * (at - began[one]) for one in range(last + 1, position + 1)]
        last = position
    took_ms = took_ms[RATE // 4 :]  # the first ones pay for connections and plans
    return [
        Figure(
            number="13",
            what=f"append → visible in a read model at {RATE:,} appends/s, p99",
            value=round(quantile(took_ms, 0.99), 2),
            unit="ms",
            better="less",
            floor=25,
            goal=5,
            sides={"median": f"{quantile(took_ms, 0.5):.2f} ms"},
            note=f"{rate:,.0f} appends/s; store and runner share one process",
        )
    ]
