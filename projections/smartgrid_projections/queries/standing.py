"""How far projections are, for operators, and waiting until one has come far enough."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from smartgrid_projections.ports import EventLog, Standing, Standings

POLL_S = 0.004
"""Time between two looks at the checkpoints while someone waits [s]."""

READINGS = "readings"
"""The reading register: written with the append itself, so it is always at the head."""


class Progress(Struct, frozen=True, kw_only=True):
    """
    One projection as operators see it.

    Attributes:
        name: Name of the projection.
        version: The version in use.
        state: ``active``, ``paused`` or ``stopped``.
        position: Last position folded, per log.
        head: Newest position, per log.
        lag_events: Events not folded yet.
        lag_s: Time since the oldest of them was recorded [s].
        rate_per_s: Events folded per second, 0 while there is nothing to fold.
        eta_s: When it will be up to date at this rate [s]; null when unknown.
        parked_keys: Keys set aside.
        last_error: Why it stopped.
    """

    name: str
    version: int
    state: str
    position: Mapping[str, int]
    head: Mapping[str, int]
    lag_events: int
    lag_s: float
    rate_per_s: float
    eta_s: float | None
    parked_keys: int
    last_error: str | None


async def progress_of_all(standings: Standings, log: EventLog, now: datetime) -> list[Progress]:
    """
    Return the state of every projection, ordered by name.

    Raises:
        Unavailable: The database cannot be reached.
    """
    known = await standings.standings()
    heads = {name: await log.head(name) for name in sorted({"telemetry", *(n for s in known for n in s.positions)})}
    head = heads["telemetry"]
    register = Progress(
        name=READINGS,
        version=1,
        state="active",
        position={"telemetry": head},
        head={"telemetry": head},
        lag_events=0,
        lag_s=0.0,
        rate_per_s=0.0,
        eta_s=None,
        parked_keys=0,
        last_error=None,
    )
    return sorted([register, *(_progress(one, heads, now) for one in known)], key=lambda one: one.name)


def _progress(one: Standing, heads: Mapping[str, int], now: datetime) -> Progress:
    # The head is read after the checkpoint, so it is never behind it by more than a restored backup could explain.
    lag = sum(max(0, heads[log] - position) for log, position in one.positions.items())
    oldest = min(one.next_recorded_at.values(), default=None)
    rate = one.rate_per_s if lag else 0.0
    return Progress(
        name=one.name,
        version=one.version,
        state="stopped" if one.last_error is not None else "paused" if one.paused else "active",
        position=dict(one.positions),
        head={log: heads[log] for log in one.positions},
        lag_events=lag,
        lag_s=0.0 if oldest is None or not lag else max(0.0, round((now - oldest).total_seconds(), 3)),
        rate_per_s=round(rate, 1),
        eta_s=round(lag / rate, 1) if lag and rate > 0 else None,
        parked_keys=one.parked_keys,
        last_error=one.last_error,
    )


class Waiting:
    """
    Lets reads wait for a projection; all of a process share one look at the checkpoints.

    Guarantees:
        One query is under way at most, however many wait.
    """

    def __init__(self, standings: Standings) -> None:
        self._standings = standings
        self._look: asyncio.Future[Mapping[str, Mapping[str, int]]] | None = None

    async def until(self, names: Sequence[str], wanted: Mapping[str, int], wait_ms: int) -> bool:
        """
        Wait until all projections of *names* include *wanted*.

        Args:
            names: Projections; one that keeps no checkpoint of a log counts as up to date with it.
            wanted: Position per log.
            wait_ms: Longest wait [ms].

        Returns:
            Whether they do.

        Raises:
            Unavailable: The database cannot be reached.
        """
        deadline = time.monotonic() + wait_ms / 1000
        while True:
            if _includes(await self._positions(), names, wanted):
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await asyncio.sleep(min(POLL_S, left))

    async def _positions(self) -> Mapping[str, Mapping[str, int]]:
        if self._look is None or self._look.done():
            self._look = asyncio.ensure_future(self._standings.positions())
        return await asyncio.shield(self._look)


def _includes(known: Mapping[str, Mapping[str, int]], names: Sequence[str], wanted: Mapping[str, int]) -> bool:
    return all(known.get(name, {}).get(log, position) >= position for name in names for log, position in wanted.items())
