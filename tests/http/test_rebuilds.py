"""Rebuilding over HTTP, with a worker and the real store."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from smartgrid_adapters.postgres.checkpoints import PostgresStandings
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import Pool
from smartgrid_adapters.postgres.sealing import PostgresDataKeys
from smartgrid_adapters.postgres.versions import PostgresVersions
from smartgrid_adapters.sealing import KeySealer, master_key
from smartgrid_commands.ports import StreamWrite
from smartgrid_http import admin, rebuilds
from smartgrid_http.app import build_app
from smartgrid_http.pages import Cursors
from smartgrid_http.testing import AsgiClient, FixedClock, fixed_services
from smartgrid_ops.secrets_files import ensure_secret
from smartgrid_ops.settings import Settings
from smartgrid_ops.worker import run_worker
from smartgrid_projections.queries.standing import Waiting
from smartgrid_schemas.identity import UserRegistered

USERS = "/api/v1/admin/projections/users"


class Installation:
    def __init__(self, client: AsgiClient, database: str) -> None:
        self.client = client
        self.database = database

    async def until(self, rebuild_id: str, state: str) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while True:
                found: dict[str, Any] = (await self.client.get(f"{USERS}/rebuilds/{rebuild_id}")).json()["rebuild"]
                if found["state"] in (state, "failed"):
                    return found
                await asyncio.sleep(0.02)

    async def spoil(self) -> None:
        """Change two rows of the version in use behind everybody's back."""
        async with await AsyncConnection.connect(self.database) as connection:
            await connection.execute("UPDATE users_v1 SET role = 'admin' WHERE user_id <> 'u3'")


@pytest.fixture
async def installation(tmp_path: Path, database: str, pool: Pool) -> AsyncIterator[Installation]:
    settings = Settings(home=tmp_path, pg_url=database)
    sealer = KeySealer(PostgresDataKeys(pool), master_key(ensure_secret(settings.keys / "master-key")))
    store = PostgresEventStore(pool, sealer=sealer)
    await store.start()
    last = 0
    for user_id in ("u1", "u2", "u3"):
        event = UserRegistered(
            user_id=user_id, username=user_id, email=f"{user_id}@x.org", role="viewer", customer_id=None, via="self"
        )
        write = StreamWrite(stream=f"user:{user_id}", events=[event], expected_version=0)
        last = (await store.append("identity", [write])).last_position
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(settings, ["users"], stop))
    standings = PostgresStandings(pool)
    assert await Waiting(standings).until(["users"], {"identity": last}, 20_000)
    services = fixed_services(
        store=store,
        standings=standings,
        versions=PostgresVersions(pool),
        cursors=Cursors(b"k" * 32, FixedClock().now),
    )
    app = build_app(services, handlers=[*admin.handlers, *rebuilds.handlers], hot={})
    yield Installation(AsgiClient(app).signed_in("admin"), database)
    stop.set()
    await worker
    await store.stop()


async def test_a_rebuild_is_followed_compared_switched_to_and_taken_back(installation: Installation) -> None:
    client = installation.client
    await installation.spoil()
    started = await client.post(f"{USERS}/rebuild", {"auto_switch": False})
    rebuild_id = started.json()["rebuild_id"]
    second = await client.post(f"{USERS}/rebuild")
    ready = await installation.until(rebuild_id, "ready")
    first_page = (await client.get(f"{USERS}/rebuilds/{rebuild_id}/diff?limit=1")).json()
    page = f"{USERS}/rebuilds/{rebuild_id}/diff?limit=1&cursor={first_page['next_cursor']}"
    second_page = (await client.get(page)).json()
    lines = await client.get(f"{USERS}/rebuilds/{rebuild_id}/diff", headers={"accept": "application/x-ndjson"})
    switched = await client.post(f"{USERS}/switch", {"rebuild_id": rebuild_id})
    again = await client.post(f"{USERS}/switch", {"rebuild_id": rebuild_id})
    back = await client.post(f"{USERS}/rollback", {})
    nowhere = await client.post(f"{USERS}/rollback", {})

    assert (started.status, started.json()["version"], started.headers["location"]) == (
        202,
        2,
        f"{USERS}/rebuilds/{rebuild_id}",
    )
    assert (second.status, second.json()["code"]) == (409, "rebuild_conflict")
    assert (ready["state"], ready["progress"], ready["position"], ready["head"]) == (
        "ready",
        1.0,
        {"identity": 3},
        {"identity": 3},
    )
    assert ready["verify"] == {
        "position": {"identity": 3},
        "rows_active": 3,
        "rows_new": 3,
        "rows_differing": 2,
        "max_deviation": 0.0,
    }
    (row,) = first_page["data"]
    assert (row["table"], row["key"], row["active"]["role"], row["new"]["role"]) == ("users", "u1", "admin", "viewer")
    assert ([row["key"] for row in second_page["data"]], second_page["next_cursor"]) == (["u2"], None)
    assert len(lines.body.splitlines()) == 2
    assert (switched.status, switched.json()["data"][0]["version"]) == (200, 2)
    assert (again.status, again.json()["code"]) == (409, "rebuild_conflict")
    assert (back.status, back.json()["data"][0]["version"]) == (200, 1)
    assert (nowhere.status, nowhere.json()["code"]) == (409, "rebuild_conflict")


async def test_an_automatic_switch_needs_nobody_and_an_abort_ends_a_rebuild(installation: Installation) -> None:
    client = installation.client
    first = (await client.post(f"{USERS}/rebuild", {"auto_switch": True})).json()["rebuild_id"]
    assert (await installation.until(first, "switched"))["verify"]["rows_differing"] == 0
    second = (await client.post(f"{USERS}/rebuild")).json()["rebuild_id"]
    aborted = await client.post(f"{USERS}/abort", {"rebuild_id": second})

    assert (aborted.status, aborted.json()["data"][0]["version"]) == (200, 2)
    assert (await installation.until(second, "aborted"))["state"] == "aborted"


async def test_pause_and_resume_show_in_the_projection(installation: Installation) -> None:
    paused = await installation.client.post(f"{USERS}/pause")
    resumed = await installation.client.post(f"{USERS}/resume")

    assert [reply.json()["data"][0]["state"] for reply in (paused, resumed)] == ["paused", "active"]


async def test_what_cannot_be_rebuilt_or_does_not_exist_is_refused(installation: Installation) -> None:
    client = installation.client
    found = [
        (reply.status, reply.json()["code"])
        for reply in (
            await client.post("/api/v1/admin/projections/readings/pause"),
            await client.post("/api/v1/admin/projections/forecast/rebuild"),
            await client.get(f"{USERS}/rebuilds/rb_0"),
            await client.get(f"{USERS}/rebuilds/rb_0/diff"),
            await client.post(f"{USERS}/switch", {"rebuild_id": "rb_0"}),
            await client.post(f"{USERS}/switch", {}),
            await client.post(f"{USERS}/rebuild", {"auto": True}),
        )
    ]

    assert found == [
        (409, "rebuild_conflict"),
        (404, "not_found"),
        (404, "not_found"),
        (404, "not_found"),
        (404, "not_found"),
        (400, "validation_failed"),
        (400, "validation_failed"),
    ]
