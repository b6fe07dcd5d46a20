"""Figure 11: rollups of a long log folded in two processes, beside one GROUP BY and beside one process."""

import time

import numpy as np
import psycopg
from tests.bench.database import Server, fresh_database
from tests.bench.harness import Figure, compared, in_turns

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.folding import fold_parts
from smartgrid_adapters.postgres.pool import open_pool
from smartgrid_commands.ports import StreamWrite
from smartgrid_domain.maths.columns import pack_readings, rows_of
from smartgrid_schemas.telemetry import ReadingsRecorded, SeriesKey

SENSORS = 1_000
EVENTS = 50_000
PER_EVENT = 100
PER_APPEND = 1_000
START_S = 1_768_435_200  # 2026-01-15T00:00Z
NOBODY = np.zeros((0, 3), np.int64)
_TYPED = (
    "CREATE TABLE typed (series_id int NOT NULL, measured_at timestamptz NOT NULL, value bigint NOT NULL)",
    """
    INSERT INTO typed
    SELECT i / 100 % 1000 + 1, to_timestamp(1768435200 + 60 * (i / 100000 * 100 + i % 100)), 230000 + i % 997
    FROM generate_series(0, 4999999) i
    """,
    """
    INSERT INTO series (subject, subject_id, measurand, phase)
    SELECT 'sensor', 's' || i, 'voltage', '-' FROM generate_series(1, 1000) i ORDER BY i
    """,
    "VACUUM ANALYZE typed",
)
_GROUPED = """
    SELECT count(*) FROM (
        SELECT series_id, date_trunc('hour', measured_at) AS hour, count(*), sum(value), sum(value::numeric * value),
               min(value), max(value)
        FROM typed GROUP BY 1, 2
    ) g
"""


async def rollups_in_parts(server: Server) -> list[Figure]:
    """Fold five million readings, 100 of one sensor an event."""
    async with fresh_database(server) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            for text in _TYPED:
                connection.execute(text.encode())
        await _fill(url)

        async def folded(processes: int) -> float:
            start = time.perf_counter()
            await fold_parts(url, EVENTS, NOBODY, processes)
            return EVENTS * PER_EVENT / (time.perf_counter() - start)

        async def one() -> float:
            return await folded(1)

        async def two() -> float:
            return await folded(2)

        async def grouped() -> float:
            start = time.perf_counter()
            async with await psycopg.AsyncConnection.connect(url) as connection:
                await connection.execute(_GROUPED)
            return EVENTS * PER_EVENT / (time.perf_counter() - start)

        beside_sql = await in_turns(two, grouped, server.rounds)
        beside_one = await in_turns(two, one, server.rounds)
    note = (
        f"{EVENTS * PER_EVENT:,} readings of {SENSORS:,} sensors; starting the processes counts, writing rows does not"
    )
    return [
        compared(
            "11",
            "rollups folded in 2 processes ÷ one GROUP BY by hour over typed rows",
            beside_sql,
            ("fold", "GROUP BY"),
            "readings/s",
            floor=0.6,
            goal=1.0,
            note=note,
        ),
        compared(
            "11 processes",
            "rollups folded in 2 processes ÷ in 1",
            beside_one,
            ("2", "1"),
            "readings/s",
            floor=1.5,
            goal=1.85,
            note=note,
        ),
    ]


async def _fill(url: str) -> None:
    pool = await open_pool(url)
    store = PostgresEventStore(pool)
    await store.start()
    try:
        for first in range(0, EVENTS, PER_APPEND):
            events = [_event(number) for number in range(first, first + PER_APPEND)]
            await store.append("telemetry", [StreamWrite(stream="readings:0", events=events, expected_version=first)])
    finally:
        await store.stop()
        await pool.close()


def _event(number: int) -> ReadingsRecorded:
    sensor = number % SENSORS + 1
    first = number // SENSORS * PER_EVENT
    rows = rows_of(
        [0] * PER_EVENT,
        [(START_S + 60 * (first + i)) * 1_000_000 for i in range(PER_EVENT)],
        [230_000 + (number * PER_EVENT + i) % 997 for i in range(PER_EVENT)],
        [-3] * PER_EVENT,
    )
    return pack_readings(0, [SeriesKey(f"s{sensor}", "voltage", None, "V")], rows)
