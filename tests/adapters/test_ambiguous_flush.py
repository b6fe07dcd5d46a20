"""The connection breaks around a commit of readings: each is stored once, and the answer is its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from psycopg import OperationalError

from smartgrid_adapters.postgres import flush
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.flush import PostgresReadingStore
from smartgrid_adapters.postgres.idempotency import PostgresIdempotencyKeys
from smartgrid_adapters.postgres.pool import Connection, Pool
from smartgrid_commands.idempotency import Kept
from smartgrid_commands.ingestion import Ingestion, Outcome, Sender, decode_outcome
from smartgrid_commands.ports import OutcomeUnknown
from smartgrid_commands.reading_calls import Lease
from smartgrid_domain.readings import Place, SensorReading
from smartgrid_http.testing import FixedClock

SENDER = Sender(actor="user:u1", correlation_id="r1", operator=True)
READING = SensorReading(
    sensor_id="s1", sensor_type="voltage", value=1.0, timestamp="2026-01-15T10:00:00Z", location=Place(1.0, 2.0)
)
Unit = Callable[[Connection, Callable[[], None]], Awaitable[object]]


class Flaky:
    """Loses the answers of commits."""

    def __init__(self, store: PostgresEventStore) -> None:
        self.lost = 0
        self._run = store.writer.run
        store.writer.run = self.run  # type: ignore[method-assign, assignment]

    async def run(self, log: str, unit: Unit) -> object:
        async def broken(conn: Connection, sending: Callable[[], None]) -> object:
            result = await unit(conn, sending)
            if self.lost:
                self.lost -= 1
                await conn.close()
                raise OperationalError("the answer was lost")
            return result

        return await self._run(log, broken)


@pytest.fixture(params=[200, 0])
async def readings(
    pool: Pool, store: PostgresEventStore, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PostgresReadingStore]:
    monkeypatch.setattr(flush, "FUNCTION_ROWS", request.param)
    readings = PostgresReadingStore(pool, store)
    yield readings
    await readings.stop()


async def rows_of(pool: Pool) -> int:
    async with pool.connection() as conn:
        row = await (await conn.execute("SELECT count(*) FROM reading_register")).fetchone()
    assert row is not None
    return int(row[0])


async def test_commit_whose_answer_is_lost_is_answered_with_its_own_positions(
    pool: Pool, store: PostgresEventStore, readings: PostgresReadingStore
) -> None:
    flaky, ingestion = Flaky(store), Ingestion(readings, FixedClock())
    flaky.lost = 1

    outcome = await ingestion.record_one(READING, SENDER)

    assert (outcome.accepted, outcome.positions) == (1, (2, 2))
    assert await rows_of(pool) == 1
    assert await store.head("telemetry") == 2


async def test_answer_of_a_key_is_kept_with_a_commit_whose_answer_is_lost(
    pool: Pool, store: PostgresEventStore, readings: PostgresReadingStore
) -> None:
    keys, flaky = PostgresIdempotencyKeys(pool), Flaky(store)
    lease = await keys.claim("user:u1", "k", b"r")
    assert isinstance(lease, Lease)
    flaky.lost = 3

    with pytest.raises(OutcomeUnknown):
        await Ingestion(readings, FixedClock()).record_one(READING, SENDER, lease)
    kept = await keys.claim("user:u1", "k", b"r")

    assert isinstance(kept, Kept)
    assert decode_outcome(kept.answer, kept.first_position).positions == (2, 2)
    assert await rows_of(pool) == 1


async def test_conflict_whose_answer_is_lost_is_kept_once(
    pool: Pool, store: PostgresEventStore, readings: PostgresReadingStore
) -> None:
    keys, ingestion = PostgresIdempotencyKeys(pool), Ingestion(readings, FixedClock())
    await ingestion.record_one(READING, SENDER)
    flaky = Flaky(store)
    lease = await keys.claim("user:u1", "k", b"r")
    assert isinstance(lease, Lease)
    flaky.lost = 1

    outcome = await ingestion.record_one(READING, SENDER, lease)

    assert outcome.duplicates == 1
    assert isinstance(await keys.claim("user:u1", "k", b"r"), Kept)


async def test_stop_answers_what_is_under_way(pool: Pool, readings: PostgresReadingStore) -> None:
    ingestion = Ingestion(readings, FixedClock())
    items = [
        SensorReading(sensor_id=f"s{n}", sensor_type="voltage", value=1.0, location=Place(1.0, 2.0)) for n in range(30)
    ]
    posts = [asyncio.create_task(ingestion.record_one(item, SENDER)) for item in items]
    while not readings.busy:  # noqa: ASYNC110  # nothing tells when the first one waits
        await asyncio.sleep(0)

    await readings.stop()

    outcomes = await asyncio.gather(*posts, return_exceptions=True)
    assert await rows_of(pool) == sum(isinstance(outcome, Outcome) and outcome.stored for outcome in outcomes)
    assert any(isinstance(outcome, Outcome) for outcome in outcomes)
