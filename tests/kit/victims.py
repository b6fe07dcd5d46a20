"""
Processes to be killed, stopped and continued: the shipped code in processes of their own, started in milliseconds.

They come from a fork server that has everything imported, so a thousand kills do not wait for a thousand imports.
"""

import asyncio
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from tests.kit.filling import SENDER, answer_of, at, prepared, voltage
from tests.kit.history import Answer, Fact, History, Request, fact_of
from tests.kit.rebuilds import MASTER

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.flush import PostgresReadingStore
from smartgrid_adapters.postgres.pool import dedicated, open_pool
from smartgrid_adapters.postgres.sealing import PostgresDataKeys
from smartgrid_adapters.sealing import KeySealer
from smartgrid_commands.ingestion import Ingestion
from smartgrid_commands.ports import OutcomeUnknown, StoreUnavailable
from smartgrid_http.testing import FixedClock
from smartgrid_ops.failpoints import calls_of
from smartgrid_ops.worker import runner_of
from smartgrid_projections.ports import Unavailable
from smartgrid_projections.runtime.runner import Pace

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.kit.victims"])

Told = tuple[str, int, tuple[Fact, ...] | Answer]


class Victim:
    """
    A process, by its pid.

    Args:
        target: What it runs; it gets a pipe and the arguments.
        arguments: They are sent to the process.
    """

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        self.pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=target, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.exitcode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """End it with no chance to do anything."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.join()

    def join(self, timeout_s: float = 30.0) -> None:
        """Wait for its end."""
        self._process.join(timeout_s)
        assert self._process.exitcode is not None, "it does not end"

    def freeze(self) -> None:
        """Stop it where it is."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def messages(self, wait_s: float = 0.0) -> list[Told]:
        """Return what it said so far, also before its end; wait up to *wait_s* [s] for more."""
        found: list[Told] = []
        end = time.monotonic() + wait_s
        with suppress(EOFError, OSError):
            while self.pipe.poll(max(0.0, end - time.monotonic())):
                found.append(self.pipe.recv())
        return found


def told(history: History, requests: dict[int, Request], messages: list[Told]) -> int:
    """Enter what an ingesting victim said into *history*; return the number of readings that were answered."""
    answered = 0
    for what, number, content in messages:
        if what == "sent" and not isinstance(content, Answer):
            requests[number] = history.send(content)
        elif isinstance(content, Answer):
            requests[number].answers.append(content)
            answered += len(content.states)
    return answered


def ingest(pipe: Connection, url: str, seed: int, clients: int = 16) -> None:
    """Record readings until killed; say each before it is sent and after it was answered."""
    asyncio.run(_ingest(pipe, url, seed, clients))


async def _ingest(pipe: Connection, url: str, seed: int, clients: int) -> None:
    pool = await open_pool(url)
    sealer = KeySealer(PostgresDataKeys(pool), MASTER)
    store = PostgresEventStore(pool, sealer=sealer)
    readings = PostgresReadingStore(pool, store, sealer=sealer)
    ingestion = Ingestion(readings, FixedClock(at(10**7)))
    draw = random.Random(f"ingest {seed}")
    numbers = iter(range(seed * 1_000_000, (seed + 1) * 1_000_000))

    async def client() -> None:
        while True:
            batch = [next(numbers) for _ in range(draw.choice((1, 1, 4, 8)))]
            items = [voltage(f"s{n % 7}", n / 60_000, 220 + n % 2000 / 100) for n in batch]  # a millisecond apart
            pipe.send(("sent", batch[0], tuple(fact_of(item) for item in items)))
            try:
                outcome = await ingestion.record_many(prepared(items), SENDER, atomic=False, verdicts=True)
            except (StoreUnavailable, OutcomeUnknown):
                await asyncio.sleep(0.02)
                continue
            pipe.send(("told", batch[0], answer_of(outcome)))

    await asyncio.gather(*(client() for _ in range(clients)))


def project(pipe: Connection, url: str, name: str, lease_s: float = 5.0, failpoint: str | None = None) -> None:
    """Fold projection *name* until killed; SIGTERM ends it in good order."""
    _ = pipe
    asyncio.run(_project(url, name, lease_s, failpoint))


async def _project(url: str, name: str, lease_s: float, failpoint: str | None) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    pool = await open_pool(url)
    sealer = KeySealer(PostgresDataKeys(pool), MASTER)
    store = PostgresEventStore(pool, sealer=sealer)
    await store.start()
    calls = calls_of(failpoint, "projections", Unavailable)
    pace = Pace(batch_events=20, renew_s=lease_s / 4, takeover_s=0.05, poll_s=0.05)
    runner = runner_of(name, dedicated(pool), store, sealer, calls=calls, pace=pace, lease_s=lease_s)
    await runner.run(stop)
    await store.stop()
    await pool.close()
