"""The fault proxy does to a link what it is told, and nothing else."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.kit.proxy import Address, FaultProxy, Faults, Way

pytestmark = pytest.mark.faults

TEXT = b"abcdefghij"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@dataclass
class Linked:
    proxy: FaultProxy
    address: Address

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.address, Path):
            return await asyncio.open_unix_connection(self.address)
        return await asyncio.open_connection(*self.address)

    async def ask(self, text: bytes = TEXT, n: int | None = None) -> bytes:
        """Send *text*; return what came back until the link ended or as much as was sent."""
        reader, writer = await self.connect()
        try:
            writer.write(text)
            return await reader.readexactly(len(text) if n is None else n)
        except asyncio.IncompleteReadError as short:
            return short.partial
        finally:
            writer.close()


@pytest.fixture(params=["tcp", "unix"])
async def linked(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Linked]:
    if request.param == "tcp":
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        proxy = FaultProxy((host, port), seed=7)
        address = await proxy.listen()
    else:
        server = await asyncio.start_unix_server(echo, tmp_path / "server")
        proxy = FaultProxy(tmp_path / "server", seed=7)
        address = await proxy.listen(tmp_path / "proxy")
    yield Linked(proxy, address)
    await proxy.close()
    server.close()


async def test_a_healthy_link_passes_every_byte(linked: Linked) -> None:
    text = random.Random(1).randbytes(1_000_000)

    assert await linked.ask(text) == text
    assert linked.proxy.passed == {"up": len(text), "down": len(text)}


@pytest.mark.parametrize("n", range(11))
async def test_exactly_n_bytes_pass_before_a_cut(linked: Linked, n: int) -> None:
    linked.proxy.faults = Faults(down=Way(cut_after=n))

    answer = await linked.ask(TEXT + TEXT)

    assert answer == (TEXT + TEXT)[:n]
    assert linked.proxy.cuts == 1


async def test_a_cut_at_a_pattern_passes_what_is_before_it(linked: Linked) -> None:
    linked.proxy.faults = Faults(down=Way(cut_at=b"def"))

    assert await linked.ask() == b"abc"


async def test_a_pattern_is_found_across_chunks(linked: Linked) -> None:
    linked.proxy.faults = Faults(up=Way(cut_at=b"cd"))
    reader, writer = await linked.connect()
    writer.write(b"abc")
    assert await reader.readexactly(3) == b"abc"

    writer.write(b"def")

    assert await reader.read() == b""
    assert linked.proxy.cuts == 1
    writer.close()


async def test_after_one_cut_an_armed_proxy_is_healthy(linked: Linked) -> None:
    linked.proxy.arm(Faults(down=Way(cut_after=0)))

    assert [await linked.ask() for _ in range(3)] == [b"", TEXT, TEXT]


async def test_faults_wait_for_the_bytes_that_arm_them(linked: Linked) -> None:
    linked.proxy.faults = Faults(down=Way(cut_at=b"a"), armed_by=b"BEGIN")

    assert await linked.ask() == TEXT
    assert await linked.ask(b"BEGIN a") == b"BEGIN "


async def test_latency_delays_and_keeps_the_order(linked: Linked) -> None:
    linked.proxy.faults = Faults(up=Way(latency_s=0.05, jitter_s=0.02), down=Way(latency_s=0.05))
    start = time.monotonic()

    answers = await asyncio.gather(*(linked.ask(bytes([65 + i]) * 3000) for i in range(5)))

    assert answers == [bytes([65 + i]) * 3000 for i in range(5)]
    assert time.monotonic() - start >= 0.1


async def test_bandwidth_is_a_limit(linked: Linked) -> None:
    linked.proxy.faults = Faults(down=Way(bytes_per_s=100_000))
    start = time.monotonic()

    assert len(await linked.ask(bytes(20_000))) == 20_000
    assert time.monotonic() - start >= 0.2


async def test_a_half_open_link_stays_and_says_nothing(linked: Linked) -> None:
    linked.proxy.faults = Faults(down=Way(cut_after=3), ending="half_open")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(linked.ask(), 0.1)
    assert linked.proxy.cuts == 1


async def test_a_blackhole_takes_everything_and_passes_nothing(linked: Linked) -> None:
    linked.proxy.faults = Faults(blackhole=True)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(linked.ask(), 0.1)
    assert linked.proxy.passed == {"up": 0, "down": 0}


async def test_swallowed_bytes_leave_the_connection_open(linked: Linked) -> None:
    linked.proxy.faults = Faults(down=Way(swallow_at=b"d"))
    reader, writer = await linked.connect()
    writer.write(TEXT)

    assert await reader.readexactly(3) == b"abc"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.05)
    writer.close()


async def test_a_slow_close_comes_late(linked: Linked) -> None:
    linked.proxy.faults = Faults(down=Way(cut_after=2), ending="slow_close", slow_s=0.1)
    start = time.monotonic()

    assert await linked.ask() == b"ab"
    assert time.monotonic() - start >= 0.1


@pytest.mark.parametrize("linked", ["tcp"], indirect=True)
async def test_a_reset_is_seen_as_one(linked: Linked) -> None:
    linked.proxy.faults = Faults(up=Way(cut_after=0), ending="reset")

    with pytest.raises(ConnectionResetError):
        await linked.ask()


async def test_a_refused_link_ends_before_a_byte(linked: Linked) -> None:
    linked.proxy.faults = Faults(refuse=True)

    try:
        answer = await linked.ask()
    except ConnectionError:
        answer = b""
    assert answer == b""
    assert linked.proxy.passed["up"] == 0


async def test_nobody_connects_to_a_proxy_that_stopped_listening(linked: Linked) -> None:
    await linked.proxy.stop_listening()

    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        await linked.connect()


async def test_a_seed_decides_what_happens_to_each_connection(linked: Linked) -> None:
    def script(number: int, draw: random.Random) -> Faults:
        return Faults(down=Way(cut_after=draw.randrange(number, 10)))

    linked.proxy.script = script
    first = [len(await linked.ask()) for _ in range(6)]
    again = [len(TEXT[: random.Random(f"7/{number}").randrange(number, 10)]) for number in range(6)]

    assert first == again
