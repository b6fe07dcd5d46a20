"""Imports over PostgreSQL: spooled, recorded in the background, taken over after a crash."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from tests.http.ingest.kit import CSV, NDJSON, ndjson, reading

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.flush import PostgresReadingStore
from smartgrid_adapters.postgres.idempotency import PostgresIdempotencyKeys
from smartgrid_adapters.postgres.imports import PostgresImports
from smartgrid_adapters.postgres.pool import Pool
from smartgrid_commands import importing
from smartgrid_commands.importing import Import, ImportRunner
from smartgrid_commands.ingestion import Ingestion
from smartgrid_http.app import build_app
from smartgrid_http.ingestion import read_part
from smartgrid_http.testing import AsgiClient, FixedClock, Reply, fixed_services
from smartgrid_ops.system import SystemIds

PATH = "/api/v1/imports"


@dataclass(kw_only=True)
class World:
    client: AsgiClient
    runner: ImportRunner
    pool: Pool
    ingestion: Ingestion
    imports: PostgresImports

    def new_runner(self) -> ImportRunner:
        """Return the runner of another process."""
        ingestion = self.ingestion
        return ImportRunner(
            self.imports,
            ingestion,
            PostgresIdempotencyKeys(self.pool),
            SystemIds(),
            lambda job, data, first: read_part(job, data, ingestion.now_us(), ingestion.latest_us(), first=first),
        )

    async def send(self, body: bytes, media_type: str, query: str = "", **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request("POST", PATH + query, body=body, headers={"content-type": media_type, **named})

    async def told(self, started: Reply) -> dict[str, Any]:
        assert started.status == 202
        assert started.headers["location"] == f"{PATH}/{started.json()['import_id']}"
        answer: dict[str, Any] = (await self.client.get(started.headers["location"])).json()["import"]
        return answer

    async def count(self, table: str) -> int:
        async with self.pool.connection() as conn:
            cursor = await conn.execute(
                {
                    "rows": "SELECT count(*) FROM reading_register",
                    "parts": "SELECT count(*) FROM import_parts",
                    "files": "SELECT count(*) FROM imports",
                }[table].encode()
            )
            row = await cursor.fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
async def world(pool: Pool, store: PostgresEventStore) -> AsyncIterator[World]:
    clock, ids = FixedClock(), SystemIds()
    readings = PostgresReadingStore(pool, store)
    ingestion = Ingestion(readings, clock)
    imports = PostgresImports(pool)
    made = World(client=AsgiClient(None), runner=None, pool=pool, ingestion=ingestion, imports=imports)  # type: ignore[arg-type]
    made.runner = made.new_runner()
    services = fixed_services(
        clock=clock,
        ids=ids,
        store=store,
        ingestion=ingestion,
        imports=imports,
        keys=PostgresIdempotencyKeys(pool),
        runner=made.runner,
    )
    made.client = AsgiClient(build_app(services), token="operator")  # noqa: S106
    yield made
    await readings.stop()


def csv_file(number: int, start: int = 0) -> bytes:
    rows = [
        f"s1,voltage,{n}.5,1,2,2026-01-15T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}Z"
        for n in range(start, start + number)
    ]
    return "\n".join(["sensor_id,sensor_type,value,lat,lon,timestamp", *rows]).encode() + b"\n"


async def test_file_is_recorded_and_its_verdicts_are_counted(world: World) -> None:
    lines = ndjson(reading(), reading(value=1), reading(seq=1), reading(value=-1)) + b"\n{bad\n\n"

    started = await world.send(lines, NDJSON)
    before = await world.told(started)
    await world.runner.step()

    assert (before["state"], before["read"]) == ("running", 0)
    after = await world.told(started)
    assert after | {"errors": []} == {
        "id": started.json()["import_id"],
        "state": "succeeded",
        "read": 5,
        "accepted": 2,
        "duplicates": 0,
        "rejected": 3,
        "errors": [],
    }
    assert [(e["index"], e["code"]) for e in after["errors"]] == [
        (1, "reading_conflict"),
        (3, "validation_failed"),
        (4, "malformed_json"),
    ]
    assert await world.count("parts") == 0


async def test_same_file_again_adds_nothing(world: World) -> None:
    await world.send(csv_file(300), CSV)
    await world.runner.step()
    started = await world.send(csv_file(300), CSV)
    await world.runner.step()

    told = await world.told(started)
    assert (told["state"], told["accepted"], told["duplicates"]) == ("succeeded", 0, 300)
    assert await world.count("rows") == 300


async def test_file_is_cut_at_the_ends_of_its_records(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "PART_BYTES", 500)
    quoted = csv_file(40).replace(b"s1,voltage", b'"s1","voltage"')

    started = await world.send(quoted, CSV)
    await world.runner.step()

    told = await world.told(started)
    assert (told["read"], told["accepted"]) == (40, 40)


@pytest.mark.parametrize("crash", ["before recording", "after recording"])
async def test_another_process_goes_on_after_a_crash_and_counts_each_item_once(
    world: World, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    monkeypatch.setattr(importing, "PART_BYTES", 2000)
    started = await world.send(csv_file(200), CSV)
    saves = 0

    async def dying_save(job: Import, token: object, lease_s: int) -> bool:
        nonlocal saves
        saves += 1
        if saves == 2:
            raise asyncio.CancelledError
        return await PostgresImports.save(world.imports, job, token, lease_s)  # type: ignore[arg-type]

    async def dying_part(import_id: str, part: int) -> bytes:
        if part == 2:
            raise asyncio.CancelledError
        return await PostgresImports.part(world.imports, import_id, part)

    if crash == "after recording":
        monkeypatch.setattr(world.imports, "save", dying_save)
    else:
        monkeypatch.setattr(world.imports, "part", dying_part)
    with pytest.raises(asyncio.CancelledError):
        await world.runner.step()
    monkeypatch.undo()
    async with world.pool.connection() as conn:
        await conn.execute("UPDATE imports SET lease_until = now() - interval '1 second'")

    await world.new_runner().step()

    told = await world.told(started)
    assert (told["state"], told["read"], told["accepted"], told["duplicates"]) == ("succeeded", 200, 200, 0)
    assert await world.count("rows") == 200


async def test_file_has_one_worker_at_a_time(world: World) -> None:
    await world.send(csv_file(10), CSV)

    assert await world.imports.claim(uuid4(), 30) is not None
    assert await world.imports.claim(uuid4(), 30) is None


async def test_atomic_import_is_all_or_nothing(world: World) -> None:
    bad = await world.send(csv_file(100) + b"s1,voltage,-1,1,2,2026-01-15T09:00:00Z\n", CSV, "?mode=atomic")
    good = await world.send(csv_file(100), CSV, "?mode=atomic")
    await world.runner.step()
    await world.runner.step()

    told = await world.told(bad)
    assert (told["state"], told["accepted"], told["rejected"]) == ("failed", 0, 1)
    assert (await world.told(good))["accepted"] == 100
    assert await world.count("rows") == 100


async def test_atomic_import_has_a_limit_of_items(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "MOST_ATOMIC_ITEMS", 10)

    assert (await world.send(csv_file(10), CSV, "?mode=atomic")).status == 202
    assert (await world.send(csv_file(11), CSV, "?mode=atomic")).status == 413
    assert (await world.send(ndjson(*[reading()] * 11), NDJSON, "?mode=atomic")).status == 413


async def test_file_that_is_none_is_refused_at_once(world: World) -> None:
    assert (await world.send(b"", CSV)).status == 400
    assert (await world.send(b"\n\n", NDJSON)).status == 400
    assert (await world.send(b"sensor_id,foo\ns1,1\n", CSV)).status == 400
    assert (await world.send(b"{}", "application/json")).status == 415
    assert await world.count("files") == 0


async def test_file_that_breaks_off_fails_with_what_was_recorded(world: World) -> None:
    started = await world.send(csv_file(10) + b'"s1,voltage', CSV)
    await world.runner.step()

    told = await world.told(started)
    assert (told["state"], told["errors"][0]["code"]) == ("failed", "malformed_json")


async def test_key_names_one_import(world: World) -> None:
    first = await world.send(csv_file(5), CSV, idempotency_key="k")
    again = await world.send(csv_file(5), CSV, idempotency_key="k")
    other = await world.send(csv_file(6), CSV, idempotency_key="k")

    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert other.status == 422
    assert await world.count("files") == 1


async def test_import_that_does_not_exist_is_not_found(world: World) -> None:
    assert (await world.client.get(f"{PATH}/im_x")).status == 404


async def test_runner_works_until_it_is_stopped(world: World) -> None:
    task = asyncio.create_task(world.runner.run())
    started = await world.send(json.dumps(reading()).encode(), NDJSON)

    async with asyncio.timeout(10):
        while (await world.told(started))["state"] == "running":  # noqa: ASYNC110  # only the answer tells
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert (await world.told(started))["accepted"] == 1
