"""Whoever gets around the triggers is found, and where."""

import asyncio
import struct
from collections.abc import Iterator

import psycopg
import pytest
from tests.conftest import TEMPLATE, fresh_database

from smartgrid_adapters.postgres import audit as module
from smartgrid_adapters.postgres.audit import PostgresChains, audited
from smartgrid_adapters.postgres.codec import encode
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import Pool, open_pool
from smartgrid_adapters.postgres.telltales import is_plausible
from smartgrid_commands.ports import ANY_VERSION, StreamWrite
from smartgrid_domain.maths.columns import pack_readings, rows_of
from smartgrid_domain.maths.quantities import decimal_of
from smartgrid_projections.queries.audit import Audit, FirstBad
from smartgrid_schemas.registry import name_of
from smartgrid_schemas.telemetry import SensorConfigured, SeriesKey

LOG = "telemetry"
SIZES = [1, 1, 3, 1, 2, 1]
"""Events of the commits of a log: positions 1 | 2 | 3 4 5 | 6 | 7 8 | 9."""


@pytest.fixture(params=[20_000, 2], ids=["at once", "in parts"], autouse=True)
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Follow the chain at once, and in parts as small as can be."""
    monkeypatch.setattr(module, "PART_COMMITS", request.param)
    monkeypatch.setattr(module, "PART_EVENTS", request.param)


async def fill(store: PostgresEventStore) -> None:
    for log in (LOG, "identity"):
        for number, size in enumerate(SIZES):
            events = [SensorConfigured(sensor_id="s", name=f"{number} {i}") for i in range(size)]
            write = StreamWrite(stream=f"sensor:{number % 2}", events=events, expected_version=ANY_VERSION)
            await store.append(log, [write])


@pytest.fixture(scope="module")
def filled(postgres_server: str) -> Iterator[str]:
    """Return a database with two logs of nine events each; nobody may keep what they do to it."""

    async def scenario(url: str) -> None:
        pool = await open_pool(url)
        store = PostgresEventStore(pool)
        await fill(store)
        await store.stop()
        await pool.close()

    with fresh_database(postgres_server, TEMPLATE) as url:
        asyncio.run(scenario(url))
        yield url


async def after(url: str, *statements: str) -> Audit:
    """Return what is found after an administrator of the database got around the triggers, and take it back."""
    async with await psycopg.AsyncConnection.connect(url) as admin:
        await admin.execute("SET session_replication_role = replica")
        for statement in statements:
            await admin.execute(statement.encode())
        audit = await audited(admin)
        await admin.rollback()
    return audit


async def test_logs_that_nobody_touched_are_good(filled: str) -> None:
    audit = await after(filled)

    assert (audit.ok, audit.first_bad) == (True, None)
    assert {log: told.events for log, told in audit.logs.items()} == {LOG: 9, "identity": 9, "operations": 0}
    assert {log for log, told in audit.logs.items() if told.head is None} == {"operations"}


async def test_the_head_moves_with_its_log(postgres_store: PostgresEventStore, pool: Pool) -> None:
    await fill(postgres_store)
    chains = PostgresChains(pool)
    before = await chains.verify()
    event = SensorConfigured(sensor_id="s", name="new")
    await postgres_store.append(LOG, [StreamWrite(stream="sensor:0", events=[event], expected_version=ANY_VERSION)])

    later = await chains.verify()

    assert (before.ok, later.ok) == (True, True)
    assert later.logs[LOG].head != before.logs[LOG].head
    assert later.logs["identity"] == before.logs["identity"]


SWAP = """
UPDATE telemetry_events e SET state = o.state FROM telemetry_events o
WHERE (e.notification_id, o.notification_id) IN ((2, 6), (6, 2))
"""
MOVED = (
    "UPDATE telemetry_events SET notification_id = -notification_id WHERE notification_id IN (7, 8)",
    "UPDATE telemetry_events SET notification_id = 15 + notification_id WHERE notification_id IN (-7, -8)",
)


def bad(reason: str, position: int, last: int | None = None, stream: str | None = None) -> FirstBad:
    return FirstBad(log=LOG, position=position, last_position=last or position, reason=reason, stream=stream)  # type: ignore[arg-type]  # one of the reasons


ALTERED = [
    (
        "UPDATE telemetry_events SET state = set_byte(state, 3, get_byte(state, 3) # 1) WHERE notification_id = 6",
        bad("altered", 6),
    ),
    (
        "UPDATE telemetry_events SET state = state || '\\x00'::bytea WHERE notification_id = 4",
        bad("altered", 4, stream="sensor:0"),
    ),
    (
        "UPDATE telemetry_events SET metadata = 'x' WHERE notification_id = 5",
        bad("altered", 5, stream="sensor:0"),
    ),
    (
        """
        UPDATE telemetry_events e SET state = o.state FROM telemetry_events o
        WHERE e.notification_id = 4 AND o.notification_id = 5
        """,
        bad("altered", 3, 5),
    ),
    ("UPDATE telemetry_events SET metadata = '\\x90'::bytea WHERE notification_id = 6", bad("altered", 6)),
    (
        "UPDATE telemetry_events SET topic = 'telemetry.sensor-registered.v1' WHERE notification_id = 6",
        bad("altered", 6),
    ),
    ("UPDATE telemetry_events SET originator_id = 'sensor:9' WHERE notification_id = 6", bad("altered", 6)),
    ("UPDATE telemetry_events SET originator_version = 77 WHERE notification_id = 6", bad("altered", 6)),
    (
        "UPDATE telemetry_commits SET recorded_at = recorded_at + interval '1 microsecond' WHERE last_position = 6",
        bad("altered", 6),
    ),
    ("UPDATE telemetry_commits SET commit_id = gen_random_uuid() WHERE last_position = 5", bad("altered", 3, 5)),
    ("UPDATE telemetry_commits SET digest = sha256('mine') WHERE last_position = 5", bad("altered", 3, 5)),
    ("UPDATE telemetry_commits SET digest = 'short' WHERE last_position = 5", bad("altered", 3, 5)),
    ("UPDATE telemetry_commits SET n = 4 WHERE last_position = 5", bad("altered", 3, 5)),
    ("UPDATE telemetry_commits SET recorded_at = '1999-01-01' WHERE last_position = 9", bad("time_went_back", 9)),
]
REMOVED = [
    ("DELETE FROM telemetry_events WHERE notification_id = 6", bad("row_missing", 6)),
    ("DELETE FROM telemetry_events WHERE notification_id = 4", bad("row_missing", 4)),
    ("DELETE FROM telemetry_events WHERE notification_id = 1", bad("row_missing", 1)),
    ("DELETE FROM telemetry_events WHERE notification_id = 9", bad("row_missing", 9)),
    ("DELETE FROM telemetry_events WHERE notification_id >= 4", bad("row_missing", 4)),
    ("DELETE FROM telemetry_commits WHERE last_position = 5", bad("commit_missing", 3, 5)),
    ("DELETE FROM telemetry_commits WHERE last_position = 1", bad("commit_missing", 1)),
    ("DELETE FROM telemetry_commits WHERE last_position = 9", bad("row_added", 9, stream="sensor:1")),
]
SWAPPED = [
    ((SWAP,), bad("altered", 2)),
    (MOVED, bad("altered", 7, stream="sensor:0")),
]
ADDED = [
    (
        "INSERT INTO telemetry_events VALUES (10, 'sensor:0', 50, 'telemetry.sensor-configured.v1', 'x')",
        bad("row_added", 10, stream="sensor:0"),
    ),
    (
        "INSERT INTO telemetry_events VALUES (12, 'sensor:0', 50, 'telemetry.sensor-configured.v1', 'x')",
        bad("row_added", 12, stream="sensor:0"),
    ),
    (
        "INSERT INTO telemetry_events VALUES (0, 'sensor:0', 50, 'telemetry.sensor-configured.v1', 'x')",
        bad("row_added", 0, stream="sensor:0"),
    ),
    (
        (
            "INSERT INTO telemetry_events VALUES (10, 'sensor:0', 50, 'telemetry.sensor-configured.v1', 'x')",
            "INSERT INTO telemetry_commits VALUES (10, 1, now(), gen_random_uuid(), sha256('mine'))",
        ),
        bad("altered", 10),
    ),
]


@pytest.mark.parametrize(("statements", "where"), [*ALTERED, *REMOVED, *SWAPPED, *ADDED])
async def test_each_row_that_is_not_what_was_written_is_found(
    filled: str, statements: str | tuple[str, ...], where: FirstBad
) -> None:
    audit = await after(filled, *([statements] if isinstance(statements, str) else statements))

    assert (audit.ok, audit.first_bad) == (False, where)


async def test_the_first_of_several_is_named(filled: str) -> None:
    audit = await after(
        filled,
        "DELETE FROM telemetry_events WHERE notification_id = 9",
        "UPDATE telemetry_events SET state = 'x' WHERE notification_id = 4",
        "INSERT INTO telemetry_events VALUES (12, 'sensor:0', 50, 'telemetry.sensor-configured.v1', 'x')",
    )

    assert audit.first_bad == bad("altered", 4, stream="sensor:0")


async def test_a_cut_end_is_found_when_a_read_model_has_seen_it(filled: str) -> None:
    cut = (
        "DELETE FROM telemetry_events WHERE notification_id > 6",
        "DELETE FROM telemetry_commits WHERE last_position > 6",
    )
    seen = "UPDATE projection_checkpoints SET position = 9 WHERE name = 'aggregates'"

    assert (await after(filled, *cut)).ok
    assert (await after(filled, *cut, seen)).first_bad == bad("end_missing", 7, 9)


async def test_a_version_that_is_skipped_is_found(filled: str) -> None:
    """The append functions check versions; the pieces they are made of do not."""
    commit = "'telemetry', '00000000-0000-0000-0000-000000000001'"
    audit = await after(
        filled,
        f"SELECT log_begin({commit})",
        "INSERT INTO telemetry_events VALUES (10, 'sensor:0', 50, 'telemetry.sensor-configured.v1', 'x')",
        f"SELECT log_finish({commit}, 9)",
    )

    assert audit.first_bad == bad("version_gap", 10, stream="sensor:0")


async def test_streams_of_the_eventsourcing_library_have_versions_of_their_own(filled: str) -> None:
    audit = await after(
        filled,
        "SELECT telemetry_record(gen_random_uuid(), ARRAY['a', 'a'], ARRAY[0, 7]::bigint[], "
        "ARRAY['app.model:Started', 'app.model:Ended'], ARRAY['x', 'y']::bytea[])",
    )

    assert (audit.ok, audit.logs[LOG].events) == (True, 11)


@pytest.mark.parametrize(("value", "plausible"), [(1.25, True), (1.5, False)])
def test_readings_that_the_register_has_otherwise_are_told(value: float, plausible: bool) -> None:  # noqa: FBT001  # a parameter
    mantissa, exponent = decimal_of(value)
    rows = rows_of([0], [1_000_000], [mantissa], [exponent])
    event = pack_readings(0, [SeriesKey("s1", "power", None, "kW")], rows)
    registered = struct.pack(">4q", 1_000_000, -1, 125, 1)  # 1,250 W

    assert is_plausible(name_of(event), encode(event), None, registered) is plausible
