"""kill -9 of the API, of the worker and of all of PostgreSQL while readings come in."""

import asyncio
import itertools
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import aiohttp
import psycopg
import pytest
from msgspec import Struct
from tests.system.ledger import DURABILITY, Key, Ledger, check, stored
from tests.system.product import Product

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

ROUNDS = int(os.environ.get("SGA_TEST_ROUNDS", "20"))
CLIENTS = 32
LEAST_IN_FLIGHT = 16
ANSWERED_IN_ALL = 500 * ROUNDS  # 10,000 for the 20 rounds of each kind
SENSORS = 25
BATCH = 8
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEGIN = datetime(2026, 1, 15, tzinfo=UTC)
BACK_S = 30.0
CAUGHT_UP = """
SELECT (SELECT coalesce(max(last_position), 0) FROM telemetry_commits) = min(c.position)
FROM projection_checkpoints c JOIN projection_versions v USING (name, version)
WHERE c.log = 'telemetry' AND v.state = 'active' AND c.name IN ('aggregates', 'consumption')
"""


class Round(Struct):
    """What one round saw."""

    in_flight: int
    sent: int
    answered: int


class Load:
    """Clients that keep requests in flight; every reading is in the ledger before it goes out."""

    def __init__(self, product: Product, ledger: Ledger, numbers: Iterator[int]) -> None:
        self._product = product
        self._ledger = ledger
        self._numbers = numbers
        self._ending = False
        self.in_flight = 0
        self.began = asyncio.Event()

    async def run(self, kill: asyncio.Task[int]) -> int:
        headers = {"Authorization": f"Bearer {self._product.token()}"}
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=15)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
            clients = [asyncio.create_task(self._client(session, number)) for number in range(CLIENTS)]
            in_flight = await kill
            await asyncio.sleep(0.15)  # some go on into the fault
            self._ending = True
            await asyncio.gather(*clients)
        return in_flight

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        while not self._ending:
            count = BATCH if number % 2 else 1
            items, keys = self._items(count)
            self.in_flight += 1
            try:
                if count == 1:
                    answered = await self._post(session, "/api/v1/ingest/sensor", items[0])
                else:
                    answered = await self._post(session, "/api/v1/ingest/batch", {"readings": items})
            except (aiohttp.ClientError, OSError, TimeoutError):
                answered = False
                await asyncio.sleep(0.02)
            finally:
                self.in_flight -= 1
            if answered:
                self._ledger.answered.update(keys)
                self.began.set()

    async def _post(self, session: aiohttp.ClientSession, path: str, body: object) -> bool:
        async with session.post(self._product.url + path, json=body) as response:
            answer = await response.json()
            assert response.status in {200, 201, 500, 502, 503, 504}, answer
            assert response.status != 500, answer
            assert response.status >= 300 or answer.get("rejected", 0) == 0, answer
            return response.status < 300

    def _items(self, count: int) -> tuple[list[dict[str, object]], list[Key]]:
        items: list[dict[str, object]] = []
        keys: list[Key] = []
        for number in itertools.islice(self._numbers, count):
            sensor = f"kill-{number % SENSORS}"
            at = BEGIN + timedelta(milliseconds=number)
            value = f"{220 + number % 2000 / 100:.2f}"
            key = (sensor, (at - EPOCH) // timedelta(microseconds=1))
            self._ledger.sent[key] = Decimal(value)
            keys.append(key)
            items.append(
                {
                    "sensor_id": sensor,
                    "sensor_type": "voltage",
                    "value": float(value),
                    "location": {"lat": 41.3275, "lon": 19.8187},
                    "timestamp": at.isoformat(),
                }
            )
        return items, keys


def victims(product: Product, kind: str) -> list[int]:
    found = product.pids_of(kind)
    return found if kind != "postgres" else [*found, *(child for server in found for child in children(server))]


def children(parent: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent:
                    found.append(int(entry.name))
    return found


async def kill_under_load(product: Product, kind: str, ledger: Ledger, numbers: Iterator[int], pause_s: float) -> Round:
    sent, answered = len(ledger.sent), len(ledger.answered)
    load = Load(product, ledger, numbers)

    async def kill() -> int:
        await asyncio.wait_for(load.began.wait(), 20)
        await asyncio.sleep(pause_s)
        found = victims(product, kind)
        in_flight = load.in_flight
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return in_flight

    in_flight = await load.run(asyncio.create_task(kill()))
    return Round(in_flight, len(ledger.sent) - sent, len(ledger.answered) - answered)


def wait_until_back(product: Product, kind: str, before: list[int]) -> None:
    end = time.monotonic() + BACK_S
    while time.monotonic() < end:
        now = product.pids_of(kind)
        if now and not set(now) & set(before):
            break
        time.sleep(0.02)
    product.wait_ready(BACK_S)
    while time.monotonic() < end:
        with suppress(psycopg.OperationalError):
            if product.rows(CAUGHT_UP) == [(True,)]:
                return
        time.sleep(0.02)
    raise AssertionError(f"not back, or behind, {BACK_S} s after the {kind} was killed")


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with Product(tmp_path_factory.mktemp("kill") / "home") as running:
        yield running


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return itertools.count()


@pytest.mark.parametrize("kind", ["api", "worker", "postgres"])
def test_nothing_answered_is_lost_and_nothing_is_counted_twice(
    product: Product, ledger: Ledger, numbers: Iterator[int], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("SGA_TEST_SEED", time.time_ns() % 1_000_000))
    draw = random.Random(f"{seed} {kind}")  # noqa: S311  # a moment, no secret
    [(fsync, commit, pages)] = product.rows(DURABILITY)
    head = f"\n{kind}: seed {seed}, fsync {fsync}, synchronous_commit {commit}, full_page_writes {pages}"
    say(capsys, head)
    assert (fsync, commit, pages) == ("on", "on", "on")

    for number in range(1, ROUNDS + 1):
        before = victims(product, kind)
        pause_s = draw.uniform(0.1, 0.4)
        seen = asyncio.run(kill_under_load(product, kind, ledger, numbers, pause_s))
        wait_until_back(product, kind, before[:1])
        found = stored(product.database)
        check(ledger, found)
        say(
            capsys,
            f"  {kind} {number:2}: killed {len(before)} after {pause_s:.2f} s with {seen.in_flight} in flight; "
            f"sent {seen.sent}, answered {seen.answered}; in all answered {len(ledger.answered)}, "
            f"stored {len(found.register)}, lost 0, twice 0",
        )
        assert seen.in_flight >= LEAST_IN_FLIGHT


def test_enough_was_answered_to_mean_something(ledger: Ledger) -> None:
    assert len(ledger.answered) >= ANSWERED_IN_ALL


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(text)  # noqa: T201  # counts to show
