"""Figures of the running product: single posts, batches, their bytes, how soon they show, start and memory."""

import asyncio
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psycopg
from msgspec import Struct
from tests.bench import batch_load, load
from tests.bench.database import Server, fresh_database
from tests.bench.harness import Figure, compared, in_turns, medians, quantile
from tests.bench.original import TABLE
from tests.system.product import Product, free_port

CLIENTS = 64
SECONDS = 2.0
DAY_S = 86_400
SINGLE = (
    '{"sensor_id":"single-{n}","sensor_type":"voltage","value":230.5,"timestamp":"{stamp}",'
    '"location":{"lat":41.3275,"lon":19.8187}}'
)
LOG_SIZE = """
SELECT pg_total_relation_size('telemetry_events') + pg_total_relation_size('telemetry_commits')
"""


class Running(Struct):
    """
    A product to measure.

    Attributes:
        product: It.
        numbers: Numbers that no other request has.
        times: Times that no other batch begins at, seconds since 1970 [s].
    """

    product: Product
    numbers: Iterator[int]
    times: Iterator[int]

    def single(self, seconds: float = SECONDS, *, path: str = "/api/v1/ingest/sensor", rate: float = 0.0) -> load.Plan:
        """Return the plan of single posts."""
        headers = {"Authorization": f"Bearer {self.product.token()}", "Content-Type": "application/json"}
        return load.Plan(
            host="127.0.0.1",
            port=self.product.port,
            path=path,
            headers=headers,
            body=SINGLE.replace("single-{n}", "single-1"),
            first=next(self.numbers),
            since=int(time.time()) - 20 * DAY_S,
            connections=CLIENTS,
            seconds=seconds,
            rate=rate,
        )

    def batch(self, form: str, requests: int = 40) -> batch_load.BatchPlan:
        """Return the plan of batches."""
        return batch_load.BatchPlan(
            url=self.product.url,
            token=self.product.token(),
            form="json" if form == "json" else "columns",
            since=next(self.times),
            requests=requests,
        )


@asynccontextmanager
async def running() -> AsyncGenerator[Running]:
    """Run the product in a home of its own and remove it afterwards."""
    home = Path(tempfile.mkdtemp(prefix="sg-bench-")) / "home"
    product = Product(home)
    try:
        await asyncio.to_thread(product.start)
        times = itertools.count(int(time.time()) - 300 * DAY_S, 5 * DAY_S)
        yield Running(product, itertools.count(0, 10_000_000), times)
    finally:
        await asyncio.to_thread(product.kill)
        shutil.rmtree(home.parent, ignore_errors=True)


async def posted(plan: load.Plan) -> load.Seen:
    """Carry out *plan* and insist that every answer was a 2xx."""
    seen = await load.elsewhere(plan)
    if any(status >= 300 for status in seen.statuses):  # not 2xx
        raise RuntimeError(f"{plan.path}: {seen.statuses} {seen.unexpected}")
    return seen


@asynccontextmanager
async def originals(server: Server) -> AsyncGenerator[dict[str, int]]:
    """Serve the original's way by Flask's own server and by gunicorn; yield their ports."""
    ports = {"flask": free_port(), "gunicorn": free_port()}
    commands = {
        "flask": [sys.executable, "-m", "tests.bench.original", str(ports["flask"])],
        "gunicorn": [
            *(sys.executable, "-m", "gunicorn", "--workers", "5", "--bind", f"127.0.0.1:{ports['gunicorn']}"),
            *("--log-level", "error", "tests.bench.original:app"),
        ],
    }
    async with fresh_database(server) as url:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
            await conn.execute(TABLE)
        processes = [
            await asyncio.create_subprocess_exec(
                *command, env={"DATABASE": url, "PYTHONPATH": "."}, stderr=asyncio.subprocess.DEVNULL
            )
            for command in commands.values()
        ]
        try:
            for port in ports.values():
                await _listening(port)
            yield ports
        finally:
            for process in processes:
                process.terminate()
            await asyncio.gather(*(process.wait() for process in processes))


async def _listening(port: int) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise RuntimeError(f"nobody listens on {port}")


async def single_posts(server: Server) -> list[Figure]:
    """Figure 6: durable single posts against Flask with an INSERT and a COMMIT for each."""
    found: list[Figure] = []
    async with running() as it, originals(server) as ports:

        async def ours() -> float:
            return (await posted(it.single())).per_second

        def theirs(port: int) -> Callable[[], Awaitable[float]]:
            async def measured() -> float:
                plan = it.single()
                plan.port = port
                return (await posted(plan)).per_second

            return measured

        for name, floor, goal in (("flask", 20, 60), ("gunicorn", 3, 8)):
            rounds = await in_turns(ours, theirs(ports[name]), server.rounds)
            what = (
                f"durable POST /ingest/sensor ÷ Flask under {'its own server' if name == 'flask' else name}, 64 clients"
            )
            sides = ("ours", name)
            found.append(compared(f"6 {name}", what, rounds, sides, "posts/s", floor=floor, goal=goal))
    return found


async def without_append(server: Server) -> list[Figure]:
    """Figure 7: a durable single post against the same route over a store that stores nothing."""
    async with running() as it:
        port = free_port()
        environment = {**it.product.environment, "SMARTGRID_PORT": str(port), "PYTHONPATH": "."}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.no_append", env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await _listening(port)

            async def durable() -> float:
                return (await posted(it.single())).per_second

            async def forgetful() -> float:
                plan = it.single()
                plan.port = port
                return (await posted(plan)).per_second

            rounds = await in_turns(durable, forgetful, server.rounds)
        finally:
            process.terminate()
            await process.wait()
    what = "durable POST /ingest/sensor ÷ the same route without the append, 64 clients"
    return [compared("7", what, rounds, ("durable", "no append"), "posts/s", floor=0.35, goal=0.75)]


async def batches(server: Server) -> list[Figure]:
    """Figures 8 to 10: batches as JSON and as columns, and what they take in the log."""
    async with running() as it:

        def measured(form: str) -> Callable[[], Awaitable[float]]:
            async def one() -> float:
                plan = it.batch(form)
                seen = await batch_load.elsewhere(plan)
                if seen.accepted != plan.items:
                    raise RuntimeError(f"{seen.accepted} of {plan.items} accepted: {seen.refused}")
                return plan.items / seen.seconds

            return one

        [(before,)] = it.product.rows(LOG_SIZE)
        rounds = await in_turns(measured("columns"), measured("json"), server.rounds)
        [(after,)] = it.product.rows(LOG_SIZE)
        readings = (server.rounds + 1) * 2 * it.batch("json").items
    columns, json = medians(rounds)
    return [
        Figure(
            number="8",
            what="POST /ingest/batch, JSON, exact verdicts, durable; 5,000 readings per request",
            value=round(json),
            unit="readings/s",
            floor=60_000,
            goal=250_000,
            rounds=[[round(pair[1])] for pair in rounds],
        ),
        compared("9", "the same as columns ÷ JSON", rounds, ("columns", "JSON"), "readings/s", floor=3, goal=6),
        Figure(
            number="10",
            what="disk per reading in the log after those batches, indexes included",
            value=round((after - before) / readings, 2),
            unit="B",
            better="less",
            floor=20,
            goal=8,
            note=f"JSON {json:,.0f} and columns {columns:,.0f} readings/s",
        ),
    ]


async def visible(server: Server) -> list[Figure]:
    """Figure 14: from the answer to a post until a query of the rollups includes it, idle and at half of the peak."""
    async with running() as it:
        idle = await _visible_ms(it, 100 * server.rounds)
        peak = (await posted(it.single())).per_second
        busy = asyncio.create_task(posted(it.single(4.0 * server.rounds, rate=peak / 2)))
        await asyncio.sleep(0.5)
        under_load = await _visible_ms(it, 30 * server.rounds)
        await busy
    return [
        _delay("14 idle", "accepted by HTTP until visible in rollups, p99, idle", idle, 250, 50),
        _delay("14 busy", f"the same at half of the peak of {peak:,.0f} posts/s", under_load, 1000, 250),
    ]


def _delay(number: str, what: str, took_ms: list[float], floor: float, goal: float) -> Figure:
    return Figure(
        number=number,
        what=what,
        value=round(quantile(took_ms, 0.99), 1),
        unit="ms",
        better="less",
        floor=floor,
        goal=goal,
        sides={"median": f"{quantile(took_ms, 0.5):.1f} ms"},
        note=f"{len(took_ms)} posts",
    )


async def _visible_ms(it: Running, times: int) -> list[float]:
    """Post and ask for statistics that include the post, one after the other."""
    headers = {"Authorization": f"Bearer {it.product.token()}"}
    took: list[float] = []
    since = next(it.times)
    async with aiohttp.ClientSession(it.product.url, headers=headers) as session:
        for number in range(times):
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since + number))
            body = {
                "sensor_id": "seen",
                "sensor_type": "voltage",
                "value": 230 + number % 10,
                "timestamp": at,
                "location": {"lat": 41.3, "lon": 19.8},
            }
            async with session.post("/api/v1/ingest/sensor", json=body) as response:
                answer = await response.json()
                response.raise_for_status()
            start = time.perf_counter()
            query = {
                "sensor_id": "seen",
                "from": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since)),
                "to": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since + times)),
                "min_position": answer["position"],
                "wait_ms": "5000",
            }
            async with session.get("/api/v1/analytics/sensor/stats", params=query) as response:
                stats = await response.json()
                response.raise_for_status()
            took.append(1000 * (time.perf_counter() - start))
            if stats["data"][0]["count"] != number + 1:
                raise RuntimeError(f"{number + 1} readings are visible as {stats['data'][0]['count']}")
    return took


async def start_and_memory(server: Server) -> list[Figure]:
    """Figure 19: a second `up` until it is ready, and the memory of all its processes when nothing happens."""
    took: list[float] = []
    memory: list[float] = []
    async with running() as it:
        for _ in range(server.rounds):
            await asyncio.to_thread(it.product.stop)
            start = time.perf_counter()
            await asyncio.to_thread(it.product.start)
            took.append(time.perf_counter() - start)
            await asyncio.sleep(2)
            memory.append(sum(_pss_mib(pid) for pid in _family(it.product)))
    return [
        Figure(
            number="19 start",
            what="`up` until ready, on a home that exists",
            value=round(medians([[seconds] for seconds in took])[0], 2),
            unit="s",
            better="less",
            floor=5,
            goal=3,
            rounds=[[round(seconds, 2)] for seconds in took],
        ),
        Figure(
            number="19 memory",
            what="memory (PSS) of all processes, idle",
            value=round(medians([[mib] for mib in memory])[0]),
            unit="MiB",
            better="less",
            floor=500,
            goal=300,
            rounds=[[round(mib)] for mib in memory],
        ),
    ]


def _family(product: Product) -> list[int]:
    """Return all processes of the product."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {pid for kind in ("supervisor", "api", "worker", "postgres") for pid in product.pids_of(kind)}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def _pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
