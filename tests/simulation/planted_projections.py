"""Bugs of the projection runtime and of folds; see :mod:`tests.simulation.planted`."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace
from tests.simulation.world import LEASE_S, LOG, Parts, World

from smartgrid_adapters.memory.checkpoints import MemoryCheckpoints, MemoryProjection
from smartgrid_adapters.memory.register import MemoryRegister
from smartgrid_adapters.memory.rollups import MemoryRollups
from smartgrid_domain.maths.quantities import Ints
from smartgrid_domain.maths.rollups import Rollups
from smartgrid_projections.ports import Checkpoints, Claim, Move, Unavailable
from smartgrid_projections.projection import Projection
from smartgrid_projections.read_models.aggregates import AGGREGATES, Keys
from smartgrid_projections.read_models.consumption import CONSUMPTION
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.telemetry import ReadingsRecorded


class _Checkpoints(MemoryCheckpoints[Any]):
    """Checkpoints to break."""

    def __init__(self, world: World, stored: MemoryProjection[Any], owner: str) -> None:
        super().__init__(stored, owner=owner, monotonic=world.monotonic, lease_s=LEASE_S)
        self.world = world
        self.state = stored


class CheckpointBeforeRows(Parts):
    """The checkpoint is committed when a step begins."""

    def checkpoints(self, world: World, stored: MemoryProjection[Any], owner: str) -> Checkpoints[Any]:
        class Eager(_Checkpoints):
            @asynccontextmanager
            async def step(self, claim: Claim, move: Move) -> AsyncGenerator[Any]:
                async with super().step(claim, move) as tables:
                    self.state.positions[move.log] = move.new
                    yield tables

        return Eager(world, stored, owner)


class CheckpointInAnotherTransaction(Parts):
    """The rows are committed, then the checkpoint, unless the connection breaks."""

    def checkpoints(self, world: World, stored: MemoryProjection[Any], owner: str) -> Checkpoints[Any]:
        class Twofold(_Checkpoints):
            @asynccontextmanager
            async def step(self, claim: Claim, move: Move) -> AsyncGenerator[Any]:
                async with super().step(claim, move) as tables:
                    yield tables
                if world.chance.happens("unknown"):
                    self.state.positions[move.log] = move.old
                    raise Unavailable("the connection broke")

        return Twofold(world, stored, owner)


class CheckpointWithoutCompare(Parts):
    """Whoever steps, from wherever, moves the checkpoint."""

    def checkpoints(self, world: World, stored: MemoryProjection[Any], owner: str) -> Checkpoints[Any]:
        class Blind(_Checkpoints):
            @asynccontextmanager
            async def step(self, claim: Claim, move: Move) -> AsyncGenerator[Any]:
                now = replace(claim, epoch=self.state.epoch)
                was = replace(move, old=self.state.positions[move.log])
                async with super().step(now, was) as tables:
                    yield tables

        return Blind(world, stored, owner)


class EpochNotRaised(Parts):
    """A takeover goes on under the epoch of the one before."""

    def checkpoints(self, world: World, stored: MemoryProjection[Any], owner: str) -> Checkpoints[Any]:
        class Same(_Checkpoints):
            async def claim(self) -> Claim | None:
                claim = await super().claim()
                if claim is None or claim.epoch == 1:
                    return claim
                self.state.epoch -= 1
                return replace(claim, epoch=self.state.epoch)

        return Same(world, stored, owner)


class FailingEventSkipped(Parts):
    """A batch that cannot be folded is passed over."""

    def __init__(self) -> None:
        async def project(batch: Sequence[Recorded[Event]], tables: Any) -> None:
            try:
                await AGGREGATES.project(batch, tables)
            except Unavailable:
                return

        self.projections = (Projection(name="aggregates", version=1, logs=(LOG,), project=project), CONSUMPTION)


class LateReadingOverwrites(Parts):
    """A bucket that is not the newest of its series begins anew when a reading comes late."""

    def tables(self, name: str, register: MemoryRegister) -> Any:
        return _OverwritingRollups(register) if name == "aggregates" else super().tables(name, register)


class _OverwritingRollups(MemoryRollups):
    def __deepcopy__(self, memo: dict[int, Any]) -> MemoryRollups:
        return _OverwritingRollups(self.register, dict(self.rows), dict(self.intervals))

    def _load(self, level: int, wanted: Keys) -> tuple[Rollups, Ints]:
        newest: dict[int, int] = {}
        for at, series, start in self.rows:
            if at == level:
                newest[series] = max(start, newest.get(series, start))
        hidden = {
            key: self.rows.pop(key)
            for key in list(self.rows)
            if key[0] == level and key[2] < newest[key[1]] and key[2] in set(wanted.start_us.tolist())
        }
        found = super()._load(level, wanted)
        self.rows.update(hidden)
        return found


class CorrectionAdded(Parts):
    """A correction counts beside what it corrects."""

    def __init__(self) -> None:
        async def project(batch: Sequence[Recorded[Event]], tables: Any) -> None:
            await AGGREGATES.project([replace(recorded, event=_plain(recorded.event)) for recorded in batch], tables)

        self.projections = (Projection(name="aggregates", version=1, logs=(LOG,), project=project), CONSUMPTION)


def _plain(event: Event) -> Event:
    return replace(event, corrects=None) if isinstance(event, ReadingsRecorded) else event


class RowsOutsideTheStep(Parts):
    """Settings are written on another connection, so a step that fails does not take them back."""

    def tables(self, name: str, register: MemoryRegister) -> Any:
        return _LeakingRollups(register) if name == "aggregates" else super().tables(name, register)


class _LeakingRollups(MemoryRollups):
    def __deepcopy__(self, memo: dict[int, Any]) -> MemoryRollups:
        return _LeakingRollups(self.register, dict(self.rows), self.intervals)
