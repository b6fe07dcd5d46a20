"""Builds another version of a read model beside the one in use, from the first event on."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import structlog

from smartgrid_projections.ports import Fenced, Unavailable
from smartgrid_projections.runtime.runner import Runner, Stopped
from smartgrid_projections.versions import UNDER_WAY, Building, Rebuild

T = TypeVar("T")

_log = structlog.get_logger("smartgrid.rebuild")

FOLD_EVENTS = 20_000
"""From so many events on, a read model that can be folded in parts is."""

NEAR_EVENTS = 500
"""So few events behind, the version in use may stand still for them."""

RENEW_S = 1.0
"""Time between two signs of life while a comparison lasts [s]."""

WAIT_S = 0.05
"""Time between two looks at a rebuild that someone else has, or that waits for the version in use [s]."""


class Rebuilder(Generic[T]):
    """
    One worker's part in one rebuild.

    Args:
        runner: Folds the new version; it gives up at the first error that is not an outage.
        building: The state of the rebuild.
        name: The projection.
        rebuild_id: The rebuild.
        fold: Writes all rows up to a position into empty tables, faster than batch by batch; None if nothing can. The
            projection reads one log.

    Guarantees:
        * The tables of the version in use are only read.
        * Killed at any time, it goes on from the last batch when it is run again.
        * It never switches before the comparison is kept.
    """

    def __init__(
        self,
        runner: Runner[T],
        building: Building,
        *,
        name: str,
        rebuild_id: str,
        fold: Callable[[T, int], Awaitable[None]] | None = None,
    ) -> None:
        self._runner = runner
        self._building = building
        self._name = name
        self._rebuild_id = rebuild_id
        self._fold = fold
        self._folding = asyncio.Lock()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until the new version is ready, the rebuild was aborted or has failed, or *stop*."""
        failures = 0
        try:
            while not stop.is_set():
                try:
                    rebuild = await self._building.rebuild(self._name, self._rebuild_id)
                    if rebuild.state not in UNDER_WAY:
                        return
                    if not await self._leap(rebuild, stop) and not await self._step(rebuild):
                        await _until(stop, WAIT_S)
                    failures = 0
                except Fenced:
                    self._runner.forget()
                    await _until(stop, WAIT_S)
                except Unavailable as error:
                    failures += 1
                    self._runner.forget()
                    _log.warning("rebuild_waits", projection=self._name, error=str(error))
                    await _until(stop, min(5.0, WAIT_S * 2.0 ** min(failures, 7)))
                except Exception as error:  # noqa: BLE001  # whatever it is: a rebuild stops, and says why
                    await self._failed(error)
                    return
        finally:
            await self._runner.leave()

    async def _leap(self, rebuild: Rebuild, stop: asyncio.Event) -> bool:
        """Fold a long log in parts, if nothing of it is folded yet; return whether that was done."""
        fold = self._fold
        if fold is None or rebuild.state != "building" or any(rebuild.position.values()):
            return False
        ((log, position),) = (await self._building.positions(self._name)).items()
        if position < FOLD_EVENTS:
            return False
        leap = asyncio.create_task(self._runner.leap(log, position, lambda tables: fold(tables, position)))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([leap, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not leap.done():  # nothing of it is kept
                leap.cancel()
            await asyncio.gather(leap, stopping, return_exceptions=True)
        if not leap.cancelled():
            await leap
        return True

    async def _step(self, rebuild: Rebuild) -> bool:
        live = await self._building.positions(self._name)
        if rebuild.state != "verifying":
            moved = await self._runner.step(up_to=live)
            claim = self._runner.claim
            if claim is None:
                return False
            behind = _behind(live, self._runner.positions)
            if rebuild.state == "building" and behind <= NEAR_EVENTS:
                return await self._building.advance(rebuild, "catching_up", epoch=claim.epoch)
            if rebuild.state == "catching_up" and behind == 0:
                return await self._building.advance(rebuild, "verifying", epoch=claim.epoch)
            return moved > 0
        return await self._verify(rebuild)

    async def _verify(self, rebuild: Rebuild) -> bool:
        if not await self._runner.claimed() or self._runner.claim is None:
            return False
        epoch = self._runner.claim.epoch
        # Most of what came meanwhile is folded before the version in use has to stand still for the rest.
        await self._catch_up(await self._building.positions(self._name))
        renewing = asyncio.create_task(self._renew())
        try:
            found = await self._building.verify(rebuild, epoch=epoch, catch_up=self._catch_up)
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        if found is None:
            return False
        _log.info("rebuild_ready", projection=self._name, version=rebuild.version, differing=found.rows_differing)
        return True

    async def _catch_up(self, live: Mapping[str, int]) -> None:
        async with self._folding:
            while _behind(live, self._runner.positions):
                if not await self._runner.step(up_to=live):
                    raise Unavailable("the log does not reach as far as the version in use")

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            async with self._folding:
                await self._runner.claimed()

    async def _failed(self, error: Exception) -> None:
        if not isinstance(error, Stopped):
            _log.exception("rebuild_failed", projection=self._name)
        claim = self._runner.claim
        rebuild = await self._building.rebuild(self._name, self._rebuild_id)
        text = str(error) if isinstance(error, Stopped) else f"{type(error).__name__}: {error}"
        await self._building.advance(rebuild, "failed", epoch=0 if claim is None else claim.epoch, error=text)


def _behind(live: Mapping[str, int], own: Mapping[str, int]) -> int:
    return sum(max(0, position - own.get(log, 0)) for log, position in live.items())


async def _until(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
