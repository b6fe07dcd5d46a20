import asyncio
from typing import Any

import pytest
from tests.http.ingest.kit import BATCH, METER, SENSOR, World, meter_reading, reading

KEY = {"idempotency-key": "k1"}


async def test_repeat_with_a_key_gets_the_first_answer(world: World) -> None:
    first = await world.client.post(SENSOR, reading(timestamp=None), headers=KEY)
    world.clock.advance(3600)

    again = await world.client.post(SENSOR, reading(timestamp=None), headers=KEY)

    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert len(await world.stored()) == 1


async def test_conflict_is_kept_under_its_key(world: World) -> None:
    await world.client.post(SENSOR, reading())
    first = await world.client.post(SENSOR, reading(value=1), headers=KEY)

    again = await world.client.post(SENSOR, reading(value=1), headers=KEY)

    assert (first.status, again.status) == (409, 409)
    assert again.json() | {"request_id": ""} == first.json() | {"request_id": ""}
    assert again.headers["idempotency-replayed"] == "true"


async def test_refused_input_is_not_kept(world: World) -> None:
    first = await world.client.post(SENSOR, reading(location=None), headers=KEY)
    again = await world.client.post(SENSOR, reading(value=-1), headers={"idempotency-key": "k2"})
    fixed = await world.client.post(SENSOR, reading(), headers={"idempotency-key": "k2"})

    assert (first.status, again.status, fixed.status) == (400, 400, 201)


@pytest.mark.parametrize("query", ["", "?mode=atomic", "?verdicts=all"])
async def test_batch_is_answered_again_as_the_first_time(world: World, query: str) -> None:
    body = {"readings": [reading(), reading(seq=1), meter_reading()]}
    first = await world.client.post(BATCH + query, body, headers=KEY)

    again = await world.client.post(BATCH + query, body, headers=KEY)

    assert first.json()["accepted"] == 3
    assert again.body == first.body


async def test_rejected_atomic_batch_is_kept(world: World) -> None:
    body = {"readings": [reading(), reading(value=-1)]}
    first = await world.client.post(f"{BATCH}?mode=atomic", body, headers=KEY)

    again = await world.client.post(f"{BATCH}?mode=atomic", body, headers=KEY)

    assert (first.status, again.status) == (400, 400)
    assert again.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize(
    ("path", "body"), [(SENSOR, reading(value=1)), (METER, meter_reading()), (BATCH, {"readings": [reading()]})]
)
async def test_key_belongs_to_one_request(world: World, path: str, body: dict[str, Any]) -> None:
    await world.client.post(SENSOR, reading(), headers=KEY)

    reply = await world.client.post(path, body, headers=KEY)

    assert (reply.status, reply.json()["code"]) == (422, "idempotency_key_reused")


async def test_key_belongs_to_one_principal(world: World) -> None:
    await world.client.post(SENSOR, reading(), headers=KEY)

    reply = await world.client.signed_in("admin").post(SENSOR, reading(value=1), headers=KEY)

    assert reply.status == 409


async def test_key_is_kept_for_a_day(world: World) -> None:
    await world.client.post(SENSOR, reading(timestamp=None), headers=KEY)
    world.clock.advance(24 * 3600 + 1)

    reply = await world.client.post(SENSOR, reading(timestamp=None), headers=KEY)

    assert (reply.status, len(await world.stored())) == (201, 2)


async def test_of_many_at_once_one_is_answered_first(world: World) -> None:
    async def post() -> int:
        return (await world.client.post(SENSOR, reading(timestamp=None), headers=KEY)).status

    statuses = await asyncio.gather(*(post() for _ in range(20)))

    assert set(statuses) <= {201, 409}
    assert len(await world.stored()) == 1
