"""
Batches that are made before the clock starts.

``python -m tests.bench.batch_load`` reads a plan from stdin, makes its bodies, sends them, and writes what it took.
"""

import asyncio
import sys
import time
from collections import deque
from datetime import UTC, datetime
from typing import Literal

import aiohttp
import msgspec
from msgspec import Struct

CONTENT_TYPES = {"json": "application/json", "columns": "application/vnd.smartgrid.columns+msgpack"}


class BatchPlan(Struct, kw_only=True):
    """
    What to send.

    Attributes:
        url: Address of the product.
        token: Access token.
        form: How readings are written.
        since: Time of the first reading, seconds since 1970 [s].
        requests: How many.
        sensors: Sensors in each request.
        readings: Readings of each sensor in each request.
        step_s: Time between two of them [s].
        connections: Requests in flight.
    """

    url: str
    token: str
    form: Literal["json", "columns"]
    since: int
    requests: int = 40
    sensors: int = 50
    readings: int = 100
    step_s: int = 1
    connections: int = 4

    @property
    def items(self) -> int:
        """Readings in all."""
        return self.requests * self.sensors * self.readings


class BatchSeen(Struct):
    """
    What it took.

    Attributes:
        seconds: From the first request to the last answer [s].
        accepted: Readings that were.
        refused: The first answer that was not 200.
    """

    seconds: float
    accepted: int
    refused: str = ""


def bodies(plan: BatchPlan) -> list[bytes]:
    """Return the bodies of *plan*."""
    return [_body(plan, number) for number in range(plan.requests)]  # all of them, so that sending is all that is timed


def _body(plan: BatchPlan, number: int) -> bytes:
    first = number * plan.readings
    at = [plan.since + (first + i) * plan.step_s for i in range(plan.readings)]
    place = {"lat": 41.3275, "lon": 19.8187}
    values = [
        [230 + (i * 7 + s * 13) % 900 / 100 for i in range(first, first + plan.readings)] for s in range(plan.sensors)
    ]
    if plan.form == "columns":
        times = [second * 1_000_000 for second in at]
        series = [
            {"sensor_id": f"load-{s}", "sensor_type": "voltage", "location": place, "t": times, "v": values[s]}
            for s in range(plan.sensors)
        ]
        return msgspec.msgpack.encode({"series": series})
    stamps = [datetime.fromtimestamp(second, UTC).isoformat() for second in at]
    items = [
        {"sensor_id": f"load-{s}", "sensor_type": "voltage", "location": place, "timestamp": stamp, "value": value}
        for s in range(plan.sensors)
        for stamp, value in zip(stamps, values[s], strict=True)
    ]
    return msgspec.json.encode({"readings": items})


async def send(plan: BatchPlan) -> BatchSeen:
    """Carry out *plan*."""
    waiting = deque(bodies(plan))
    seen = BatchSeen(0.0, 0)
    headers = {"Authorization": f"Bearer {plan.token}", "Content-Type": CONTENT_TYPES[plan.form]}
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:

        async def client() -> None:
            while waiting:
                body = waiting.popleft()
                async with session.post(f"{plan.url}/api/v1/ingest/batch", data=body) as response:
                    answer = await response.read()
                    if response.status == 200:  # OK
                        seen.accepted += msgspec.json.decode(answer)["accepted"]
                    else:
                        seen.refused = seen.refused or f"{response.status} {answer[:300].decode('utf-8', 'replace')}"

        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(plan.connections):
                group.create_task(client())
        seen.seconds = time.perf_counter() - start
    return seen


async def elsewhere(plan: BatchPlan) -> BatchSeen:
    """Carry out *plan* in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.batch_load", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    answer, _ = await process.communicate(msgspec.json.encode(plan))
    return msgspec.json.decode(answer, type=BatchSeen)


if __name__ == "__main__":
    _plan = msgspec.json.decode(sys.stdin.buffer.read(), type=BatchPlan)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(send(_plan))))
