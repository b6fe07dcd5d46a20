"""The tables of the register by SQL."""

from datetime import UTC, datetime

import numpy as np
import psycopg
from msgspec import UNSET
from psycopg import sql

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.flush import PostgresReadingStore
from smartgrid_adapters.postgres.pool import Pool
from smartgrid_commands.ingestion import Ingestion, Prepared, Sender
from smartgrid_commands.reading_items import rows_of_items
from smartgrid_domain.readings import Place, SensorReading
from smartgrid_http.testing import FixedClock

SENDER = Sender(actor="user:u1", correlation_id="r1", operator=True)


def partition_of(conn: psycopg.Connection[tuple[object, ...]], at: str) -> str:
    row = conn.execute(
        "SELECT tableoid::regclass::text FROM reading_register WHERE measured_at = %s::timestamptz", (at,)
    ).fetchone()
    assert row is not None
    return str(row[0])


def insert(conn: psycopg.Connection[tuple[object, ...]], at: str) -> None:
    conn.execute(
        "INSERT INTO reading_register VALUES (1, %s, -1, 0, 5, 0, 0, '00000000-0000-5000-8000-000000000000', 1)", (at,)
    )


def test_months_from_24_before_to_2_after_have_partitions_and_the_rest_one(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("SELECT register_make_months('2030-05-20T00:00:00Z')")
        instants = [
            "2028-05-01T00:00:00Z",
            "2030-07-31T23:59:59.999999Z",
            "2028-04-30T23:59:59Z",
            "2030-08-01T00:00:00Z",
        ]
        for at in instants:
            insert(conn, at)

        assert [partition_of(conn, at) for at in instants] == [
            "reading_register_2028_05",
            "reading_register_2030_07",
            "reading_register_rest",
            "reading_register_rest",
        ]


def test_readings_move_into_the_partition_of_their_month_when_it_is_made(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        insert(conn, "2040-06-15T00:00:00Z")
        before = partition_of(conn, "2040-06-15T00:00:00Z")
        conn.execute("SELECT register_make_months('2040-05-01T00:00:00Z')")
        conn.execute("SELECT register_make_months('2040-05-01T00:00:00Z')")

        assert before == "reading_register_rest"
        assert partition_of(conn, "2040-06-15T00:00:00Z") == "reading_register_2040_06"


async def test_tables_of_the_original_show_readings(pool: Pool, store: PostgresEventStore, database: str) -> None:
    readings = PostgresReadingStore(pool, store)
    ingestion = Ingestion(readings, FixedClock())
    first = SensorReading(
        sensor_id="s1",
        sensor_type="power",
        value=1.5,
        unit="kW",
        phase="L1",
        seq=3,
        timestamp="2026-01-15T10:00:00Z",
        location=Place(1.0, 2.0),
    )
    rows, _ = rows_of_items([first], np.arange(1), 0, 2**62)
    outcome = await ingestion.record_many(Prepared(items=1, parts=[rows]), SENDER, atomic=False, verdicts=True)
    event_id = outcome.event_ids.hex()
    corrected = f"{event_id[:8]}-{event_id[8:12]}-{event_id[12:16]}-{event_id[16:20]}-{event_id[20:]}"
    first.value, first.corrects, first.reason, first.location = 0.25, corrected, "wrong", UNSET
    await ingestion.record_one(first, SENDER)
    await readings.stop()

    with psycopg.connect(database) as conn:
        conn.execute("SET ROLE smartgrid_reader")
        names = "sensor_id, sensor_type, phase, value, unit, timestamp, quality, seq, position, superseded, retracted"
        found = conn.execute(
            sql.SQL("SELECT {} FROM sensor_data ORDER BY position").format(
                sql.SQL(", ").join(map(sql.Identifier, names.split(", ")))
            )
        ).fetchall()
    at = datetime(2026, 1, 15, 10, tzinfo=UTC)
    assert [tuple(map(str, row)) for row in found] == [
        tuple(map(str, ("s1", "power", "L1", 1500, "W", at, "measured", 3, 2, True, False))),
        tuple(map(str, ("s1", "power", "L1", 250, "W", at, "corrected", 3, 3, False, False))),
    ]
