"""Many clients at one time: one commit for many, one winner for one key."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from tests.system.product import Product

CLIENTS = 64
POSTS_EACH = 25
REQUESTS_PER_COMMIT = 8
COMMITS = "SELECT count(*) FROM telemetry_commits"
READINGS = """
SELECT count(*) FROM reading_register r JOIN series s USING (series_id) WHERE s.subject_id = %s
"""


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with Product(tmp_path_factory.mktemp("many") / "home") as running:
        yield running


@asynccontextmanager
async def session(product: Product) -> AsyncGenerator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {product.token()}"}
    async with aiohttp.ClientSession(
        product.url, headers=headers, connector=aiohttp.TCPConnector(limit=0)
    ) as connected:
        yield connected


def reading(sensor: str, at: int, value: float) -> dict[str, object]:
    return {
        "sensor_id": sensor,
        "sensor_type": "voltage",
        "value": value,
        "timestamp": f"2026-01-15T10:{at // 60 % 60:02}:{at % 60:02}.{at // 3600:03}Z",
        "location": {"lat": 41.3275, "lon": 19.8187},
    }


async def post(client: aiohttp.ClientSession, body: object) -> tuple[int, dict[str, Any]]:
    async with client.post("/api/v1/ingest/sensor", json=body) as response:
        return response.status, await response.json()


async def test_64_clients_share_their_commits(product: Product) -> None:
    before = product.rows(COMMITS)[0][0]

    async with session(product) as client:

        async def one(number: int) -> list[int]:
            return [(await post(client, reading(f"many-{number}", at, 230 + at / 10)))[0] for at in range(POSTS_EACH)]

        statuses = Counter(status for some in await asyncio.gather(*map(one, range(CLIENTS))) for status in some)

    commits = product.rows(COMMITS)[0][0] - before
    assert statuses == {201: CLIENTS * POSTS_EACH}
    assert CLIENTS * POSTS_EACH / commits >= REQUESTS_PER_COMMIT, f"{commits} commits"


async def test_of_100_identical_posts_one_is_stored(product: Product) -> None:
    async with session(product) as client:
        answers = await asyncio.gather(*(post(client, reading("same", 1, 230.5)) for _ in range(100)))

    assert Counter(status for status, _ in answers) == {201: 1, 200: 99}
    assert len({(answer["event_id"], answer["position"]) for _, answer in answers}) == 1
    assert product.rows(READINGS, ("same",)) == [(1,)]


async def test_of_20_values_for_one_key_one_is_stored_and_19_conflict(product: Product) -> None:
    async with session(product) as client:
        answers = await asyncio.gather(*(post(client, reading("race", 1, 220 + value)) for value in range(20)))

    stored = [answer["event_id"] for status, answer in answers if status == 201]
    refused = [answer for status, answer in answers if status == 409]
    assert (len(stored), len(refused)) == (1, 19)
    assert {(answer["code"], answer["existing_event_id"]) for answer in refused} == {("reading_conflict", stored[0])}
    assert product.rows(READINGS, ("race",)) == [(1,)]
