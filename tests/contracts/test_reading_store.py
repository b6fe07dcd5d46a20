"""One suite over every store of readings: whatever comes in whatever order, the register is what the model says."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from smartgrid_adapters.memory.data_keys import MemoryDataKeys
from smartgrid_adapters.memory.event_store import MemoryEventStore
from smartgrid_adapters.memory.readings import MemoryIdempotencyKeys, MemoryReadingStore
from smartgrid_adapters.postgres import flush
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.flush import PostgresReadingStore
from smartgrid_adapters.postgres.idempotency import PostgresIdempotencyKeys
from smartgrid_adapters.postgres.pool import open_pool
from smartgrid_adapters.postgres.sealing import PostgresDataKeys
from smartgrid_adapters.sealing import KeySealer
from smartgrid_commands.idempotency import IdempotencyKeys, Kept, request_hash
from smartgrid_commands.ingestion import Ingestion, Outcome, Prepared, Sender
from smartgrid_commands.ports import EventStore
from smartgrid_commands.reading_calls import Lease, LeaseLost
from smartgrid_commands.reading_items import rows_of_items
from smartgrid_domain.maths.columns import unpack
from smartgrid_domain.maths.quantities import decimal_of
from smartgrid_domain.readings import MeterReading, Place, SensorReading
from smartgrid_http.testing import FixedClock
from smartgrid_schemas.metering import MeterReadingsRecorded, MeterRegistered
from smartgrid_schemas.telemetry import ReadingsRecorded, SensorRegistered

AT = "2026-01-15T10:30:00Z"
NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
SENDER = Sender(actor="user:u1", correlation_id="r1", operator=True)


@dataclass
class Store:
    ingestion: Ingestion
    log: EventStore
    keys: IdempotencyKeys
    second: Ingestion
    """Another process on the same database; the same one in memory."""


@pytest.fixture(params=["memory", "postgres", "postgres, by copy"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Return the database of the store, None for memory."""
    if request.param == "postgres, by copy":
        monkeypatch.setattr(flush, "FUNCTION_ROWS", 0)
    return None if request.param == "memory" else request.getfixturevalue("database")


@pytest.fixture
async def store(place: str | None) -> AsyncIterator[Store]:
    clock = FixedClock(NOW)
    if place is None:
        memory = MemoryEventStore(sealer=KeySealer(MemoryDataKeys(), b"m" * 32))
        keys = MemoryIdempotencyKeys()
        ingestion = Ingestion(MemoryReadingStore(memory, keys), clock)
        yield Store(ingestion, memory, keys, ingestion)
        return
    pool = await open_pool(place)
    sealer = KeySealer(PostgresDataKeys(pool), b"m" * 32)
    logs = [PostgresEventStore(pool, sealer=sealer) for _ in range(2)]
    stores = [PostgresReadingStore(pool, log, sealer=sealer) for log in logs]
    for log in logs:
        await log.start()
    first, second = (Ingestion(one, clock) for one in stores)
    yield Store(first, logs[0], PostgresIdempotencyKeys(pool), second)
    for one, log in zip(stores, logs, strict=True):
        await one.stop()
        await log.stop()
    await pool.close()


def reading(**changes: object) -> SensorReading:
    item = {"sensor_id": "s1", "sensor_type": "voltage", "value": 220.5, "timestamp": AT, "location": Place(1.0, 2.0)}
    return SensorReading(**{**item, **changes})  # type: ignore[arg-type]


def prepared(items: list[SensorReading]) -> Prepared:
    rows, bad = rows_of_items(items, np.arange(len(items)), 0, 2**62)
    assert not bad
    return Prepared(items=len(items), parts=[rows])


def verdict(outcome: Outcome) -> str:
    if outcome.errors:
        return outcome.errors[0].code
    return "duplicate" if outcome.duplicates else "accepted"


def series_of(event: ReadingsRecorded | MeterReadingsRecorded, index: int) -> tuple[str, str]:
    """Return owner and measurand of a series."""
    if isinstance(event, ReadingsRecorded):
        return event.series[index].sensor_id, event.series[index].sensor_type
    return event.series[index].meter_id, event.series[index].register


async def log_rows(log: EventStore, wanted: Callable[[str], bool] = lambda _: True) -> list[tuple[object, ...]]:
    """Return (owner, measurand, µs, seq, mantissa, exponent, id replaced) of all readings in the log, in order."""
    found: list[tuple[object, ...]] = []
    for recorded in await log.read_log("telemetry", limit=100_000):
        event = recorded.event
        if not isinstance(event, ReadingsRecorded | MeterReadingsRecorded):
            continue
        rows = unpack(event)
        replaced = {correction.row: correction.event_id for correction in rows.corrects}
        for row, index in enumerate(rows.series_index.tolist()):
            owner, kind = series_of(event, index)
            key = (owner, kind, int(rows.measured_at_us[row]), int(rows.seq[row]))
            value = (int(rows.mantissa[row]), int(rows.exponent[row]))
            if wanted(owner):
                found.append((*key, *value, replaced.get(row)))
    return found


async def test_of_100_identical_posts_at_once_one_is_stored(store: Store) -> None:
    outcomes = await asyncio.gather(
        *(ingestion.record_one(reading(), SENDER) for _ in range(50) for ingestion in (store.ingestion, store.second))
    )

    assert Counter(map(verdict, outcomes)) == {"accepted": 1, "duplicate": 99}
    assert len({outcome.event_ids for outcome in outcomes}) == 1
    assert len(await log_rows(store.log)) == 1


async def test_of_20_values_for_one_key_one_is_stored(store: Store) -> None:
    outcomes = await asyncio.gather(
        *(
            ingestion.record_one(reading(value=float(value)), SENDER)
            for value in range(10)
            for ingestion in (store.ingestion, store.second)
        )
    )

    assert Counter(map(verdict, outcomes))["reading_conflict"] >= 18
    assert Counter(map(verdict, outcomes))["accepted"] == 1
    assert len(await log_rows(store.log)) == 1


async def test_readings_without_a_time_that_come_at_once_are_all_stored(store: Store) -> None:
    outcomes = await asyncio.gather(
        *(store.ingestion.record_one(reading(timestamp=None), SENDER) for _ in range(20)),
        store.second.record_one(reading(timestamp=None), SENDER),
    )

    assert Counter(map(verdict, outcomes)) == {"accepted": 21}
    rows = await log_rows(store.log)
    assert len({row[2] for row in rows}) == len(rows) == 21


async def test_first_sights_are_facts_and_come_once(store: Store) -> None:
    await asyncio.gather(
        *(
            ingestion.record_one(reading(sensor_id=f"s{number % 5}", seq=number), SENDER)
            for number in range(20)
            for ingestion in (store.ingestion, store.second)
        )
    )
    meter = MeterReading(meter_id="m1", customer_id="c1", reading=1.0, timestamp=AT)
    await asyncio.gather(store.ingestion.record_one(meter, SENDER), store.second.record_one(meter, SENDER))

    recorded = await store.log.read_log("telemetry", limit=1000)
    sights = [r for r in recorded if isinstance(r.event, SensorRegistered | MeterRegistered)]
    assert sorted(r.stream for r in sights) == ["meter:m1", *(f"sensor:s{n}" for n in range(5))]
    assert [r.position for r in recorded] == list(range(1, len(recorded) + 1))
    for stream in {r.stream for r in recorded}:
        versions = [r.version for r in recorded if r.stream == stream]
        assert versions == list(range(1, len(versions) + 1))


async def test_customer_is_sealed_in_the_log(store: Store) -> None:
    await store.ingestion.record_one(MeterReading(meter_id="m1", customer_id="c1", reading=1.0, timestamp=AT), SENDER)

    (registered, _) = await store.log.read_log("telemetry", limit=10)
    assert isinstance(registered.event, MeterRegistered)
    assert not isinstance(registered.event.customer_id, str)


async def test_atomic_batch_is_in_one_commit_or_nowhere(store: Store) -> None:
    items = [reading(sensor_id=f"a{number}", seq=number) for number in range(40)]
    await store.ingestion.record_one(reading(sensor_id="a39", seq=39, value=1.0), SENDER)

    refused = await store.ingestion.record_many(prepared(items), SENDER, atomic=True, verdicts=False)
    before = await log_rows(store.log)
    taken = await store.ingestion.record_many(prepared(items[:39]), SENDER, atomic=True, verdicts=False)

    assert (refused.accepted, refused.rejected, refused.stored) == (39, 1, False)
    assert len(before) == 1
    assert taken.accepted == 39
    recorded = await store.log.read_log("telemetry", limit=1000)
    assert len({r.recorded_at for r in recorded[2:]}) == 1
    assert taken.positions is not None
    assert taken.positions[1] == recorded[-1].position


async def test_event_holds_one_shard_and_kind_and_at_most_4096_rows(store: Store) -> None:
    items = [reading(sensor_id=f"s{number % 3}", seq=number) for number in range(15_000)]

    outcome = await store.ingestion.record_many(prepared(items), SENDER, atomic=False, verdicts=False)

    recorded = await store.log.read_log("telemetry", limit=100)
    events = [(r.stream, r.event) for r in recorded if isinstance(r.event, ReadingsRecorded)]
    assert outcome.accepted == 15_000
    assert sum(event.count for _, event in events) == 15_000
    assert all(event.count <= 4096 and stream == f"readings:{event.shard}" for stream, event in events)


async def test_answer_is_kept_in_the_commit_of_the_events(store: Store) -> None:
    request = request_hash("POST", "/x", b"body")
    lease = await store.keys.claim("user:u1", "k", request)
    assert isinstance(lease, Lease)

    outcome = await store.ingestion.record_one(reading(), SENDER, lease)

    kept = await store.keys.claim("user:u1", "k", request)
    assert isinstance(kept, Kept)
    assert kept.first_position == outcome.first_position


async def test_caller_whose_lease_is_gone_stores_nothing_and_others_do(store: Store) -> None:
    lease = await store.keys.claim("user:u1", "k", b"r")
    assert isinstance(lease, Lease)
    await store.keys.release(lease)

    lost, kept = await asyncio.gather(
        store.ingestion.record_one(reading(), SENDER, lease),
        store.ingestion.record_one(reading(sensor_id="s2"), SENDER),
        return_exceptions=True,
    )

    assert isinstance(lost, LeaseLost)
    assert isinstance(kept, Outcome)
    assert [row[0] for row in await log_rows(store.log)] == ["s2"]


# The model: what each natural key holds, newest last.


class Post(Struct, frozen=True):
    """A plain reading of key *key*."""

    key: int
    value: int


class Correct(Struct, frozen=True):
    """A correction of key *key*: of its newest revision, of its first, or of an id that nobody has."""

    key: int
    value: int
    target: Literal["newest", "first", "unknown"]


class Batch(Struct, frozen=True):
    """Plain readings in one batch."""

    posts: tuple[Post, ...]
    atomic: bool


keys = st.integers(0, 3)
values = st.integers(0, 2)
posts = st.builds(Post, keys, values)
steps = st.lists(
    st.one_of(
        posts,
        st.builds(Correct, keys, values, st.sampled_from(["newest", "first", "unknown"])),
        st.builds(Batch, st.lists(posts, min_size=1, max_size=5).map(tuple), st.booleans()),
    ),
    max_size=12,
)


@dataclass
class Model:
    owner: str
    held: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict[int, list[tuple[int, bytes]]])
    corrections: dict[tuple[int, bytes], int] = field(default_factory=dict[tuple[int, bytes], int])
    rows: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])

    def item(self, key: int, value: int, **more: object) -> SensorReading:
        return reading(sensor_id=self.owner, seq=key, value=float(value) + 0.5, **more)

    def post(self, key: int, value: int) -> str:
        if key not in self.held:
            return "accepted"
        return "duplicate" if self.held[key][0][0] == value else "reading_conflict"

    def store(self, key: int, value: int, event_id: bytes, replaced: bytes | None) -> None:
        self.held.setdefault(key, []).append((value, event_id))
        at = int(NOW.timestamp()) * 1_000_000
        self.rows.append((self.owner, "voltage", at, key, *decimal_of(value + 0.5), replaced))


async def play_post(store: Store, model: Model, step: Post) -> None:
    expected = model.post(step.key, step.value)
    outcome = await store.ingestion.record_one(model.item(step.key, step.value), SENDER)
    assert verdict(outcome) == expected
    if expected == "accepted":
        model.store(step.key, step.value, outcome.event_ids, None)
    elif expected == "duplicate":
        assert outcome.event_ids == model.held[step.key][0][1]


async def play_correct(store: Store, model: Model, step: Correct) -> None:
    held = model.held.get(step.key)
    unknown = uuid4().bytes
    target = unknown if held is None or step.target == "unknown" else held[-1 if step.target == "newest" else 0][1]
    again = model.corrections.get((step.key, target))
    if target == unknown:
        expected = "not_found"
    elif again is not None:
        expected = "duplicate" if again == step.value else "correction_conflict"
    else:
        expected = "accepted"
    item = model.item(step.key, step.value, corrects=str(UUID(bytes=target)), reason="wrong")
    outcome = await store.second.record_one(item, SENDER)
    assert verdict(outcome) == expected
    if expected == "accepted":
        model.corrections[step.key, target] = step.value
        model.store(step.key, step.value, outcome.event_ids, target)


async def play_batch(store: Store, model: Model, step: Batch) -> None:
    trial = {key: held[0][0] for key, held in model.held.items()}
    expected: list[str] = []
    new: list[tuple[int, Post]] = []
    for index, post in enumerate(step.posts):
        if post.key not in trial:
            trial[post.key] = post.value
            new.append((index, post))
            expected.append("accepted")
        else:
            expected.append("duplicate" if trial[post.key] == post.value else "reading_conflict")
    items = [model.item(post.key, post.value) for post in step.posts]
    outcome = await store.ingestion.record_many(prepared(items), SENDER, atomic=step.atomic, verdicts=True)
    refused = step.atomic and "reading_conflict" in expected
    assert [error.index for error in outcome.errors] == [i for i, e in enumerate(expected) if e == "reading_conflict"]
    assert (outcome.accepted, outcome.duplicates) == (expected.count("accepted"), expected.count("duplicate"))
    if not refused:
        for index, post in new:
            model.store(post.key, post.value, outcome.event_ids[16 * index : 16 * index + 16], None)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=steps)
async def test_log_holds_what_the_model_says_after_any_steps(store: Store, steps: list[Post | Correct | Batch]) -> None:
    model = Model(f"s{uuid4().hex}")

    for step in steps:
        match step:
            case Post():
                await play_post(store, model, step)
            case Correct():
                await play_correct(store, model, step)
            case Batch():
                await play_batch(store, model, step)

    rows = await log_rows(store.log, lambda owner: owner == model.owner)
    assert sorted(rows, key=repr) == sorted(model.rows, key=repr)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    batches=st.lists(st.builds(Batch, st.lists(posts, min_size=1, max_size=4).map(tuple), st.booleans()), max_size=8)
)
async def test_callers_at_once_store_each_key_once(store: Store, batches: list[Batch]) -> None:
    model = Model(f"s{uuid4().hex}")

    outcomes = await asyncio.gather(
        *(
            (store.ingestion if number % 2 else store.second).record_many(
                prepared([model.item(post.key, post.value) for post in batch.posts]),
                SENDER,
                atomic=batch.atomic,
                verdicts=True,
            )
            for number, batch in enumerate(batches)
        )
    )

    rows = await log_rows(store.log, lambda owner: owner == model.owner)
    assert len({row[:4] for row in rows}) == len(rows)
    stored = {row[3]: row[4:6] for row in rows}
    told = 0
    for batch, outcome in zip(batches, outcomes, strict=True):
        rejected = {error.index for error in outcome.errors}
        told += outcome.accepted if outcome.stored else 0
        for index, post in enumerate(batch.posts):
            if index not in rejected and not (batch.atomic and rejected):
                assert stored[post.key] == decimal_of(post.value + 0.5)
    assert told == len(rows)
