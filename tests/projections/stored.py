"""Puts what a recorder recorded into PostgreSQL, and reads the rows of read models there."""

import psycopg
from psycopg import sql
from tests.projections.facts import EPOCH, Recorder
from tests.projections.meters import MeterRecorder

from smartgrid_adapters.memory.rollups import Bucket
from smartgrid_projections.register import SeriesName

TABLES = (
    "reading_register",
    "reading_retractions",
    "series",
    "rollups_v1",
    "rollup_sensors_v1",
    "consumption_v1",
    "customer_consumption_v1",
    "consumption_meters_v1",
    "meter_links_v1",
    "meter_breaks_v1",
    "register_tails_v1",
    "users_v1",
)
_MICROSECOND = "'epoch'::timestamptz + %s * interval '1 microsecond'"


async def store(database: str, recorder: Recorder | MeterRecorder) -> None:
    """Replace the register of *database*, and forget all read models."""
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute(
            sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(sql.Identifier(table) for table in TABLES))
        )
        await connection.execute("UPDATE projection_checkpoints SET position = 0")
        cursor = connection.cursor()
        await cursor.executemany(
            "INSERT INTO series (series_id, subject, subject_id, measurand, phase) OVERRIDING SYSTEM VALUE "
            "VALUES (%s, %s, %s, %s, %s)",
            [(series_id, subject, *name) for series_id, (subject, name) in recorder.register.names.items()],
        )
        await cursor.executemany(
            "INSERT INTO reading_register VALUES "  # noqa: S608  # no value in it
            f"(%s, {_MICROSECOND}, %s, %s, %s, %s, %s, %s, %s)",
            [
                (*key, number, r.mantissa, r.exponent, r.quality, r.event_id, r.position)
                for key, revisions in recorder.register.revisions.items()
                for number, r in enumerate(revisions)
            ],
        )
        await cursor.executemany(
            "INSERT INTO reading_retractions VALUES (%s, 0, 'epoch', 0, %s, 'test')",
            list(recorder.register.retracted.items()),
        )


async def stored_rollups(database: str) -> dict[tuple[SeriesName, int, int], Bucket]:
    async with await psycopg.AsyncConnection.connect(database) as connection:
        cursor = await connection.execute(
            "SELECT subject_id, measurand, phase, level, bucket_start, n, s, q, low, high, histogram, revision "
            "FROM rollups_v1 JOIN series USING (series_id)"
        )
        return {
            (SeriesName(*row[:3]), row[3], int((row[4] - EPOCH).total_seconds()) * 1_000_000): Bucket(
                row[5], int(row[6]), int(row[7]), row[8], row[9], row[10], row[11]
            )
            for row in await cursor.fetchall()
        }
