"""Keeps one projection up to date: claims it, reads its logs, folds batch after batch."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog

from smartgrid_projections.ports import Checkpoints, Claim, EventLog, Fenced, Move, Unavailable
from smartgrid_projections.projection import Projection, weight_of
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event

T = TypeVar("T")
R = TypeVar("R")

_log = structlog.get_logger("smartgrid.projections")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """
    How a runner uses time; tests and the simulator own it.

    Attributes:
        batch_events: Most events of one transaction.
        batch_rows: Most readings of one transaction; an event is never split.
        poll_s: Longest wait for the log's wake-up [s].
        renew_s: Time between two renewals of an idle lease [s].
        takeover_s: Wait between two attempts to claim what someone else owns [s].
        attempts: Times a batch is tried before the projection stops.
        backoff_s: First wait after a failure [s]; doubles each time, with full jitter.
        backoff_max_s: Longest such wait [s].
        sleep: Waits.
        monotonic: A time [s] that never goes back.
        jitter: A number in [0, 1).
    """

    batch_events: int = 500
    batch_rows: int = 65_536
    poll_s: float = 0.5
    renew_s: float = 1.0
    takeover_s: float = 0.5
    attempts: int = 5
    backoff_s: float = 0.05
    backoff_max_s: float = 5.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = field(default=random.random)  # spreads retries, guards nothing


class Stopped(Exception):
    """A projection met an event that it cannot fold; it does not skip it."""


class Runner(Generic[T]):
    """
    One projection of one worker.

    Guarantees:
        * Each event is folded exactly once into the tables, whatever is killed or cut.
        * Only one of any number of runners moves a projection; the others wait.
        * No event is skipped: what cannot be folded after several attempts stops the projection with its error.
    """

    def __init__(
        self, projection: Projection[T], log: EventLog, checkpoints: Checkpoints[T], pace: Pace | None = None
    ) -> None:
        self.projection = projection
        self.positions: Mapping[str, int] = {}
        self.rate_per_s = 0.0
        self.last_error: str | None = None
        self.ticked_at = 0.0
        self._source = log
        self._checkpoints = checkpoints
        self._pace = pace or Pace()
        self._claim: Claim | None = None
        self._renewed_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """
        Fold until *stop* is set, then finish the batch in hand and give the projection back.

        Raises:
            Stopped: An event cannot be folded; the error is recorded.
        """
        failures = 0
        try:
            while not stop.is_set():
                self.ticked_at = self._pace.monotonic()
                try:
                    moved = await self.step()
                    failures = 0
                    if not moved:
                        await self._idle(stop)
                except Unavailable as error:
                    failures += 1
                    self._claim = None
                    _log.warning("projection_waits", projection=self.projection.name, error=str(error))
                    await self._pause(failures, stop)
                except Fenced:
                    self._claim = None
                    _log.warning("projection_taken_over", projection=self.projection.name)
        finally:
            await self.leave()

    @property
    def claim(self) -> Claim | None:
        """The claim in hand."""
        return self._claim

    def forget(self) -> None:
        """Take up the projection anew before the next step."""
        self._claim = None

    async def claimed(self) -> bool:
        """
        Claim the projection if it is not claimed; return whether it is ours.

        Raises:
            Fenced: Someone else took it meanwhile.
            Unavailable: Try again later.
        """
        if self._claim is None:
            self._claim = await self._checkpoints.claim()
            if self._claim is None:
                return False
            self.positions = dict(self._claim.positions)
            self._renewed_at = self._pace.monotonic()
            _log.info("projection_claimed", projection=self.projection.name, epoch=self._claim.epoch)
        await self._renew(self._claim)
        return True

    async def step(self, *, up_to: Mapping[str, int] | None = None) -> int:
        """
        Fold one batch of each log; claim the projection before when needed.

        Args:
            up_to: Last position to fold, per log; absent: the newest.

        Returns:
            Number of events folded, 0 when there are none or someone else owns the projection.

        Raises:
            Fenced: Someone else took it meanwhile.
            Stopped: An event cannot be folded.
            Unavailable: Try again later.
        """
        if not await self.claimed() or self._claim is None:
            return 0
        bounds = up_to or {}
        return sum([await self._step_of(self._claim, log, bounds.get(log)) for log in self.projection.logs])

    async def leap(self, log: str, position: int, fill: Callable[[T], Awaitable[None]]) -> None:
        """
        Go from the start of *log* to *position* at once, in one transaction.

        Args:
            log: The log; nothing of it is folded yet.
            position: Where to go.
            fill: Writes all rows up to it.

        Raises:
            Fenced: Someone else took the projection meanwhile.
            Unavailable: Try again later.
        """
        if not await self.claimed() or self._claim is None:
            return
        async with self._checkpoints.step(self._claim, Move(log=log, old=0, new=position)) as tables:
            await fill(tables)
        self.positions = {**self.positions, log: position}

    async def _step_of(self, claim: Claim, log: str, up_to: int | None) -> int:
        after = self.positions[log]

        async def read() -> list[Recorded[Event]]:
            return await self._source.read_log(log, after=after, limit=self._pace.batch_events, up_to=up_to)

        done = 0
        for batch in _cut(await self._tried(claim, f"{log}@{after + 1}", read), self._pace.batch_rows):
            await self._fold(claim, log, batch)
            done += len(batch)
        return done

    async def _fold(self, claim: Claim, log: str, batch: Sequence[Recorded[Event]]) -> None:
        started = self._pace.monotonic()
        move = Move(log=log, old=self.positions[log], new=batch[-1].position, rate_per_s=self.rate_per_s)

        async def fold() -> None:
            async with self._checkpoints.step(claim, move) as tables:
                await self.projection.project(batch, tables)

        await self._tried(claim, f"{log}@{move.old + 1}…{move.new}", fold)
        self.positions = {**self.positions, log: move.new}
        elapsed = self._pace.monotonic() - started
        if elapsed > 0:
            self.rate_per_s += 0.2 * (len(batch) / elapsed - self.rate_per_s)
        self.ticked_at = self._pace.monotonic()
        await self._renew(claim)

    async def _tried(self, claim: Claim, what: str, action: Callable[[], Awaitable[R]]) -> R:
        """Do *action*, again when it fails; stop the projection when it keeps failing."""
        attempt = 1
        while True:
            try:
                result = await action()
            except (Fenced, Unavailable):
                raise
            except Exception as error:
                self.last_error = f"{what}: {type(error).__name__}: {error}"
                _log.exception("projection_failed", projection=self.projection.name, at=what, attempt=attempt)
                if attempt >= self._pace.attempts:
                    await self._checkpoints.failed(claim, self.last_error)
                    raise Stopped(self.last_error) from error
                await self._pace.sleep(self._wait_after(attempt))
                await self._renew(claim)
                attempt += 1
            else:
                self.last_error = None
                return result

    async def _renew(self, claim: Claim) -> None:
        now = self._pace.monotonic()
        if now - self._renewed_at >= self._pace.renew_s:
            await self._checkpoints.renew(claim)
            self._renewed_at = now

    async def _idle(self, stop: asyncio.Event) -> None:
        if self._claim is None:
            await _until(stop, self._pace.takeover_s * (0.5 + self._pace.jitter()))
            return
        waits = [
            asyncio.create_task(self._source.wait_for(log, self.positions[log] + 1, timeout_s=self._pace.poll_s))
            for log in self.projection.logs
        ]
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([*waits, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*waits, stopping):
                task.cancel()
            results = await asyncio.gather(*waits, stopping, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _pause(self, failures: int, stop: asyncio.Event) -> None:
        await _until(stop, self._wait_after(failures))

    def _wait_after(self, failures: int) -> float:
        longest = min(self._pace.backoff_max_s, self._pace.backoff_s * 2.0 ** min(failures, 20))
        return longest * (0.1 + 0.9 * self._pace.jitter())

    async def leave(self) -> None:
        """Give the projection back and drop the connection."""
        try:
            if self._claim is not None:
                await self._checkpoints.release(self._claim)
        except Unavailable as error:
            _log.warning("projection_not_released", projection=self.projection.name, error=str(error))
        finally:
            self._claim = None
            await self._checkpoints.close()


def _cut(events: Sequence[Recorded[Event]], rows: int) -> list[list[Recorded[Event]]]:
    batches: list[list[Recorded[Event]]] = []
    room = 0
    for recorded in events:
        weight = weight_of(recorded.event)
        if not batches or weight > room:
            batches.append([])
            room = rows
        batches[-1].append(recorded)
        room -= weight
    return batches


async def _until(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
