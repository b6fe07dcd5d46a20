"""Rollups folded in parts, in memory, equal those folded batch by batch."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.projections.facts import START_US, Fact, Reading, Recorder, arrivals, chains
from tests.projections.stored import store, stored_rollups
from tests.projections.test_aggregates import oracle, recorded

from smartgrid_adapters.postgres import folding
from smartgrid_adapters.postgres.checkpoints import PostgresStandings
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.folding import FoldFailed, changed_keys, fold_into, keep
from smartgrid_adapters.postgres.rollups import PostgresRollups
from smartgrid_adapters.postgres.versions import PostgresVersions
from smartgrid_commands.ports import StreamWrite
from smartgrid_ops import worker
from smartgrid_ops.settings import Settings
from smartgrid_ops.worker import run_worker
from smartgrid_projections.queries.standing import Waiting
from smartgrid_projections.read_models.aggregates_fold import Folding, Part
from smartgrid_projections.register import SeriesName, Subject
from smartgrid_projections.runtime import rebuild


class Names:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def series(self, subject: Subject, names: Sequence[SeriesName]) -> Mapping[SeriesName, int]:
        return {name: self._recorder.register.id_of(subject, name) for name in names}


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_any_facts_folded_in_any_parts_give_the_rows_of_the_oracle(database: str, data: st.DataObject) -> None:
    of = data.draw(chains())
    recorder = recorded(data.draw(arrivals(of)))
    events = [one.event for one in recorder.log.events["telemetry"]]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=3)))

    async def scenario() -> None:
        await store(database, recorder)
        async with await psycopg.AsyncConnection.connect(database) as connection:
            changed = await changed_keys(connection, len(events))
            parts: list[Part] = []
            for first, last in zip([0, *cuts], [*cuts, len(events)], strict=True):
                folding = Folding(Names(recorder), changed)
                for event in events[first:last]:
                    await folding.add([event])
                parts.append(folding.result())
            await keep(PostgresRollups(connection), parts, changed, len(events))
        assert await stored_rollups(database) == oracle(of)

    asyncio.run(scenario())


async def appended(recorder: Recorder, events: PostgresEventStore) -> None:
    """Put the log of *recorder* into the real store, position for position."""
    for version, one in enumerate(recorder.log.events["telemetry"]):
        write = StreamWrite(stream="readings:0", events=[one.event], expected_version=version)
        await events.append("telemetry", [write])


@pytest.mark.parametrize("processes", [1, 2])
async def test_processes_fold_the_log_of_the_store(
    database: str, postgres_store: PostgresEventStore, processes: int
) -> None:
    of = example()
    recorder = recorded([[fact] for chain in of for fact in chain])
    await store(database, recorder)
    await appended(recorder, postgres_store)
    async with await psycopg.AsyncConnection.connect(database) as connection:
        head = len(recorder.log.events["telemetry"])
        await fold_into(PostgresRollups(connection), database, head, processes)

    assert await stored_rollups(database) == oracle(of)


def example() -> list[list[Fact]]:
    chains: list[list[Fact]] = []
    for number in range(60):
        reading = Reading(f"s{number % 3}", "power", None, START_US + number * 60_000_000, -1)
        chain = [Fact(reading, "read", float(number), "W")]
        if number % 7 == 0:
            chain.append(Fact(reading, "correct", float(number + 1000), "W"))
        if number % 11 == 0:
            chain.append(Fact(reading, "retract"))
        chains.append(chain)
    return chains


async def test_a_rebuild_of_a_long_log_folds_it_in_parts_and_equals_the_version_in_use(
    database: str, postgres_store: PostgresEventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "FOLD_EVENTS", 10)
    leaps: list[int] = []
    fold = folding.fold_into

    async def noted(tables: PostgresRollups, url: str, up_to: int, processes: int) -> None:
        leaps.append(up_to)
        await fold(tables, url, up_to, processes)

    monkeypatch.setattr(worker, "fold_into", noted)
    recorder = recorded([[fact] for chain in example() for fact in chain])
    await store(database, recorder)
    await appended(recorder, postgres_store)
    head = len(recorder.log.events["telemetry"])
    versions, stop = PostgresVersions(postgres_store.pool), asyncio.Event()
    working = asyncio.create_task(run_worker(Settings(home=tmp_path, pg_url=database), ["aggregates"], stop))
    waiting = Waiting(PostgresStandings(postgres_store.pool))
    assert await waiting.until(["aggregates"], {"telemetry": head}, 20_000)
    await versions.start("aggregates", "rb_1", auto_switch=False)
    async with asyncio.timeout(20):
        # The database tells, no event of ours.
        while (found := await versions.rebuild("aggregates", "rb_1")).state not in ("ready", "failed"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    stop.set()
    await working

    assert (found.state, found.error, leaps) == ("ready", None, [head])
    assert found.verify is not None
    assert (found.verify.rows_differing, found.verify.rows_new) == (0, found.verify.rows_active)


async def test_a_part_that_cannot_be_folded_names_its_error(database: str, postgres_store: PostgresEventStore) -> None:
    recorder = recorded([[chain[0]] for chain in example()[:2]])
    await appended(recorder, postgres_store)
    async with await psycopg.AsyncConnection.connect(database) as connection:
        with pytest.raises(FoldFailed, match="KeyError"):  # the register knows no such series
            await fold_into(PostgresRollups(connection), database, 2, 1)
