"""What PostgreSQL itself guarantees of a log, seen by SQL."""

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import AsyncConnection, sql

from smartgrid_adapters.postgres.arrays import EventRow
from smartgrid_adapters.postgres.codec import DamagedEvent, UnknownEvent, encode
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.log_writer import Begun, copy_events, versions_of
from smartgrid_adapters.postgres.pool import Connection, Pool, conninfo_of, open_pool, run_safely
from smartgrid_commands.ports import ANY_VERSION, StreamWrite
from smartgrid_schemas.envelope import LOGS, Metadata
from smartgrid_schemas.telemetry import SensorConfigured

LOG = "telemetry"


@pytest.fixture
async def conn(database: str) -> AsyncIterator[AsyncConnection[Any]]:
    async with await AsyncConnection.connect(conninfo_of(database), autocommit=True) as conn:
        yield conn


async def append(conn: AsyncConnection[Any], n: int = 1, commit_id: UUID | None = None) -> tuple[Any, ...]:
    cursor = await conn.execute(
        "SELECT * FROM log_append('telemetry', %s, %s, %s, %s, %s, %s)",
        (commit_id or uuid4(), ["s"] * n, [-1] * n, ["t"] * n, [b"\x00state"] * n, [None, b"m"][:n] + [None] * (n - 2)),
    )
    (row,) = await cursor.fetchall()
    return tuple(row)


def write(stream: str, n: int = 1) -> StreamWrite:
    events = [SensorConfigured(sensor_id="s", name=f"{i}") for i in range(n)]
    return StreamWrite(stream=stream, events=events, expected_version=ANY_VERSION, metadata=Metadata(actor="user:1"))


async def rows(conn: AsyncConnection[Any], query: str) -> list[tuple[Any, ...]]:
    return await (await conn.execute(query.encode())).fetchall()


async def cut_all(database: str) -> None:
    async with await AsyncConnection.connect(database, autocommit=True) as admin:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110  # it is another connection's state, and nothing tells of it
            await asyncio.sleep(0.01)


async def test_digests_are_a_chain_over_every_byte(store: PostgresEventStore, conn: AsyncConnection[Any]) -> None:
    await store.append(LOG, [write("sensor:ë", 3), write("sensor:b")])
    await store.append(LOG, [write("sensor:b", 2_500)])
    await store.append(LOG, [StreamWrite(stream="x", events=write("x").events, expected_version=0)])

    events = await rows(
        conn,
        "SELECT notification_id, originator_id, originator_version, topic, metadata, state FROM telemetry_events "
        "ORDER BY 1",
    )
    commits = await rows(
        conn, "SELECT last_position, n, recorded_at, commit_id, digest FROM telemetry_commits ORDER BY 1"
    )

    digest = b""
    for last, n, recorded_at, commit_id, stored in commits:
        hashes = b"".join(_row_hash(*event) for event in events if last - n < event[0] <= last)
        micros = (recorded_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        digest = hashlib.sha256(digest + hashes + struct.pack("!qq", n, micros) + commit_id.bytes).digest()
        assert stored == digest
    assert len(commits) == 3


def _row_hash(*columns: Any) -> bytes:  # noqa: ANN401  # of one row, in order
    position, stream, version, topic, metadata, state = columns
    fields = [struct.pack("!q", position), stream.encode(), struct.pack("!q", version), topic.encode(), metadata, state]
    text = b"".join(struct.pack("!i", -1) if f is None else struct.pack("!i", len(f)) + f for f in fields)
    return hashlib.sha256(text).digest()


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("table", ["events", "commits"])
async def test_what_is_logged_cannot_be_changed(
    database: str, conn: AsyncConnection[Any], log: str, table: str
) -> None:
    column = "topic" if table == "events" else "n"
    for template in ("UPDATE {} SET {} = DEFAULT", "DELETE FROM {}", "TRUNCATE {}"):
        statement = sql.SQL(template).format(sql.Identifier(f"{log}_{table}"), sql.Identifier(column))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await conn.execute(statement)
        async with await AsyncConnection.connect(database, autocommit=True) as owner:
            with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
                await owner.execute(statement)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_other_isolation_levels_are_refused(conn: AsyncConnection[Any], level: str) -> None:
    await conn.execute(f"BEGIN ISOLATION LEVEL {level}".encode())

    with pytest.raises(psycopg.errors.InvalidTransactionState, match="READ COMMITTED"):
        await append(conn)


async def test_no_commit_is_recorded_at_or_before_the_fence(database: str, conn: AsyncConnection[Any]) -> None:
    fence = datetime.now(UTC).replace(microsecond=7) + timedelta(hours=1)
    async with await AsyncConnection.connect(database, autocommit=True) as owner:
        await owner.execute("UPDATE log_fences SET fence = %s WHERE log = 'telemetry'", (fence,))

    first, second = await append(conn), await append(conn)

    assert first[3] == second[3] == fence + timedelta(microseconds=1)


async def test_a_clock_that_was_set_back_does_not_make_times_decrease(
    database: str, conn: AsyncConnection[Any]
) -> None:
    async with await AsyncConnection.connect(database, autocommit=True) as owner:
        await owner.execute("UPDATE log_fences SET fence = now() + interval '1 hour'")
        before = await append(conn)
        await owner.execute("UPDATE log_fences SET fence = '-infinity'")

    after = await append(conn)

    assert after[3] == before[3]


async def test_rows_that_leave_a_gap_are_refused(conn: AsyncConnection[Any]) -> None:
    await append(conn, 2)

    async def commit(base: int, positions: Sequence[int]) -> None:
        async with conn.transaction():
            await conn.execute("SELECT log_begin('telemetry', %s)", (uuid4(),))
            for position in positions:
                await conn.execute(
                    "INSERT INTO telemetry_events VALUES (%s, 'x', %s, 't', '', NULL)", (position, position)
                )
            await conn.execute("SELECT log_finish('telemetry', %s, %s)", (uuid4(), base))

    for base, positions in ((2, (4,)), (2, (3, 5)), (1, ()), (0, ())):
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            await commit(base, positions)


@pytest.mark.parametrize(
    ("streams", "versions", "outcome"),
    [
        ("aa", (-1, -1), ("appended", None)),
        ("aa", (3, 4), ("appended", None)),
        ("aa", (3, -1), ("appended", None)),
        ("aa", (-1, 4), ("appended", None)),
        ("ab", (3, 1), ("appended", None)),
        ("aba", (3, -1, 4), ("appended", None)),
        ("aa", (3, 3), ("conflict", "a")),
        ("aa", (4, 5), ("conflict", "a")),
        ("a", (2,), ("conflict", "a")),
        ("ab", (-1, 2), ("conflict", "b")),
        ("aba", (3, -1, 5), ("conflict", "a")),
    ],
)
async def test_versions_follow_their_stream_also_within_one_append(
    conn: AsyncConnection[Any], streams: str, versions: tuple[int, ...], outcome: tuple[str, str | None]
) -> None:
    await conn.execute(
        "SELECT log_append('telemetry', %s, '{a,a}', '{-1,-1}', '{t,t}', %s, '{NULL,NULL}')", (uuid4(), [b"", b""])
    )
    n = len(streams)

    cursor = await conn.execute(
        "SELECT status, conflict_stream FROM log_append('telemetry', %s, %s, %s, %s, %s, %s)",
        (uuid4(), list(streams), list(versions), ["t"] * n, [b""] * n, [None] * n),
    )

    assert await cursor.fetchone() == outcome
    events = await rows(
        conn, "SELECT originator_id, originator_version FROM telemetry_events WHERE notification_id > 2"
    )
    expected = [(stream, 2 * (stream == "a") + 1 + streams[:i].count(stream)) for i, stream in enumerate(streams)]
    assert events == (expected if outcome[0] == "appended" else [])


async def test_a_log_that_does_not_exist_is_refused(conn: AsyncConnection[Any]) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no log is called"):
        await conn.execute("SELECT log_begin('telemetry_events', %s)", (uuid4(),))


async def test_a_second_look_under_the_lock_finds_the_commit_that_was_overtaken(
    database: str, conn: AsyncConnection[Any]
) -> None:
    commit_id = uuid4()
    async with await AsyncConnection.connect(conninfo_of(database), autocommit=True) as retry:
        await conn.execute("BEGIN")
        first = await append(conn, commit_id=commit_id)
        waiting = asyncio.create_task(append(retry, commit_id=commit_id))
        while not await rows(conn, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
            pass
        await conn.execute("COMMIT")

        assert await waiting == ("known", *first[1:])


async def test_callers_at_once_share_commits(store: PostgresEventStore, conn: AsyncConnection[Any]) -> None:
    await asyncio.gather(*(store.append(LOG, [write(f"sensor:{i}")]) for i in range(200)))

    ((commits,),) = await rows(conn, "SELECT count(*) FROM telemetry_commits")
    assert commits <= 5


async def test_stopping_answers_what_waits(pool: Pool) -> None:
    store = PostgresEventStore(pool)
    waiting = [asyncio.create_task(store.append(LOG, [write(f"sensor:{i}")])) for i in range(20)]
    await asyncio.sleep(0)

    await store.stop()

    assert sorted(appended.first_position for appended in await asyncio.gather(*waiting)) == list(range(1, 21))


async def test_a_caller_larger_than_a_flush_is_one_commit(
    store: PostgresEventStore, conn: AsyncConnection[Any]
) -> None:
    await store.append(LOG, [write(f"sensor:{i}", 3_000) for i in range(4)])

    assert await rows(conn, "SELECT last_position, n FROM telemetry_commits") == [(12_000, 12_000)]


async def test_another_process_is_woken_by_the_notification(
    database: str, store: PostgresEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = await open_pool(database)
    reader = PostgresEventStore(pool)
    await reader.start()
    await reader.append("identity", [write("sensor:1")])
    await until(lambda: reader.tail.listening)
    monkeypatch.setattr(reader.tail, "head", None)  # a poll would fail

    waiting = asyncio.create_task(reader.wait_for(LOG, 1, timeout_s=10))
    await asyncio.sleep(0)
    await store.append(LOG, [write("sensor:1")])

    assert await waiting
    await reader.stop()
    await pool.close()


async def test_a_lost_notification_is_made_up_by_a_poll(store: PostgresEventStore, conn: AsyncConnection[Any]) -> None:
    waiting = asyncio.create_task(store.wait_for(LOG, 1, timeout_s=10))
    await asyncio.sleep(0)
    await append(conn)  # by SQL: nobody notifies

    assert await waiting


async def test_a_listener_that_was_cut_off_listens_again(database: str, store: PostgresEventStore) -> None:
    await until(lambda: store.tail.listening)
    await cut_all(database)
    await until(lambda: not store.tail.listening)
    await until(lambda: store.tail.listening)

    await store.append("identity", [write("sensor:1")])

    assert await store.wait_for("identity", 1, timeout_s=10)


async def test_stale_connections_of_a_pool_heal_at_once(database: str, pool: Pool) -> None:
    async def hold(conn: Connection) -> None:
        await conn.execute("SELECT pg_sleep(0.05)")

    await asyncio.gather(*(run_safely(pool, hold) for _ in range(8)))
    await cut_all(database)
    start = asyncio.get_running_loop().time()

    await asyncio.gather(*(run_safely(pool, hold) for _ in range(8)))

    assert asyncio.get_running_loop().time() - start < 2


async def test_a_store_whose_connections_were_cut_appends_again(database: str, store: PostgresEventStore) -> None:
    await store.append(LOG, [write("sensor:1")])
    await cut_all(database)

    appended = await store.append(LOG, [write("sensor:1")])

    assert appended.first_position == 2
    assert [r.version for r in await store.read_stream(LOG, "sensor:1")] == [1, 2]


async def test_a_flush_of_ones_own_takes_its_turn_with_the_store(store: PostgresEventStore) -> None:
    state = encode(SensorConfigured(sensor_id="s"))
    topic = "telemetry.sensor-configured.v1"

    async def body(conn: Connection, begun: Begun) -> int:
        versions = await versions_of(conn, LOG, ["sensor:a", "sensor:b"])
        rows = [EventRow(stream, version + 1, topic, state, None) for stream, version in versions.items()]
        await copy_events(conn, begun, rows)
        return len(rows)

    commit_ids = [uuid4() for _ in range(10)]
    own = asyncio.gather(*(store.writer.transact(LOG, commit_id, body) for commit_id in commit_ids))
    await asyncio.gather(*(store.append(LOG, [write("sensor:a")]) for _ in range(50)))
    answers = await own

    assert {n for _, n in answers} == {2}
    versions = [r.version for r in await store.read_stream(LOG, "sensor:a")]
    assert versions == list(range(1, 61))
    commit, result = await store.writer.transact(LOG, commit_ids[0], body)
    assert commit.known
    assert result is None
    assert commit.first_position == answers[0][0].first_position


async def test_a_body_that_fails_stores_nothing(store: PostgresEventStore) -> None:
    async def body(conn: Connection, begun: Begun) -> None:
        await copy_events(conn, begun, [EventRow("sensor:a", 1, "telemetry.sensor-configured.v1", b"", None)])
        raise LookupError("a key is there already")

    with pytest.raises(LookupError):
        await store.writer.transact(LOG, uuid4(), body)

    assert await store.head(LOG) == 0
    assert (await store.append(LOG, [write("sensor:a")])).first_position == 1


async def test_events_before_a_damaged_one_are_read_first(
    store: PostgresEventStore, conn: AsyncConnection[Any]
) -> None:
    await store.append(LOG, [write("sensor:a", 2)])
    await conn.execute(
        "SELECT log_append('telemetry', %s, '{d}', '{-1}', '{telemetry.sensor-configured.v1}', %s, '{NULL}')",
        (uuid4(), [b"\xc1"]),
    )
    await append(conn)

    assert [r.position for r in await store.read_log(LOG)] == [1, 2]
    with pytest.raises(DamagedEvent) as damage:
        await store.read_log(LOG, after=2)
    assert (damage.value.log, damage.value.position, damage.value.stream) == (LOG, 3, "d")
    with pytest.raises(UnknownEvent):
        await store.read_log(LOG, after=3)


async def test_one_caller_whom_postgresql_refuses_hurts_nobody_else(store: PostgresEventStore) -> None:
    answers = await asyncio.gather(
        *(store.append(LOG, [write(name)]) for name in ("sensor:a", "sensor:\0", "sensor:b", "sensor:\ud800")),
        return_exceptions=True,
    )

    assert [isinstance(answer, Exception) for answer in answers] == [False, True, False, True]
    assert await store.head(LOG) == 2
