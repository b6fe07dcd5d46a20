"""Nobody learns from the clock whether a name exists."""

import statistics
import time
from pathlib import Path

import pytest
from tests.security.world import PASSWORD, World, memory_world

from smartgrid_adapters.passwords import Argon2Passwords

pytestmark = pytest.mark.faults

PAIRS = 100


@pytest.fixture
def slow_world(tmp_path: Path) -> World:
    """Return a world with hashes as they are in use."""
    return memory_world(tmp_path, passwords=Argon2Passwords())


async def test_unknown_disabled_and_wrong_take_the_same_time(slow_world: World) -> None:
    client = slow_world.client()
    body = {"username": "ann", "email": "ann@example.com", "password": PASSWORD}
    assert (await client.post("/api/v1/auth/register", body)).status == 201
    seconds: dict[str, list[float]] = {"ann": [], "nobody": []}

    for i in range(PAIRS):
        for name in sorted(seconds, reverse=bool(i % 2)):
            started = time.perf_counter()
            reply = await client.post("/api/v1/auth/login", {"username": name, "password": "not the password"})
            seconds[name].append(time.perf_counter() - started)
            assert reply.status == 401

    means = {name: statistics.fmean(sorted(times)[: PAIRS * 9 // 10]) for name, times in seconds.items()}
    assert abs(means["ann"] - means["nobody"]) < 0.005
