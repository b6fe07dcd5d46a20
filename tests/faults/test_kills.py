"""kill -9, and stopping past a lease, of processes that record and that fold; few in CI, a thousand in soak."""

import asyncio
import random
import time
from collections.abc import Callable

import pytest
from tests.kit import checkers
from tests.kit.checkers import Trace
from tests.kit.filling import fill
from tests.kit.history import History, Request
from tests.kit.rebuilds import check_against_a_rebuild, opened, whole_log
from tests.kit.shares import seed_of, share
from tests.kit.tables import Connection, buckets, forget, traces
from tests.kit.victims import Victim, ingest, project, told

from smartgrid_ops.worker import PROJECTIONS
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event

pytestmark = pytest.mark.timeout(900)

SMOKE = pytest.param(20, marks=pytest.mark.faults, id="smoke")
SOAK = pytest.param(1_000, marks=[pytest.mark.soak, pytest.mark.timeout(3_600)], id="soak")
ZOMBIES = [pytest.param(3, marks=pytest.mark.faults, id="smoke"), pytest.param(100, marks=pytest.mark.soak, id="soak")]
LEASE_S = 1.0

Say = Callable[[str], None]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def out(text: str) -> None:
        with capsys.disabled():
            print(f"\n  {text}", end="")  # noqa: T201  # counts to show

    return out


async def caught_up(url: str, name: str, log: str, head: int, limit_s: float = 30.0) -> None:
    """Wait until a projection is at *head*."""
    end = time.monotonic() + limit_s
    async with await Connection.connect(url, autocommit=True) as watch:
        while (await traces(watch))[name].positions[log] < head:
            assert time.monotonic() < end, f"{name} is behind {head} after {limit_s} s"
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kills", [SMOKE, SOAK])
async def test_killing_ingestion_loses_and_doubles_nothing(
    database: str, kills: int, request: pytest.FixtureRequest, say: Say
) -> None:
    seed = seed_of(request.config, "ingest")
    kills = share(request.config, kills)
    draw = random.Random(seed)
    history = History()
    answered = unanswered = 0
    log: list[Recorded[Event]] = []
    async with opened(database) as (store, _):
        for number in range(1, kills + 1):
            requests: dict[int, Request] = {}
            with Victim(ingest, database, number) as victim:
                answered += told(history, requests, victim.messages(0.05 + draw.uniform(0.1, 0.4)))
                victim.kill()
                answered += told(history, requests, victim.messages())
            unanswered += sum(not one.answers for one in requests.values())
            if number % 50 == 0 or number == kills:
                log = await whole_log(store)
                checkers.in_order(log)
                checkers.no_lost_ack(history, log)
                checkers.no_phantom(history, log)

    say(f"ingestion: seed {seed}, {kills} kills, {answered} readings answered, {unanswered} requests in flight: ")
    say(f"  {len(log)} events, 0 lost, 0 doubled, 0 out of order")
    assert answered > 20 * kills
    assert unanswered >= kills // 2


@pytest.mark.parametrize("kills", [SMOKE, SOAK])
async def test_killing_projections_leaves_what_a_rebuild_makes(
    database: str, kills: int, request: pytest.FixtureRequest, say: Say
) -> None:
    seed = seed_of(request.config, "project")
    kills = share(request.config, kills)
    draw = random.Random(seed)
    seen: dict[str, list[Trace]] = {name: [] for name in PROJECTIONS}
    names = sorted(PROJECTIONS)
    moved = 0
    async with opened(database) as (store, sealer), await Connection.connect(database, autocommit=True) as watch:
        history = await fill(store.pool, store, sealer)
        requests: dict[int, Request] = {}
        load = Victim(ingest, database, 1, 4)
        try:
            for number in range(kills):
                name = names[number % len(names)]
                with Victim(project, database, name) as victim:
                    told(history, requests, load.messages(0.1 + draw.uniform(0.1, 0.4)))
                    victim.kill()
                trace = (await traces(watch))[name]
                before = seen[name][-1].positions if seen[name] else dict.fromkeys(trace.positions, 0)
                moved += sum(trace.positions[log] - before[log] for log in trace.positions)
                seen[name].append(trace)
                checkers.never_back(seen[name])
        finally:
            load.kill()
        told(history, requests, load.messages())
        log = await whole_log(store)
        heads = {"telemetry": len(log), "identity": await store.head("identity")}
        for name in names:
            [source] = PROJECTIONS[name][0].logs
            with Victim(project, database, name):
                await caught_up(database, name, source, heads[source])
        checkers.one_effect(history, log, await buckets(watch))
    await check_against_a_rebuild(database, names)

    say(f"projections: seed {seed}, {kills} kills, {moved} events folded under them, head {heads}: all as rebuilt")
    assert moved > 10 * kills


@pytest.mark.parametrize("rounds", ZOMBIES)
async def test_a_worker_that_slept_past_its_lease_writes_nothing_stale(
    database: str, rounds: int, request: pytest.FixtureRequest, say: Say
) -> None:
    seed = seed_of(request.config, "zombie")
    rounds = share(request.config, rounds)
    draw = random.Random(seed)
    seen: list[Trace] = []
    history, requests = History(), dict[int, Request]()
    async with opened(database) as (store, _), await Connection.connect(database, autocommit=True) as watch:
        load = Victim(ingest, database, 1, 2)
        first, second = (Victim(project, database, "aggregates", LEASE_S) for _ in range(2))
        takeovers = 0
        try:
            for _ in range(rounds):
                told(history, requests, load.messages(0.3))
                epoch = (await traces(watch))["aggregates"].epoch
                first.freeze()  # if it is the owner, the other takes over once the lease is out
                told(history, requests, load.messages(LEASE_S + draw.uniform(0.3, 1.0)))
                first.thaw()
                told(history, requests, load.messages(0.3))
                seen.append((await traces(watch))["aggregates"])
                takeovers += seen[-1].epoch > epoch
                checkers.never_back(seen)
                first, second = second, first
        finally:
            load.kill()
        told(history, requests, load.messages())
        log = await whole_log(store)
        await caught_up(database, "aggregates", "telemetry", len(log))
        first.kill()
        second.kill()
        checkers.no_lost_ack(history, log)
        checkers.one_effect(history, log, await buckets(watch))
    await check_against_a_rebuild(database, ["aggregates"])

    say(f"zombies: seed {seed}, {rounds} stops past the lease, {takeovers} takeovers, {len(log)} events: none stale")
    assert takeovers >= 1


POINTS = [(call, when) for call in (1, 3, 7, 12, 20) for when in ("before", "after")]


@pytest.mark.faults
async def test_a_real_process_dies_at_its_failpoint_and_the_next_goes_on(database: str, say: Say) -> None:
    async with opened(database) as (store, sealer), await Connection.connect(database, autocommit=True) as watch:
        history = await fill(store.pool, store, sealer)
        log = await whole_log(store)
        for call, when in POINTS:
            await forget(watch)
            victim = Victim(project, database, "aggregates", 5.0, f"projections:{call}:{when}:die")
            victim.join()
            assert victim.exit_code == -9
            with Victim(project, database, "aggregates"):
                await caught_up(database, "aggregates", "telemetry", len(log))
            checkers.one_effect(history, log, await buckets(watch))

    say(f"failpoints: {len(POINTS)} real processes died at theirs, each followed by one that went on")
