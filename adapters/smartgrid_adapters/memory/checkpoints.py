"""The model of the checkpoints: what the PostgreSQL ones are compared to, and what the simulator runs on."""

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from smartgrid_projections.ports import Claim, Fenced, Move, Standing

T = TypeVar("T")


@dataclass(kw_only=True)
class MemoryProjection(Generic[T]):
    """
    The stored side of one version of one projection.

    Attributes:
        name: Its name.
        version: Its version.
        positions: Last committed position per log.
        tables: Its rows; copied before a step, put back when the step fails.
    """

    name: str
    version: int
    positions: dict[str, int]
    tables: T
    epoch: int = 0
    owner: str | None = None
    lease_until: float = 0.0
    last_error: str | None = None
    rate_per_s: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class MemoryCheckpoints(Generic[T]):
    """One worker's view of a :class:`MemoryProjection`."""

    def __init__(
        self, stored: MemoryProjection[T], *, owner: str, monotonic: Callable[[], float], lease_s: float = 5.0
    ) -> None:
        self._stored = stored
        self._owner = owner
        self._monotonic = monotonic
        self._lease_s = lease_s

    async def claim(self) -> Claim | None:
        stored = self._stored
        async with stored.lock:
            if stored.owner is not None and self._monotonic() < stored.lease_until:
                return None
            stored.epoch += 1
            stored.owner, stored.last_error = self._owner, None
            stored.lease_until = self._monotonic() + self._lease_s
            return Claim(epoch=stored.epoch, positions=dict(stored.positions))

    async def renew(self, claim: Claim) -> None:
        if self._stored.epoch != claim.epoch:
            raise Fenced(self._stored.name)
        self._stored.lease_until = self._monotonic() + self._lease_s

    @asynccontextmanager
    async def step(self, claim: Claim, move: Move) -> AsyncGenerator[T]:
        stored = self._stored
        async with stored.lock:
            if stored.epoch != claim.epoch or stored.positions[move.log] != move.old:
                raise Fenced(stored.name)
            before = copy.deepcopy(stored.tables)
            try:
                yield stored.tables
            except BaseException:
                stored.tables = before
                raise
            stored.positions[move.log] = move.new
            stored.rate_per_s = move.rate_per_s

    async def failed(self, claim: Claim, error: str) -> None:
        if self._stored.epoch == claim.epoch:
            self._stored.owner, self._stored.last_error = None, error

    async def release(self, claim: Claim) -> None:
        if self._stored.epoch == claim.epoch:
            self._stored.owner = None

    async def close(self) -> None:
        """As when the connection ends: what this worker still owned is free at once."""
        if self._stored.owner == self._owner:
            self._stored.owner = None


class MemoryStandings:
    """The state of projections that live in memory."""

    def __init__(self, projections: Sequence[MemoryProjection[Any]]) -> None:
        self._projections = projections

    async def positions(self) -> Mapping[str, Mapping[str, int]]:
        return {one.name: dict(one.positions) for one in self._projections}

    async def standings(self) -> list[Standing]:
        return [
            Standing(
                name=one.name,
                version=one.version,
                positions=dict(one.positions),
                next_recorded_at={},
                rate_per_s=one.rate_per_s,
                parked_keys=0,
                owned=one.owner is not None,
                last_error=one.last_error,
            )
            for one in sorted(self._projections, key=lambda one: one.name)
        ]
