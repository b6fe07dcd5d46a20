"""One suite over every keeper of idempotency keys."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from smartgrid_adapters.memory.readings import MemoryIdempotencyKeys
from smartgrid_adapters.postgres.idempotency import PostgresIdempotencyKeys
from smartgrid_adapters.postgres.pool import open_pool
from smartgrid_commands.idempotency import IdempotencyKeys, Kept, request_hash
from smartgrid_commands.reading_calls import Lease, LeaseLost
from smartgrid_domain.errors import Conflict, Invalid
from smartgrid_http.testing import EPOCH


@dataclass
class Keeper:
    keys: IdempotencyKeys
    short: IdempotencyKeys
    """The same, but its leases are over at once."""


@pytest.fixture(params=["memory", "postgres"])
def place(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "memory" else request.getfixturevalue("database")


@pytest.fixture
async def keeper(place: str | None) -> AsyncIterator[Keeper]:
    if place is None:
        keys = MemoryIdempotencyKeys(lambda: EPOCH)
        yield Keeper(keys, keys.with_clock(lambda: EPOCH - timedelta(seconds=31)))
        return
    pool = await open_pool(place)
    yield Keeper(PostgresIdempotencyKeys(pool), PostgresIdempotencyKeys(pool, lease_s=-1))
    await pool.close()


async def lease_of(keys: IdempotencyKeys, key: str = "k", request: bytes = b"r") -> Lease:
    claim = await keys.claim("user:u1", key, request)
    assert isinstance(claim, Lease)
    return claim


async def code_of(claim: Callable[[], object]) -> str:
    with pytest.raises((Conflict, Invalid)) as refused:
        await claim()  # type: ignore[misc]
    code: str = refused.value.code
    return code


async def test_first_request_gets_the_lease_and_the_others_wait(keeper: Keeper) -> None:
    claims = await asyncio.gather(*(keeper.keys.claim("user:u1", "k", b"r") for _ in range(10)), return_exceptions=True)

    assert sum(isinstance(claim, Lease) for claim in claims) == 1
    assert {claim.code for claim in claims if isinstance(claim, Conflict)} == {"idempotency_in_progress"}


async def test_kept_answer_comes_again(keeper: Keeper) -> None:
    lease = await lease_of(keeper.keys)
    await keeper.keys.keep(lease, b"answer")

    assert await keeper.keys.claim("user:u1", "k", b"r") == Kept(answer=b"answer", first_position=0)
    assert isinstance(await keeper.keys.claim("user:u2", "k", b"r"), Lease)
    assert isinstance(await keeper.keys.claim("user:u1", "k2", b"r"), Lease)


@pytest.mark.parametrize("answered", [False, True])
async def test_key_of_another_request_is_refused(keeper: Keeper, answered: bool) -> None:  # noqa: FBT001
    lease = await lease_of(keeper.keys)
    if answered:
        await keeper.keys.keep(lease, b"answer")

    assert await code_of(lambda: keeper.keys.claim("user:u1", "k", b"other")) == "idempotency_key_reused"


async def test_released_key_is_free(keeper: Keeper) -> None:
    await keeper.keys.release(await lease_of(keeper.keys))

    assert isinstance(await keeper.keys.claim("user:u1", "k", b"other"), Lease)


async def test_lease_of_one_that_died_is_taken_over(keeper: Keeper) -> None:
    dead = await lease_of(keeper.short)
    heir = await lease_of(keeper.keys)

    with pytest.raises(LeaseLost):
        await keeper.keys.keep(dead, b"late")
    await keeper.keys.release(dead)
    await keeper.keys.keep(heir, b"answer")
    assert await keeper.keys.claim("user:u1", "k", b"r") == Kept(answer=b"answer", first_position=0)


async def test_another_request_does_not_inherit(keeper: Keeper) -> None:
    await lease_of(keeper.short)

    assert await code_of(lambda: keeper.keys.claim("user:u1", "k", b"other")) == "idempotency_key_reused"


def test_hash_tells_method_path_and_body_apart() -> None:
    hashes = {
        request_hash("POST", "/a", b"b"),
        request_hash("PUT", "/a", b"b"),
        request_hash("POST", "/ab", b""),
        request_hash("POST", "/a", b"c"),
        request_hash("POST", "/a\nb", b""),
    }

    assert len(hashes) == 5
