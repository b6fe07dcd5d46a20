"""Looks after the versions of one projection: the one in use, the one being built, the one to return to."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from smartgrid_projections.ports import Unavailable
from smartgrid_projections.runtime.rebuild import Rebuilder
from smartgrid_projections.runtime.runner import Pace, Runner, Stopped
from smartgrid_projections.versions import FED, Building, RebuildConflict, Version

log = structlog.get_logger("smartgrid.worker")

LOOK_S = 0.25
"""Time between two looks at the versions of a projection [s]."""

RunnerOf = Callable[[int, Pace | None], Runner[Any]]
"""Makes what folds a version."""


class Tending:
    """
    One worker's part in all versions of one projection.

    Args:
        name: The projection.
        building: Their states.
        runner_of: Makes what folds one of them; another worker may have it already.
        fold: Writes all rows up to a position into empty tables; None if only batches do.
    """

    def __init__(
        self,
        name: str,
        building: Building,
        runner_of: RunnerOf,
        fold: Callable[[Any, int], Awaitable[None]] | None = None,
    ) -> None:
        self._name = name
        self._building = building
        self._runner_of = runner_of
        self._fold = fold
        self._tasks: dict[tuple[int, bool], tuple[asyncio.Task[None], asyncio.Event]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Fold and build until *stop* is set; then finish the batches in hand."""
        try:
            while not stop.is_set():
                try:
                    await self._look()
                except Unavailable as error:
                    log.warning("versions_unknown", projection=self._name, error=str(error))
                await _until(stop, LOOK_S)
        except BaseException:
            for task, _ in self._tasks.values():
                task.cancel()
            await asyncio.gather(*(task for task, _ in self._tasks.values()), return_exceptions=True)
            raise
        await self._end(list(self._tasks))

    async def _look(self) -> None:
        versions = await self._building.versions(self._name)
        wanted = {(one.version, one.state in FED): one for one in versions}
        await self._end([key for key in self._tasks if key not in wanted])
        for key, one in wanted.items():
            if key in self._tasks and self._tasks[key][0].done():
                await self._end([key])
                if one.error is not None:
                    continue
            if key not in self._tasks and one.error is None:
                stop = asyncio.Event()
                self._tasks[key] = (asyncio.create_task(self._work(one, stop)), stop)
        for one in versions:
            if one.state == "ready" and one.auto_switch and one.rebuild_id is not None:
                try:
                    await self._building.switch(self._name, one.rebuild_id)
                except RebuildConflict as error:  # behind for now, or someone was faster
                    log.info("switch_waits", projection=self._name, reason=str(error))
        await self._building.sweep(self._name)

    def _work(self, one: Version, stop: asyncio.Event) -> Coroutine[Any, Any, None]:
        if one.state in FED:
            return self._feed(one.version, stop)
        if one.rebuild_id is None:
            return asyncio.sleep(0)  # its rebuild has ended since
        # A rebuild stops at the first error: nobody waits for it, and what is in use stays as it is.
        runner = self._runner_of(one.version, Pace(attempts=1))
        return Rebuilder(runner, self._building, name=self._name, rebuild_id=one.rebuild_id, fold=self._fold).run(stop)

    async def _feed(self, version: int, stop: asyncio.Event) -> None:
        try:
            await self._runner_of(version, None).run(stop)
        except Stopped as error:
            log.error("projection_stopped", projection=self._name, version=version, error=str(error))  # noqa: TRY400  # logged with its trace before

    async def _end(self, keys: list[tuple[int, bool]]) -> None:
        ending = [self._tasks.pop(key) for key in keys]
        for _, stop in ending:
            stop.set()
        for task, _ in ending:
            await task


async def _until(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
