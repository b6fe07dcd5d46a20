"""
A proxy that breaks links, for TCP and Unix sockets, without any right of the system's.

Every link whose address can be set can go through it. What happens to a connection is a :class:`Faults`: one for all
(:attr:`FaultProxy.faults`, which may change while connections live), or one for each by number and seed
(:attr:`FaultProxy.script`).
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from msgspec import Struct

CHUNK = 65_536
COMMIT_ANSWER = b"C\x00\x00\x00\x0bCOMMIT\x00"
"""``CommandComplete COMMIT`` as PostgreSQL sends it."""

Address = tuple[str, int] | Path
Ending = Literal["close", "reset", "half_open", "slow_close"]


class Way(Struct, frozen=True, kw_only=True):
    """
    What happens to the bytes of one direction.

    Attributes:
        latency_s: Each chunk arrives this much later [s], in order.
        jitter_s: And up to this much more [s].
        bytes_per_s: Bandwidth; None for any.
        cut_after: Pass on this many bytes, then end the connection.
        cut_at: End the connection when these bytes come; what is before them passes, they do not.
        swallow_at: Swallow these bytes and all after them; the connection stays.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float | None = None
    cut_after: int | None = None
    cut_at: bytes | None = None
    swallow_at: bytes | None = None


class Faults(Struct, frozen=True, kw_only=True):
    """
    What happens to a connection.

    Attributes:
        up: From client to server.
        down: From server to client.
        refuse: It ends before a byte.
        blackhole: It is taken, and nothing goes anywhere.
        ending: How a cut ends it: ``close`` (FIN), ``reset`` (RST on TCP), ``half_open`` (both ends stay, all bytes
            are swallowed), ``slow_close`` (the server's end is closed, the client's after :attr:`slow_s`).
        slow_s: See above [s].
        armed_by: Cuts and swallowing begin once these bytes went up; None for at once.
    """

    up: Way = Way()
    down: Way = Way()
    refuse: bool = False
    blackhole: bool = False
    ending: Ending = "close"
    slow_s: float = 0.5
    armed_by: bytes | None = None


HEALTHY = Faults()
Script = Callable[[int, random.Random], Faults]


class FaultProxy:
    """
    Stands between clients and one server.

    Args:
        server: Where to.
        seed: Of what the script draws, and of jitter.

    Attributes:
        faults: Of every connection that no script decides; looked at with each chunk.
        script: Told the number of a connection (from 0) and a random source of its own; decides its faults.
        once: Whether the first cut makes :attr:`faults` become :attr:`then`.
        then: See above.
        cuts: How many connections were cut.
        connections: How many were taken.
        passed: Bytes passed on, up and down.
    """

    def __init__(self, server: Address, *, seed: int = 0) -> None:
        self._server_address = server
        self._seed = seed
        self._listener: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self.faults = HEALTHY
        self.script: Script | None = None
        self.once = False
        self.then = HEALTHY
        self.cuts = 0
        self.connections = 0
        self.passed = {"up": 0, "down": 0}

    async def listen(self, address: Address = ("127.0.0.1", 0)) -> Address:
        """Take connections at *address*; return it with the port that was chosen."""
        if isinstance(address, Path):
            self._listener = await asyncio.start_unix_server(self._meet, address)
            return address
        self._listener = await asyncio.start_server(self._meet, *address)
        host, port = self._listener.sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def stop_listening(self) -> None:
        """Take no more connections: a new one is refused by the system."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def close(self) -> None:
        """End everything."""
        await self.stop_listening()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def arm(self, faults: Faults, *, then: Faults = HEALTHY) -> None:
        """Let *faults* hold until the first cut, then *then*."""
        self.faults, self.once, self.then = faults, True, then

    def note_cut(self) -> None:
        """Count a cut."""
        self.cuts += 1
        if self.once:
            self.faults, self.once = self.then, False

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        number = self.connections
        self.connections += 1
        draw = random.Random(f"{self._seed}/{number}")
        own = None if self.script is None else self.script(number, draw)
        try:
            await _Link(self, own, draw).run(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(task)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open the far side of a link."""
        if isinstance(self._server_address, Path):
            return await asyncio.open_unix_connection(self._server_address)
        return await asyncio.open_connection(*self._server_address)


class _Link:
    """One connection."""

    def __init__(self, proxy: FaultProxy, own: Faults | None, draw: random.Random) -> None:
        self._proxy = proxy
        self._own = own
        self._draw = draw
        self._armed = False
        self._head = b""
        self._dead = False  # half open: bytes go nowhere

    @property
    def faults(self) -> Faults:
        return self._proxy.faults if self._own is None else self._own

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            if self.faults.refuse:
                _reset(writer)
                return
            if self.faults.blackhole:
                await _drain_away(reader)
                return
            far_reader, far_writer = await self._proxy.connect()
            ends.append(far_writer)
            both = [
                asyncio.create_task(self._pump("up", reader, far_writer)),
                asyncio.create_task(self._pump("down", far_reader, writer)),
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                cut = any(
                    task.done() and not task.cancelled() and not task.exception() and task.result() for task in both
                )
                if cut:
                    await self._end(writer, far_writer)
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        finally:
            for end in ends:
                end.close()

    async def _end(self, writer: asyncio.StreamWriter, far_writer: asyncio.StreamWriter) -> None:
        faults = self.faults_of_the_cut
        self._proxy.note_cut()
        if faults.ending == "reset":
            _reset(writer)
            _reset(far_writer)
        elif faults.ending == "slow_close":
            far_writer.close()
            await asyncio.sleep(faults.slow_s)
        elif faults.ending == "half_open":
            await asyncio.Event().wait()  # until the proxy closes

    async def _pump(
        self, way: Literal["up", "down"], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Pass bytes on; return True when the connection is to be cut, False when its end closed it."""
        line = _DelayLine(writer, self._draw)
        left: int | None = None
        seen = b""
        async with line.running():
            while data := await reader.read(CHUNK):
                faults = self.faults
                rule = faults.up if way == "up" else faults.down
                self._arm(way, data, faults)
                if self._dead:
                    continue
                if self._armed:
                    passing, verdict, left = _judge(rule, seen, data, left)
                    seen = (seen + data)[-256:]
                else:
                    passing, verdict = data, "pass"
                self._proxy.passed[way] += len(passing)
                await line.put(passing, rule)
                if verdict == "cut":
                    self.faults_of_the_cut = faults
                    await line.empty()
                    return True
                if verdict == "swallow":
                    self._dead = True
            await line.empty()
        return False

    faults_of_the_cut: Faults = HEALTHY

    def _arm(self, way: str, data: bytes, faults: Faults) -> None:
        if self._armed:
            return
        if faults.armed_by is None:
            self._armed = True
        elif way == "up":
            self._head = (self._head + data)[-CHUNK * 2 :]
            self._armed = faults.armed_by in self._head


def _judge(rule: Way, seen: bytes, data: bytes, left: int | None) -> tuple[bytes, str, int | None]:
    """Return what passes of *data*, what happens then, and how many bytes may still pass."""
    for pattern, verdict in ((rule.cut_at, "cut"), (rule.swallow_at, "swallow")):
        if pattern is None:
            continue
        overlap = seen[len(seen) - (len(pattern) - 1) :] if len(pattern) > 1 else b""
        at = (overlap + data).find(pattern)
        if at >= 0:
            return data[: max(0, at - len(overlap))], verdict, left
    if rule.cut_after is not None:
        left = rule.cut_after if left is None else left
        if len(data) >= left:
            return data[:left], "cut", 0
        return data, "pass", left - len(data)
    return data, "pass", None


class _DelayLine:
    """Bytes on their way: later, slower, in order."""

    def __init__(self, writer: asyncio.StreamWriter, draw: random.Random) -> None:
        self._writer = writer
        self._draw = draw
        self._queue: asyncio.Queue[tuple[float, bytes, float | None]] = asyncio.Queue(1024)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        task = asyncio.create_task(self._deliver())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def put(self, data: bytes, rule: Way) -> None:
        if not data:
            return
        if rule.latency_s == rule.jitter_s == 0 and rule.bytes_per_s is None and self._queue.empty():
            self._writer.write(data)
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()
            return
        at = asyncio.get_running_loop().time() + rule.latency_s + rule.jitter_s * self._draw.random()
        await self._queue.put((at, data, rule.bytes_per_s))

    async def empty(self) -> None:
        await self._queue.join()

    async def _deliver(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            at, data, bytes_per_s = await self._queue.get()
            try:
                await asyncio.sleep(at - loop.time())
                step = len(data) if bytes_per_s is None else max(1, int(bytes_per_s / 50))
                for start in range(0, len(data), step):
                    part = data[start : start + step]
                    if bytes_per_s is not None:
                        await asyncio.sleep(len(part) / bytes_per_s)
                    self._writer.write(part)
                    with contextlib.suppress(ConnectionError):
                        await self._writer.drain()
            finally:
                self._queue.task_done()


async def _drain_away(reader: asyncio.StreamReader) -> None:
    while await reader.read(CHUNK):
        pass


def _reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
