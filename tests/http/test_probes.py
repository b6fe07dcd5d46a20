"""The probes read what the checks found, and do no I/O themselves."""

import asyncio

from smartgrid_http.app import build_app
from smartgrid_http.health import HealthBoard
from smartgrid_http.testing import AsgiClient, fixed_services


class Dependency:
    def __init__(self) -> None:
        self.up = True
        self.asked = 0

    async def __call__(self) -> bool:
        self.asked += 1
        if not self.up:
            raise ConnectionError
        return True


async def test_ready_follows_the_needed_dependency() -> None:
    store, board = Dependency(), HealthBoard()
    board.needed["store"] = store
    client = AsgiClient(build_app(fixed_services(health=board)))

    before = await client.get("/health/ready")
    await board.tick()
    up = await client.get("/health/ready")
    store.up = False
    still = await client.get("/health/ready")
    await board.tick()
    down = await client.get("/health/ready")

    assert [reply.status for reply in (before, up, still, down)] == [503, 200, 200, 503]
    assert up.json() == {"status": "ready", "checks": {"store": "ok", "event_loop": "ok"}}
    assert down.json() == {"status": "not_ready", "checks": {"store": "failing", "event_loop": "ok"}}
    assert store.asked == 2


async def test_a_wanted_dependency_only_degrades() -> None:
    bus = Dependency()
    bus.up = False
    board = HealthBoard(wanted={"bus": bus})
    await board.tick()
    client = AsgiClient(build_app(fixed_services(health=board)))

    ready, health = await client.get("/health/ready"), await client.get("/health")

    assert (ready.status, health.status, health.json()["status"]) == (200, 200, "degraded")
    assert health.json()["dependencies"] == {"bus": "unhealthy"}


async def test_health_has_the_shape_of_the_original() -> None:
    store = Dependency()
    board = HealthBoard(needed={"store": store})
    await board.tick()
    client = AsgiClient(build_app(fixed_services(health=board)))

    up = await client.get("/health")
    store.up = False
    await board.tick()
    down = await client.get("/health")

    assert (up.status, down.status) == (200, 503)
    body = up.json()
    assert (body["status"], body["service"], body["timestamp"]) == ("healthy", "gateway", "2026-01-15T10:30:00Z")
    assert set(body["services"]) == {"ingestion", "analytics", "notification", "users"}
    assert body["summary"] == {"total": 4, "healthy": 4, "unhealthy": 0}
    assert down.json()["status"] == "unhealthy"
    assert down.json()["summary"] == {"total": 4, "healthy": 0, "unhealthy": 4}


async def test_draining_and_a_late_loop_are_not_ready_but_alive() -> None:
    for board in (HealthBoard(draining=True), HealthBoard(loop_lag_s=0.6)):
        client = AsgiClient(build_app(fixed_services(health=board)))

        assert (await client.get("/health/ready")).status == 503
        assert (await client.get("/health/live")).json() == {"status": "alive"}
        assert (await client.get("/health")).status == 200


async def test_a_check_that_hangs_counts_as_failing_after_a_second() -> None:
    async def hang() -> bool:
        await asyncio.Event().wait()
        return True

    board = HealthBoard(needed={"store": hang})
    loop = asyncio.get_running_loop()
    started = loop.time()

    await board.tick()

    assert board.results == {"store": False}
    assert loop.time() - started < 1.5
