"""The same fold over PostgreSQL."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from decimal import Decimal

import psycopg
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.projections.facts import Recorder, arrivals, chains
from tests.projections.stored import store, stored_rollups
from tests.projections.test_aggregates import oracle, recorded
from tests.projections.test_stats import queries, source_of

from smartgrid_adapters.postgres.checkpoints import PostgresCheckpoints
from smartgrid_adapters.postgres.pool import conninfo_of, open_pool
from smartgrid_adapters.postgres.rollups import PostgresRollups
from smartgrid_adapters.postgres.stats import PostgresStats
from smartgrid_domain.maths.rollups import QUARTER_US
from smartgrid_projections.ports import Claim, Move, Unavailable
from smartgrid_projections.queries.stats import Span, Wanted, stats
from smartgrid_projections.read_models.aggregates import AGGREGATES, RollupTables
from smartgrid_projections.runtime.runner import Pace, Runner

SLOW = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def checkpoints_on(
    database: str, kind: type[PostgresCheckpoints[RollupTables]] = PostgresCheckpoints
) -> PostgresCheckpoints[RollupTables]:
    async def connect() -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(conninfo_of(database), autocommit=True)

    return kind(connect, name="aggregates", version=1, owner="test", tables=PostgresRollups)


async def caught_up(recorder: Recorder, checkpoints: PostgresCheckpoints[RollupTables], batch_events: int) -> None:
    runner = Runner(AGGREGATES, recorder.log, checkpoints, Pace(batch_events=batch_events))
    while runner.positions.get("telemetry") != len(recorder.log.events["telemetry"]):
        try:
            await runner.step()
        except Unavailable:
            runner = Runner(AGGREGATES, recorder.log, checkpoints, Pace(batch_events=batch_events))
    await checkpoints.close()


@SLOW
@given(data=st.data())
def test_rows_and_answers_are_those_of_memory_and_oracle(database: str, data: st.DataObject) -> None:
    of = data.draw(chains())
    recorder = recorded(data.draw(arrivals(of)))
    query = data.draw(queries())
    batch_events = data.draw(st.integers(1, 5))
    twin = source_of(recorder)

    async def scenario() -> None:
        await store(database, recorder)
        await caught_up(recorder, checkpoints_on(database), batch_events)
        pool = await open_pool(database)
        try:
            assert await stats(PostgresStats(pool), query) == await stats(twin, query)
        finally:
            await pool.close()
        assert await stored_rollups(database) == oracle(of)

    asyncio.run(scenario())


_BUCKETS = """
    WITH one AS (
        INSERT INTO series (subject, subject_id, measurand) VALUES ('sensor', 'vast', 'power') RETURNING series_id
    )
    INSERT INTO rollups_v1 (series_id, level, bucket_start, n, s, q, low, high, histogram, revision)
    SELECT series_id, 0, 'epoch'::timestamptz + k.i * interval '15 minutes', 1, k.s, k.q, -5, 5, '\\x0201', 1
    FROM one, unnest(%s::int[], %s::numeric[], %s::numeric[]) AS k(i, s, q)
"""


@settings(SLOW, max_examples=20)
@given(sums=st.lists(st.tuples(st.integers(-(2**70), 2**70), st.integers(0, 2**130)), min_size=1, max_size=6))
@example(sums=[(2**63 - 1, 0), (-(2**63), 2**63 - 1), (2**63, 2**63), (1, 1)])
def test_sums_arrive_whole_whether_64_bits_hold_them_or_not(database: str, sums: list[tuple[int, int]]) -> None:
    async def scenario() -> None:
        async with await psycopg.AsyncConnection.connect(database) as conn:
            await conn.execute("TRUNCATE series, rollups_v1")
            await conn.execute(
                _BUCKETS, (list(range(len(sums))), *([Decimal(n) for n in one] for one in zip(*sums, strict=True)))
            )
        pool = await open_pool(database)
        try:
            found = await PostgresStats(pool).read(
                Wanted(sensor_id="vast", measurand=None, phase=None, spans=[Span(0, 0, len(sums) * QUARTER_US)])
            )
        finally:
            await pool.close()
        rollups = found.rollups
        assert rollups.start_us.tolist() == [i * QUARTER_US for i in range(len(sums))]
        assert list(zip(rollups.s.tolist(), rollups.q.tolist(), strict=True)) == sums

    asyncio.run(scenario())


class Dying(PostgresCheckpoints[RollupTables]):
    """Loses its connection between the rows and the commit, every other time."""

    turns = 0

    @asynccontextmanager
    async def step(self, claim: Claim, move: Move) -> AsyncGenerator[RollupTables]:
        async with super().step(claim, move) as tables:
            yield tables
            self.turns += 1
            if self.turns % 2:
                raise psycopg.OperationalError("the server closed the connection unexpectedly")


@settings(SLOW, max_examples=6)
@given(data=st.data())
def test_a_batch_that_dies_before_its_commit_counts_once(database: str, data: st.DataObject) -> None:
    of = data.draw(chains())
    recorder = recorded(data.draw(arrivals(of)))

    async def scenario() -> None:
        await store(database, recorder)
        dying = checkpoints_on(database, Dying)
        assert isinstance(dying, Dying)
        await caught_up(recorder, dying, 2)

        assert dying.turns >= 2
        assert await stored_rollups(database) == oracle(of)

    asyncio.run(scenario())
