"""The register is read as it was at a position, in order, in pages of any size: compared with a model in Python."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace
from tests.http.reads.filling import START, Filler, Pool, Stored

from smartgrid_adapters.postgres.queries.readings import PostgresRegister
from smartgrid_projections.queries.readings import Place, Row, Slice, pages_of

END = START + timedelta(minutes=60)


class Fact(Struct, frozen=True):
    """Something that happens to a natural key: a reading, a correction, or a retraction of the newest."""

    minute: int
    seq: int
    measurand: str
    phase: str
    retracts: bool


facts = st.builds(
    Fact,
    minute=st.integers(0, 3),
    seq=st.sampled_from([-1, -1, 0, 7]),
    measurand=st.sampled_from(["voltage", "current"]),
    phase=st.sampled_from(["-", "L1"]),
    retracts=st.booleans(),
)


async def happen(filler: Filler, sensor_id: str, sequence: Sequence[Fact]) -> tuple[list[Stored], dict[UUID, int]]:
    """Record *sequence*; return the rows with their positions, and the positions of retractions."""
    rows: list[Stored] = []
    retracted: dict[UUID, int] = {}
    for fact in sequence:
        key = (fact.minute, fact.seq, fact.measurand, fact.phase)
        known = [row for row in rows if (row.minute, row.seq, row.measurand, row.phase) == key]
        if fact.retracts:
            if known and known[-1].event_id not in retracted:
                retracted[known[-1].event_id] = await filler.retract(known[-1])
            continue
        row = Stored(
            subject_id=sensor_id,
            minute=fact.minute,
            seq=fact.seq,
            measurand=fact.measurand,
            phase=fact.phase,
            revision=len(known),
            event_id=uuid4(),
        )
        rows.append(replace(row, position=await filler.store(row)))
    return rows, retracted


def expected(rows: Sequence[Stored], retracted: dict[UUID, int], wanted: Slice) -> list[tuple[object, ...]]:
    """What *wanted* is, by the words of its definition."""
    known = [row for row in rows if row.position <= wanted.up_to]
    found: list[tuple[object, ...]] = []
    for row in known:
        same = [other for other in known if key_of(other) == key_of(row)]
        superseded = any(other.revision > row.revision for other in same)
        corrects = next((other.event_id for other in same if other.revision == row.revision - 1), None)
        gone = retracted.get(row.event_id, wanted.up_to + 1) <= wanted.up_to
        fits = (
            wanted.start <= row.measured_at < wanted.end
            and wanted.measurand in (None, row.measurand)
            and wanted.phase in (None, row.phase)
            and (wanted.all_versions or not (superseded or gone))
        )
        if fits:
            order = (row.measured_at, row.seq, row.measurand, row.phase, row.revision)
            found.append((order, row.event_id, superseded, corrects, gone))
    return sorted(found, key=lambda one: one[0], reverse=wanted.descending)  # type: ignore[arg-type, return-value]  # tuples of one shape


def key_of(row: Stored) -> tuple[object, ...]:
    return (row.measured_at, row.seq, row.measurand, row.phase)


def shown(row: Row) -> tuple[object, ...]:
    order = (row.measured_at, row.seq, row.measurand, row.phase, row.revision)
    return (order, row.event_id, row.superseded, row.corrects, row.retracted)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sequence=st.lists(facts, max_size=12),
    back=st.integers(0, 8),
    first=st.integers(0, 2),
    last=st.integers(2, 5),
    measurand=st.sampled_from([None, None, "voltage"]),
    phase=st.sampled_from([None, None, "L1", "-"]),
    page=st.integers(1, 4),
)
async def test_pages_of_any_size_are_what_the_log_told_at_a_position(  # noqa: PLR0913, PLR0917  # drawn by Hypothesis
    pool: Pool,
    filler: Filler,
    sequence: list[Fact],
    back: int,
    first: int,
    last: int,
    measurand: str | None,
    phase: str | None,
    page: int,
) -> None:
    sensor_id = f"s{uuid4().hex}"
    rows, retracted = await happen(filler, sensor_id, sequence)
    up_to = await filler.append("nothing:1") - back
    register = PostgresRegister(pool)

    for descending in (False, True):
        for all_versions in (False, True):
            wanted = Slice(
                subject="sensor",
                subject_id=sensor_id,
                measurand=measurand,
                phase=phase,
                start=START + timedelta(minutes=first),
                end=START + timedelta(minutes=last),
                up_to=up_to,
                descending=descending,
                all_versions=all_versions,
                limit=page,
            )
            walked: list[Row] = []
            after: Place | None = None
            while part := await register.rows(replace(wanted, after=after)):
                walked += part
                after = part[-1].place

            assert [shown(row) for row in walked] == expected(rows, retracted, wanted)


async def test_a_walk_neither_skips_nor_repeats_while_others_record(pool: Pool, filler: Filler) -> None:
    stored = await filler.readings("s1", range(0, 40, 2))
    up_to = await filler.append("nothing:1")
    register = PostgresRegister(pool)
    wanted = Slice(subject="sensor", subject_id="s1", start=START, end=END, up_to=up_to, limit=3)

    walked: list[Row] = []
    after: Place | None = None
    while part := await register.rows(replace(wanted, after=after)):
        walked += part
        after = part[-1].place
        # Before and after the place, a correction of a row that is still to come, and a retraction of one.
        minute = walked[-1].measured_at.minute
        await filler.readings("s1", [minute + 1, max(0, minute - 3)], seq=len(walked))
        ahead = [row for row in stored if row.minute > minute]
        if len(ahead) > 1:
            await filler.store(replace(ahead[0], revision=1, event_id=uuid4(), mantissa=1))
            await filler.retract(ahead[1])

    assert [row.event_id for row in walked] == [row.event_id for row in stored]


async def test_a_whole_range_is_read_part_by_part(pool: Pool, filler: Filler) -> None:
    stored = await filler.readings("s1", range(30))
    wanted = Slice(subject="sensor", subject_id="s1", start=START, end=END, up_to=10, limit=25)

    parts = [rows async for rows in pages_of(PostgresRegister(pool), wanted)]

    assert [row.event_id for rows in parts for row in rows] == [row.event_id for row in stored[:25]]


async def test_the_latest_is_the_newest_that_counts_of_each_series(pool: Pool, filler: Filler) -> None:
    await filler.readings("s1", [0, 1, 2])
    (corrected,) = await filler.readings("s1", [3])
    correction = replace(corrected, revision=1, event_id=uuid4())
    await filler.store(correction)
    (late,) = await filler.readings("s1", [4])
    up_to = await filler.retract(late)
    (current,) = await filler.readings("s1", [1], measurand="current", phase="L2")
    register = PostgresRegister(pool)

    now = await register.latest("sensor", "s1", measurand=None, start=None, up_to=10**9)
    then = await register.latest("sensor", "s1", measurand=None, start=None, up_to=up_to - 1)
    later = await register.latest("sensor", "s1", measurand=None, start=current.measured_at, up_to=10**9)
    none = await register.latest("sensor", "s1", measurand="power", start=None, up_to=10**9)

    assert [row.event_id for row in now] == [current.event_id, correction.event_id]
    assert now[1].corrects == corrected.event_id
    assert [row.event_id for row in then] == [late.event_id]
    assert [row.event_id for row in later] == [current.event_id, correction.event_id]
    assert none == []
