"""The same fold and the same answers over PostgreSQL."""

import asyncio
from datetime import timedelta
from zoneinfo import ZoneInfo

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.projections.facts import EPOCH, START_US
from tests.projections.meters import MeterRecorder, at, steps
from tests.projections.stored import store
from tests.projections.test_consumption import folded, oracle

from smartgrid_adapters.memory.consumption import MemoryConsumption, Numbers
from smartgrid_adapters.memory.trends import MemoryTrends
from smartgrid_adapters.postgres.checkpoints import PostgresCheckpoints
from smartgrid_adapters.postgres.consumption import PostgresConsumption
from smartgrid_adapters.postgres.pool import conninfo_of, open_pool
from smartgrid_adapters.postgres.trends import PostgresTrends
from smartgrid_adapters.sealing import KeySealer
from smartgrid_projections.queries.trends import TrendInterval, TrendsQuery, trends
from smartgrid_projections.read_models.consumption import CONSUMPTION
from smartgrid_projections.read_models.consumption_tables import ConsumptionTables
from smartgrid_projections.runtime.runner import Pace, Runner


class NoKeys:
    """Fields in these events are clear, so no key is ever needed."""

    async def load(self, subjects: object) -> dict[str, bytes | None]:
        raise AssertionError(subjects)

    async def add(self, wrapped: object) -> None:
        raise AssertionError(wrapped)


INTERVALS: list[TrendInterval] = ["1h", "1d", "1w"]
SEALER = KeySealer(NoKeys(), bytes(32))


async def caught_up(database: str, recorder: MeterRecorder, batch_events: int) -> None:
    async def connect() -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(conninfo_of(database), autocommit=True)

    def tables(connection: psycopg.AsyncConnection) -> ConsumptionTables:
        return PostgresConsumption(connection, SEALER)

    checkpoints = PostgresCheckpoints(connect, name="consumption", version=1, owner="test", tables=tables)
    runner = Runner(CONSUMPTION, recorder.log, checkpoints, Pace(batch_events=batch_events))
    while await runner.step():
        if batch_events % 2:
            await checkpoints.close()  # what was remembered is read again
            runner = Runner(CONSUMPTION, recorder.log, checkpoints, Pace(batch_events=batch_events))
    await checkpoints.close()


async def stored_rows(database: str) -> tuple[dict[tuple[object, int], Numbers], dict[tuple[object, int], Numbers]]:
    async with await psycopg.AsyncConnection.connect(database) as connection:
        found = [
            await (await connection.execute(query)).fetchall()
            for query in (
                "SELECT series_id, start_at, wh, estimated_wh, readings FROM consumption_v1",
                "SELECT customer, start_at, wh, estimated_wh, readings FROM customer_consumption_v1",
            )
        ]
    first, second = (
        {(row[0], (row[1] - EPOCH) // timedelta(microseconds=1)): (row[2], row[3], row[4]) for row in rows}
        for rows in found
    )
    return first, second


def twin_of(recorder: MeterRecorder) -> MemoryConsumption:
    return folded(recorder, [])


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    what=steps(),
    batch_events=st.integers(1, 6),
    zone=st.sampled_from(["UTC", "Europe/Tirane", "Asia/Kolkata"]),
    interval=st.sampled_from(INTERVALS),
    who=st.sampled_from(
        [{"meter_id": "m1"}, {"meter_id": "m1", "only_customer": "c1"}, {"customer_id": "c1"}, {"customer_id": "c9"}]
    ),
)
def test_rows_and_answers_are_those_of_memory_and_oracle(  # noqa: PLR0913, PLR0917  # what is drawn
    database: str, what: list[object], batch_events: int, zone: str, interval: TrendInterval, who: dict[str, str]
) -> None:
    recorder = MeterRecorder()
    recorder.record(what)  # type: ignore[arg-type]  # steps
    tables = twin_of(recorder)
    query = TrendsQuery(
        start=at(START_US),
        end=at(START_US + 86_400_000_000),
        interval=interval,
        zone=ZoneInfo(zone),
        **who,  # type: ignore[arg-type]  # of the literals
    )
    rows, customers = oracle(recorder)
    named = {(SEALER.lookup("customer", who.decode()), at_us): n for (who, at_us), n in customers.items()}  # type: ignore[attr-defined]  # bytes

    async def scenario() -> None:
        await store(database, recorder)
        await caught_up(database, recorder, batch_events)
        assert await stored_rows(database) == (rows, named)
        pool = await open_pool(database)
        try:
            memory = MemoryTrends(tables, len(recorder.log.events["telemetry"]))
            assert await trends(PostgresTrends(pool, SEALER), query) == await trends(memory, query)
        finally:
            await pool.close()

    asyncio.run(scenario())
