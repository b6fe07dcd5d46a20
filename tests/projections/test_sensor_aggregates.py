"""What a reader sees of rollups by SQL."""

from decimal import Decimal

import psycopg
from tests.projections.facts import START_US, Fact, Reading, Recorder
from tests.projections.stored import store

from smartgrid_adapters.postgres.checkpoints import PostgresCheckpoints
from smartgrid_adapters.postgres.pool import Pool, dedicated
from smartgrid_adapters.postgres.rollups import PostgresRollups
from smartgrid_projections.read_models.aggregates import AGGREGATES
from smartgrid_projections.runtime.runner import Runner


async def test_the_view_has_bounds_and_statistics_in_the_unit_of_the_measurand(database: str, pool: Pool) -> None:
    recorder = Recorder()
    values = (229.0, 230.0, 231.5)
    recorder.record(
        [Fact(Reading("s1", "voltage", "L1", START_US + i, -1), "read", value, "V") for i, value in enumerate(values)]
    )
    await store(database, recorder)
    checkpoints = PostgresCheckpoints(
        dedicated(pool), name="aggregates", version=1, owner="test", tables=PostgresRollups
    )
    await Runner(AGGREGATES, recorder.log, checkpoints).step()
    await checkpoints.close()

    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("SET ROLE smartgrid_reader")
        cursor = await connection.execute(
            "SELECT sensor_id, sensor_type, phase, unit, bucket_end - bucket_start, count, avg_value, min_value, "
            "max_value, round(stddev_value, 6), sum_value, revision FROM sensor_aggregates WHERE interval = '15m'"
        )
        rows = await cursor.fetchall()

    assert [(*row[:4], row[4].total_seconds(), *row[5:]) for row in rows] == [
        (
            "s1",
            "voltage",
            "L1",
            "V",
            900.0,
            3,
            Decimal("230.1666666666666667"),
            229,
            Decimal("231.5"),
            Decimal("1.258306"),
            Decimal("690.5"),
            3,
        )
    ]
