"""
A client that keeps many connections busy with little work of its own.

``python -m tests.bench.load`` reads a plan from stdin and writes what it saw to stdout: as a process of its own it
takes no turn of the server's interpreter.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Callable, Iterator

import msgspec
from msgspec import Struct, field


class Plan(Struct, kw_only=True):
    """
    What to send.

    Attributes:
        host: Address.
        port: Port.
        path: Where every request goes.
        method: Of every request.
        headers: Of every request, beside ``Content-Length``.
        body: ``{n}`` stands for a number no other request has, ``{stamp}`` for a time of its own.
        first: Where the numbers begin.
        since: Time of number 0, seconds since 1970 [s]; each number is a millisecond later.
        connections: How many requests are in flight at a time.
        seconds: For how long [s].
        rate: Requests per second in all; 0 is as many as there can be.
    """

    host: str
    port: int
    path: str
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: str = ""
    first: int = 0
    since: int = 0
    connections: int = 64
    seconds: float = 2.0
    rate: float = 0.0


class Seen(Struct, kw_only=True):
    """
    What came back.

    Attributes:
        statuses: Number of answers by status.
        per_second: Answers with a 2xx by second.
        took_ms: How long each answered request took [ms].
        last: Headers of the last answer, by lower-case name.
        unexpected: Body of the first answer that was no 2xx.
    """

    statuses: dict[int, int] = field(default_factory=dict[int, int])
    per_second: float = 0.0
    took_ms: list[float] = field(default_factory=list[float])
    last: dict[str, str] = field(default_factory=dict[str, str])
    unexpected: str = ""


class _Client(asyncio.Protocol):
    """One connection: the next request goes out when the answer to the last one is in."""

    def __init__(self, next_request: Callable[[], bytes | None], seen: Seen, wait: Callable[[], float]) -> None:
        self._next_request = next_request
        self._seen = seen
        self._wait = wait
        self._buffer = b""
        self._start = 0.0
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        pause = self._wait()
        if pause > 0:
            asyncio.get_running_loop().call_later(pause, self._send_now)
        else:
            self._send_now()

    def _send_now(self) -> None:
        request = self._next_request()
        if self._transport is None:
            return
        if request is None:
            self._transport.close()
            return
        self._start = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if "transfer-encoding" in headers:
            if not rest.endswith(b"0\r\n\r\n"):
                return
        elif len(rest) < int(headers.get("content-length", "0")):
            return
        self._buffer = b""
        status = int(lines[0].split(" ", 2)[1])
        seen = self._seen
        seen.statuses[status] = seen.statuses.get(status, 0) + 1
        seen.took_ms.append(1000 * (time.perf_counter() - self._start))
        seen.last = headers
        if status >= 300 and not seen.unexpected:
            seen.unexpected = rest.decode("utf-8", "replace")[:500]
        if headers.get("connection") == "close":
            assert self._transport is not None
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # of the protocol
        self._transport = None
        if not self.done.done():
            self.done.set_result(None)


def requests(plan: Plan) -> Iterator[bytes]:
    """Yield the requests of *plan*, each another one."""
    head = "".join(
        f"{name}: {value}\r\n" for name, value in {"Host": f"{plan.host}:{plan.port}", **plan.headers}.items()
    )
    for number in itertools.count(plan.first):
        body = plan.body.replace("{n}", str(number)).replace("{stamp}", _stamp(plan.since, number)).encode()
        line = f"{plan.method} {plan.path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n"
        yield line.encode() + body


def _stamp(since: int, number: int) -> str:
    at = time.gmtime(since + number // 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", at) + f".{number % 1000:03}Z"


async def send(plan: Plan) -> Seen:
    """Carry out *plan*."""
    bodies = requests(plan)
    seen = Seen()
    start = time.perf_counter()
    slots = itertools.count()

    def next_request() -> bytes | None:
        return next(bodies) if time.perf_counter() - start < plan.seconds else None

    def wait() -> float:
        return start + next(slots) / plan.rate - time.perf_counter() if plan.rate else 0.0

    async def keep_connected() -> None:
        while time.perf_counter() - start < plan.seconds:
            _, client = await asyncio.get_running_loop().create_connection(
                lambda: _Client(next_request, seen, wait), plan.host, plan.port
            )
            await client.done

    async with asyncio.TaskGroup() as group:
        for _ in range(plan.connections):
            group.create_task(keep_connected())
    spent = time.perf_counter() - start
    seen.per_second = sum(count for status, count in seen.statuses.items() if status < 300) / spent
    return seen


async def elsewhere(plan: Plan) -> Seen:
    """Carry out *plan* in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.load", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    answer, _ = await process.communicate(msgspec.json.encode(plan))
    return msgspec.json.decode(answer, type=Seen)


if __name__ == "__main__":
    sys.stdout.buffer.write(
        msgspec.json.encode(asyncio.run(send(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan))))
    )
