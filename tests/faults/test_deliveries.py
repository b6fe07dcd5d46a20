"""Each message three times, in any order within a window: every reading counts once."""

import asyncio
import random
from collections.abc import Iterator

import pytest
from tests.kit import checkers
from tests.kit.filling import SENDER, answer_of, at, prepared, voltage
from tests.kit.history import History, Request, fact_of
from tests.kit.rebuilds import check_against_a_rebuild, fold_all, opened, whole_log
from tests.kit.shares import seed_of, share
from tests.kit.tables import Connection, buckets

from smartgrid_adapters.postgres.flush import PostgresReadingStore
from smartgrid_commands.ingestion import Ingestion
from smartgrid_domain.readings import SensorReading
from smartgrid_http.testing import FixedClock

READINGS = [
    pytest.param(10_000, marks=pytest.mark.faults, id="smoke"),
    pytest.param(1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(3_600)], id="soak"),
]
EACH = 20
WINDOW = 1_000


def deliveries(messages: int, draw: random.Random) -> Iterator[int]:
    """Yield each message three times, no two copies further apart than the window."""
    waiting: list[int] = []
    for number in range(messages):
        waiting += [number] * 3
        while len(waiting) > WINDOW:
            yield waiting.pop(draw.randrange(len(waiting)))
    draw.shuffle(waiting)
    yield from waiting


def message(number: int) -> list[SensorReading]:
    return [voltage(f"s{n % 11}", n / 20, 215 + n % 300 / 10) for n in range(number * EACH, (number + 1) * EACH)]


@pytest.mark.parametrize("readings", READINGS)
async def test_messages_three_times_in_any_order_count_once(
    database: str, readings: int, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = seed_of(request.config, "deliveries")
    order = deliveries(share(request.config, readings) // EACH, random.Random(seed))
    history = History()
    delivered = 0
    async with opened(database) as (store, sealer), await Connection.connect(database, autocommit=True) as watch:
        readings_store = PostgresReadingStore(store.pool, store, sealer=sealer)
        ingestion = Ingestion(readings_store, FixedClock(at(10**7)))
        sent: dict[int, Request] = {}

        async def client() -> None:
            nonlocal delivered
            for number in order:
                items = message(number)
                if number not in sent:
                    sent[number] = history.send([fact_of(item) for item in items])
                outcome = await ingestion.record_many(prepared(items), SENDER, atomic=False, verdicts=True)
                sent[number].answers.append(answer_of(outcome))
                delivered += len(items)

        await asyncio.gather(*(client() for _ in range(16)))
        await readings_store.stop()
        log = await whole_log(store)
        await fold_all(store, sealer, ["aggregates", "consumption"], 50)

        checkers.in_order(log)
        checkers.no_lost_ack(history, log)
        checkers.no_phantom(history, log)
        checkers.one_effect(history, log, await buckets(watch))
        accepted = sum(state == "accepted" for one in history.requests for a in one.answers for state in a.states)
    await check_against_a_rebuild(database, ["aggregates", "consumption"])
    with capsys.disabled():
        text = f"deliveries: seed {seed}, {delivered} readings delivered, {accepted} accepted, each counts once"
        print(f"\n  {text}", end="")  # noqa: T201  # counts to show
    assert accepted == len(sent) * EACH
    assert delivered == 3 * accepted
