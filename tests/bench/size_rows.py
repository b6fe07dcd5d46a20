"""Figure 16: questions to the rollups of 10 million readings."""

import time
from collections.abc import Callable

import aiohttp
from tests.bench import batch_load
from tests.bench.database import Server
from tests.bench.harness import Figure, quantile
from tests.bench.product_rows import DAY_S, Running, running

SENSORS = 100
MINUTES_EACH = 100
REQUESTS = 1_000
CHUNK = 100  # requests of one process: what is made before it is sent takes memory
SPAN_S = REQUESTS * MINUTES_EACH * 60
QUESTIONS = 300


async def statistics_at_size(server: Server) -> list[Figure]:
    """Ask for a day and for 30 days of one sensor, and for 30 days of all of them."""
    async with running() as it:
        since = int(time.time()) - SPAN_S - DAY_S
        start = time.perf_counter()
        for chunk in range(REQUESTS // CHUNK):
            plan = it.batch("columns", CHUNK)
            plan.sensors, plan.readings, plan.step_s = SENSORS, MINUTES_EACH, 60
            plan.since = since + chunk * CHUNK * MINUTES_EACH * 60
            seen = await batch_load.elsewhere(plan)
            if seen.accepted != plan.items:
                raise RuntimeError(f"{seen.accepted} of {plan.items} accepted: {seen.refused}")
        spent = time.perf_counter() - start
        await _caught_up(it)
        note = f"{REQUESTS * SENSORS * MINUTES_EACH:,} readings, stored in {spent:.0f} s"
        times = QUESTIONS * max(1, server.rounds // 3)

        def one(days: int) -> Callable[[int], dict[str, str]]:
            def query(number: int) -> dict[str, str]:
                end = since + SPAN_S - number * 61
                return {"sensor_id": f"load-{number % SENSORS}", "from": _text(end - days * DAY_S), "to": _text(end)}

            return query

        def fleet(number: int) -> dict[str, str]:
            end = (since + SPAN_S) // DAY_S * DAY_S - number % 30 * DAY_S
            return {"sensor_type": "voltage", "from": _text(end - 30 * DAY_S), "to": _text(end), "interval": "1mo"}

        day = await _asked_ms(it, one(1), times)
        month = await _asked_ms(it, one(30), times)
        all_sensors = await _asked_ms(it, fleet, 60)
    return [
        _figure("16 24 h", "stats of one sensor over 24 h by HTTP, p99", day, 5, 1.5, note),
        _figure("16 30 d", "stats of one sensor over 30 d by HTTP, p99", month, 5, 1.5, note),
        _figure("16 fleet", f"stats of {SENSORS} sensors over 30 d by HTTP, p99", all_sensors, 60, 5, note),
    ]


def _figure(number: str, what: str, took_ms: list[float], floor: float, goal: float, note: str) -> Figure:  # noqa: PLR0913, PLR0917  # the columns
    return Figure(
        number=number,
        what=what,
        value=round(quantile(took_ms, 0.99), 2),
        unit="ms",
        better="less",
        floor=floor,
        goal=goal,
        sides={"median": f"{quantile(took_ms, 0.5):.2f} ms"},
        note=note,
    )


def _text(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


async def _caught_up(it: Running) -> None:
    """Wait until the rollups include all that is stored."""
    [(head,)] = it.product.rows("SELECT max(last_position) FROM telemetry_commits")
    for _ in range(120):
        status, _ = it.product.request(
            "GET", f"/api/v1/analytics/sensor/stats?hours=1&min_position=telemetry@{head}&wait_ms=5000"
        )
        if status == 200:  # OK
            return
    raise RuntimeError("the rollups do not catch up")


async def _asked_ms(it: Running, query: Callable[[int], dict[str, str]], times: int) -> list[float]:
    headers = {"Authorization": f"Bearer {it.product.token()}"}
    took: list[float] = []
    async with aiohttp.ClientSession(it.product.url, headers=headers) as session:
        for number in range(-10, times):  # the first ten warm up
            start = time.perf_counter()
            async with session.get("/api/v1/analytics/sensor/stats", params=query(max(number, 0))) as response:
                answer = await response.json()
                response.raise_for_status()
            if number >= 0:
                took.append(1000 * (time.perf_counter() - start))
            if not answer["data"]:
                raise RuntimeError("there is nothing to measure")
    return took
