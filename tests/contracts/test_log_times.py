"""Times of a log, held to one suite over memory and PostgreSQL."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import psycopg
import pytest

from smartgrid_adapters.memory.event_store import MemoryEventStore
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.log_times import PostgresLogTimes
from smartgrid_adapters.postgres.pool import Pool, conninfo_of
from smartgrid_commands.ports import ANY_VERSION, EventStore, StreamWrite
from smartgrid_projections.ports import LogTimes
from smartgrid_schemas.telemetry import Location, SensorRegistered

APPEND = """
SELECT recorded_at FROM log_append(
    'telemetry', gen_random_uuid(), ARRAY['sensor:s1'], ARRAY[-1::bigint], ARRAY['telemetry.sensor-registered.v1'],
    ARRAY['x'::bytea], ARRAY[NULL::bytea])
"""
MICROSECOND = timedelta(microseconds=1)


class Log(NamedTuple):
    store: EventStore
    times: LogTimes


@pytest.fixture(params=["memory", "postgres"])
def log(request: pytest.FixtureRequest) -> Log:
    if request.param == "memory":
        store = MemoryEventStore()
        return Log(store, store)
    stored: PostgresEventStore = request.getfixturevalue("postgres_store")
    return Log(stored, PostgresLogTimes(stored.pool))


async def append(log: Log, events: int = 1, name: str = "telemetry") -> datetime:
    sensors = [SensorRegistered(sensor_id="s1", location=Location(lat=1.0, lon=2.0)) for _ in range(events)]
    appended = await log.store.append(
        name, [StreamWrite(stream="sensor:s1", events=sensors, expected_version=ANY_VERSION)]
    )
    return appended.recorded_at


async def test_a_time_is_the_last_position_recorded_by_then(log: Log) -> None:
    first = await append(log)
    second = await append(log, events=3)

    assert await log.times.position_at("telemetry", first - MICROSECOND) == 0
    assert await log.times.position_at("telemetry", first) == 1
    assert await log.times.position_at("telemetry", second - MICROSECOND) == 1
    assert await log.times.position_at("telemetry", second) == 4
    assert await log.times.position_at("identity", second) == 0


async def test_a_time_that_has_not_come_is_not_told(log: Log) -> None:
    await append(log)

    assert await log.times.position_at("telemetry", datetime.now(UTC) + timedelta(hours=1)) is None


async def test_what_was_told_for_a_time_stays_so(log: Log) -> None:
    """The time is later than every commit, so only a fence keeps the next one behind it."""
    await append(log)
    now = datetime.now(UTC)

    told = await log.times.position_at("telemetry", now)
    after = await append(log)

    assert (told, await log.times.position_at("telemetry", now)) == (1, 1)
    assert after > now


async def test_a_position_has_the_time_of_its_commit(log: Log) -> None:
    first = await append(log)
    second = await append(log, events=2)

    assert [await log.times.recorded_at("telemetry", position) for position in range(5)] == [
        None,
        first,
        second,
        second,
        None,
    ]


async def test_a_clock_set_back_does_not_change_what_was_told(database: str) -> None:
    """A fence that lies ahead of the clock is what a clock set back looks like."""
    ahead = datetime.now(UTC) + timedelta(minutes=1)
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as admin:
        await admin.execute("UPDATE log_fences SET fence = %s WHERE log = 'telemetry'", (ahead,))
        row = await (await admin.execute(APPEND)).fetchone()

    assert row is not None
    assert row[0] == ahead + MICROSECOND


async def test_a_time_waits_for_the_append_in_flight(database: str, pool: Pool) -> None:
    """An append that took its time before the question was asked is part of the answer."""
    times = PostgresLogTimes(pool)
    async with await psycopg.AsyncConnection.connect(conninfo_of(database)) as appending:
        await appending.execute(APPEND)
        asked: asyncio.Task[Any] = asyncio.create_task(times.position_at("telemetry", datetime.now(UTC)))
        done, _ = await asyncio.wait([asked], timeout=0.2)
        assert not done
        await appending.commit()

        assert await asked == 1


async def test_only_the_application_may_settle_a_time(database: str) -> None:
    async with await psycopg.AsyncConnection.connect(conninfo_of(database, role="smartgrid_reader")) as reader:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await reader.execute("SELECT log_position_at('telemetry', now())")


async def test_the_application_cannot_move_a_fence_itself(pool: Pool) -> None:
    async with pool.connection() as conn:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await conn.execute("UPDATE log_fences SET fence = now()")
