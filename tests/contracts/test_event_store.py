"""One suite over every event store."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from smartgrid_adapters.memory.event_store import MemoryEventStore
from smartgrid_adapters.postgres import effects as postgres_effects
from smartgrid_adapters.postgres import group_commit
from smartgrid_commands.ports import (
    ANY_VERSION,
    Appended,
    Effect,
    EffectRefused,
    EventStore,
    StreamWrite,
    WrongExpectedVersion,
)
from smartgrid_projections.ports import EventLog
from smartgrid_schemas.envelope import LOGS, Metadata, Recorded, event_id_of
from smartgrid_schemas.event import Event
from smartgrid_schemas.telemetry import SensorConfigured

LOG = "telemetry"


class ClaimName(Effect, frozen=True, kw_only=True):
    """A name that only one append may take."""

    name: str


class ReleaseName(Effect, frozen=True, kw_only=True):
    """A name that has to be taken."""

    name: str
    must_match: bool = True


class Names:
    """The effects above for the store in memory: all or nothing."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def carry_out(self, effects: Sequence[Effect]) -> None:
        taken = set(self.taken)
        for effect in effects:
            match effect:
                case ClaimName(name=name) if name not in taken:
                    taken.add(name)
                case ReleaseName(name=name) if name in taken:
                    taken.remove(name)
                case _:
                    raise EffectRefused(effect, "names_pkey")
        self.taken = taken


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> EventStore:
    if request.param == "memory":
        return MemoryEventStore(carry_out=Names().carry_out)
    monkeypatch.setattr(group_commit, "COPY_ROWS", 50)
    monkeypatch.setattr(postgres_effects, "EFFECT_SQL", {ClaimName: _claim, ReleaseName: _release})
    with psycopg.connect(request.getfixturevalue("database"), autocommit=True) as conn:
        conn.execute("CREATE TABLE names (name text PRIMARY KEY)")
        conn.execute("GRANT ALL ON names TO smartgrid_app")
    store: EventStore = request.getfixturevalue("postgres_store")
    return store


def _claim(effect: ClaimName) -> postgres_effects.Statement:
    return "INSERT INTO names (name) VALUES (%s)", (effect.name,)


def _release(effect: ReleaseName) -> postgres_effects.Statement:
    return "DELETE FROM names WHERE name = %s", (effect.name,)


def fact(name: str = "a fact") -> SensorConfigured:
    return SensorConfigured(sensor_id="s", name=name)


def write(stream: str, n: int = 1, expected_version: int = ANY_VERSION) -> StreamWrite:
    return StreamWrite(stream=stream, events=[fact(f"{i}") for i in range(n)], expected_version=expected_version)


async def test_a_store_is_both_ports(store: EventStore) -> None:
    assert isinstance(store, EventStore)
    assert isinstance(store, EventLog)


async def test_what_was_appended_is_read_back_whole(store: EventStore) -> None:
    metadata = Metadata(actor="user:1", correlation_id="c", causation_id="p")
    commit_id = uuid4()
    writes = [
        StreamWrite(stream="sensor:a", events=[fact("1"), fact("2")], expected_version=0, metadata=metadata),
        StreamWrite(stream="sensor:b", events=[fact("3")], expected_version=0),
    ]

    appended = await store.append(LOG, writes, commit_id=commit_id)

    def at(position: int, stream: str, version: int, metadata: Metadata) -> Recorded[Event]:
        return Recorded(
            log=LOG,
            position=position,
            stream=stream,
            version=version,
            event_id=event_id_of(stream, commit_id, position - 1),
            recorded_at=appended.recorded_at,
            metadata=metadata,
            event=fact(f"{position}"),
        )

    assert (appended.first_position, appended.last_position) == (1, 3)
    assert await store.read_log(LOG) == [
        at(1, "sensor:a", 1, metadata),
        at(2, "sensor:a", 2, metadata),
        at(3, "sensor:b", 1, Metadata()),
    ]
    assert await store.read_stream(LOG, "sensor:b") == [at(3, "sensor:b", 1, Metadata())]


async def test_each_log_has_its_own_positions(store: EventStore) -> None:
    for log in LOGS:
        appended = await store.append(log, [write("sensor:a", 2, 0)])
        assert (appended.first_position, appended.last_position) == (1, 2)
        assert await store.head(log) == 2


async def test_reads_keep_to_their_bounds(store: EventStore) -> None:
    await store.append(LOG, [write("sensor:a", 10, 0)])

    assert [r.position for r in await store.read_log(LOG, after=3, limit=4)] == [4, 5, 6, 7]
    assert [r.position for r in await store.read_log(LOG, after=3, up_to=5)] == [4, 5]
    assert await store.read_log(LOG, after=10) == []
    assert [r.version for r in await store.read_stream(LOG, "sensor:a", after=8)] == [9, 10]
    assert await store.read_stream(LOG, "sensor:b") == []


async def test_a_stream_at_another_version_refuses_the_whole_append(store: EventStore) -> None:
    await store.append(LOG, [write("sensor:a", 2, 0)])

    for expected in (0, 1, 3):
        with pytest.raises(WrongExpectedVersion) as refusal:
            await store.append(LOG, [write("sensor:b"), write("sensor:a", 1, expected)])
        assert (refusal.value.stream, refusal.value.expected) == ("sensor:a", expected)
    assert await store.head(LOG) == 2
    assert await store.read_stream(LOG, "sensor:b") == []


async def test_an_append_without_events_is_a_mistake(store: EventStore) -> None:
    with pytest.raises(ValueError, match="at least one"):
        await store.append(LOG, [])


async def test_a_repeated_commit_id_answers_as_it_did_at_first(store: EventStore) -> None:
    commit_id = uuid4()
    first = await store.append(LOG, [write("sensor:a", 3, 0)], commit_id=commit_id)
    await store.append(LOG, [write("sensor:a", 1, 3)])

    again = await store.append(LOG, [write("sensor:a", 3, 0)], commit_id=commit_id)
    with_other_events = await store.append(LOG, [write("sensor:b", 300, 7)], commit_id=commit_id)

    assert again == with_other_events == first
    assert await store.head(LOG) == 4


async def test_of_many_with_one_commit_id_one_is_stored_and_all_get_its_answer(store: EventStore) -> None:
    commit_id = uuid4()

    answers = await asyncio.gather(
        *(store.append(LOG, [write("sensor:a", 1, 0)], commit_id=commit_id) for _ in range(20)),
        *(store.append(LOG, [write(f"sensor:{i}")]) for i in range(20)),
    )

    assert len(set(map(str, answers[:20]))) == 1
    assert await store.head(LOG) == 21


@pytest.mark.parametrize("n", [1, 300])
async def test_effects_are_written_with_their_events_or_not_at_all(store: EventStore, n: int) -> None:
    await store.append(LOG, [write("user:1", n)], effects=[ClaimName(name="ana")])

    with pytest.raises(EffectRefused) as refusal:
        await store.append(LOG, [write("user:2", n)], effects=[ClaimName(name="beni"), ClaimName(name="ana")])

    assert refusal.value.effect == ClaimName(name="ana")
    assert refusal.value.constraint == "names_pkey"
    assert await store.head(LOG) == n
    await store.append(LOG, [write("user:3", n)], effects=[ClaimName(name="beni")])


async def test_an_effect_that_must_match_refuses_when_it_finds_nothing(store: EventStore) -> None:
    with pytest.raises(EffectRefused):
        await store.append(LOG, [write("user:1")], effects=[ReleaseName(name="ana")])
    await store.append(LOG, [write("user:1")], effects=[ClaimName(name="ana")])
    await store.append(LOG, [write("user:1")], effects=[ReleaseName(name="ana")])

    assert await store.head(LOG) == 2


async def test_a_refused_effect_hits_nobody_else_in_the_flush(store: EventStore) -> None:
    answers = await asyncio.gather(
        *(store.append(LOG, [write(f"user:{i}")], effects=[ClaimName(name="ana")]) for i in range(5)),
        *(store.append(LOG, [write(f"sensor:{i}")]) for i in range(5)),
        return_exceptions=True,
    )

    kinds = Counter(type(answer) for answer in answers)
    assert kinds == {Appended: 6, EffectRefused: 4}
    assert await store.head(LOG) == 6


async def test_waiting_ends_when_the_position_is_visible(store: EventStore) -> None:
    waiting = asyncio.create_task(store.wait_for(LOG, 2, timeout_s=30))
    await store.append(LOG, [write("sensor:a")])
    assert not waiting.done()
    await store.append(LOG, [write("sensor:a")])

    assert await waiting
    assert await store.wait_for(LOG, 1, timeout_s=0)
    assert not await store.wait_for(LOG, 3, timeout_s=0.01)


class Attempt(Struct, frozen=True):
    """What one of several callers at once tries."""

    streams: tuple[int, ...]
    n: int
    ahead: int | None
    repeats: bool


attempts = st.builds(
    Attempt,
    streams=st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True).map(tuple),
    n=st.sampled_from([1, 1, 1, 2, 40]),
    ahead=st.sampled_from([None, 0, 0, 0, 1, -1]),
    repeats=st.booleans(),
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rounds=st.lists(st.lists(attempts, min_size=1, max_size=8), min_size=1, max_size=4))
async def test_callers_at_once_are_as_good_as_one_after_the_other(
    store: EventStore, rounds: list[list[Attempt]]
) -> None:
    """
    Every answer is one that some order of the callers would have given, namely the order of positions.

    So: positions without gaps, each caller wholly there or not at all, versions as expected, and nobody is refused
    whose streams stood where he said all the time.
    """
    run = uuid4().hex
    versions: dict[str, int] = {}
    for tries in rounds:
        base, before = await store.head(LOG), dict(versions)
        expectations = [
            {
                f"sensor:{run}-{s}": None if t.ahead is None else max(0, versions.get(f"sensor:{run}-{s}", 0) + t.ahead)
                for s in t.streams
            }
            for t in tries
        ]
        ids = [uuid4() if t.repeats else None for t in tries]

        answers = await asyncio.gather(
            *(
                _try(store, wanted, t.n, commit_id)
                for wanted, t, commit_id in zip(expectations, tries, ids, strict=True)
                for _ in range(2 if commit_id else 1)
            )
        )

        flat = [
            (wanted, t)
            for wanted, t, commit_id in zip(expectations, tries, ids, strict=True)
            for _ in range(2 if commit_id else 1)
        ]
        stored = {
            (a.first_position, a.last_position): (wanted, t)
            for a, (wanted, t) in zip(answers, flat, strict=True)
            if isinstance(a, Appended)
        }
        next_position = base + 1
        for (first, last), (wanted, t) in sorted(stored.items(), key=lambda item: item[0]):
            assert first == next_position
            assert last == first + len(wanted) * t.n - 1
            there = await store.read_log(LOG, after=first - 1, up_to=last)
            expected = [(s, versions.get(s, 0) + i + 1) for s in wanted for i in range(t.n)]
            assert [(r.stream, r.version) for r in there] == expected
            assert all(v is None or v == versions.get(s, 0) for s, v in wanted.items())
            versions.update({s: versions.get(s, 0) + t.n for s in wanted})
            next_position = last + 1
        assert await store.head(LOG) == next_position - 1
        for answer, (wanted, _) in zip(answers, flat, strict=True):
            if isinstance(answer, WrongExpectedVersion):
                start, end = before.get(answer.stream, 0), versions.get(answer.stream, 0)
                assert wanted[answer.stream] == answer.expected
                assert not start == end == answer.expected
    times = [r.recorded_at for r in await store.read_log(LOG, limit=100_000)]
    assert all(earlier <= later for earlier, later in pairwise(times))


async def _try(
    store: EventStore, wanted: dict[str, int | None], n: int, commit_id: UUID | None
) -> Appended | WrongExpectedVersion:
    writes = [write(stream, n, ANY_VERSION if v is None else v) for stream, v in wanted.items()]
    try:
        return await store.append(LOG, writes, commit_id=commit_id)
    except WrongExpectedVersion as refusal:
        return refusal


async def test_a_tailing_reader_sees_every_event_once_in_order(store: EventStore) -> None:
    writers, each = 8, 40
    seen: list[Recorded[Event]] = []

    async def tail() -> None:
        while len(seen) < writers * each:
            after = seen[-1].position if seen else 0
            await store.wait_for(LOG, after + 1, timeout_s=30)
            seen.extend(await store.read_log(LOG, after=after, limit=7))

    async def append(writer: int) -> None:
        for i in range(each):
            await store.append(LOG, [write(f"sensor:{writer}", 1, i)])

    await asyncio.wait_for(asyncio.gather(tail(), *(append(w) for w in range(writers))), 60)

    assert [r.position for r in seen] == list(range(1, writers * each + 1))
    assert Counter(r.stream for r in seen) == {f"sensor:{w}": each for w in range(writers)}


async def test_a_caller_that_leaves_does_not_disturb_the_others(store: EventStore) -> None:
    leaving = [asyncio.create_task(store.append(LOG, [write(f"sensor:left-{i}")])) for i in range(5)]
    staying = [asyncio.create_task(store.append(LOG, [write(f"sensor:{i}")])) for i in range(5)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()

    answers = await asyncio.gather(*staying)

    positions = sorted(a.first_position for a in answers)
    assert len(set(positions)) == 5
    head = await store.head(LOG)
    assert len(await store.read_log(LOG)) == head >= 5
