"""The durable parts of the simulated system, the shipped code over them, and what must hold of them at any time."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from tests.kit import checkers
from tests.kit.checkers import Bucket, Tables, Trace, Violated
from tests.kit.history import History
from tests.simulation.faults import Chance, Process

from smartgrid_adapters.memory.checkpoints import MemoryCheckpoints, MemoryProjection
from smartgrid_adapters.memory.consumption import MemoryConsumption
from smartgrid_adapters.memory.data_keys import MemoryDataKeys
from smartgrid_adapters.memory.event_store import MemoryEventStore
from smartgrid_adapters.memory.readings import MemoryIdempotencyKeys, MemoryReadingStore
from smartgrid_adapters.memory.register import MemoryRegister, Revision
from smartgrid_adapters.memory.rollups import MemoryRollups
from smartgrid_adapters.sealing import KeySealer
from smartgrid_commands.ingestion import ReadingStore
from smartgrid_commands.ports import Effect, EffectRefused, EventStore
from smartgrid_commands.retracting import RegisteredReading, RetractionFiled
from smartgrid_projections.ports import Checkpoints, EventLog
from smartgrid_projections.projection import Projection
from smartgrid_projections.read_models.aggregates import AGGREGATES
from smartgrid_projections.read_models.consumption import CONSUMPTION
from smartgrid_projections.register import Key, SeriesName
from smartgrid_projections.runtime.runner import Pace, Runner
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event

LOG = "telemetry"
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
LEASE_S = 2.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TwinRegister(MemoryRegister):
    """The register of the reading store as folds see it."""

    def __init__(self, readings: MemoryReadingStore) -> None:
        super().__init__()
        self._twin = readings

    def follow(self) -> None:
        """Take over what was stored meanwhile."""
        for name, number in list(self._twin.series.items())[len(self.names) :]:
            subject, subject_id, measurand, phase = name
            made = self.id_of("sensor" if subject == "sensor" else "meter", SeriesName(subject_id, measurand, phase))
            assert made == number
        for key, stored in self._twin.register.items():
            known = self.revisions.setdefault(Key(*key), [])
            known += [
                Revision(one.mantissa, one.exponent, one.quality, UUID(bytes=one.event_id), one.position)
                for one in stored[len(known) :]
            ]

    def find(self, event_id: UUID) -> tuple[Key, bool] | None:
        """Return the natural key of a reading, and whether it is the newest of it."""
        self.follow()
        for key, revisions in self.revisions.items():
            for revision in revisions:
                if revision.event_id == event_id:
                    return key, revision is revisions[-1]
        return None


class Parts:
    """
    What the simulated system is made of: what is shipped. A planted bug overrides one method.

    Attributes:
        projections: What is folded.
        runner: The runtime.
    """

    projections: tuple[Projection[Any], ...] = (AGGREGATES, CONSUMPTION)
    runner: type[Runner[Any]] = Runner

    def store(self, world: "World") -> EventStore:
        """Return the log."""
        sealer = KeySealer(MemoryDataKeys(), b"m" * 32)
        return MemoryEventStore(now=world.now, carry_out=world.carry_out, sealer=sealer)

    def keys(self, world: "World") -> MemoryIdempotencyKeys:
        """Return where answers are kept."""
        return MemoryIdempotencyKeys(now=world.now)

    def readings(self, world: "World") -> MemoryReadingStore:
        """Return log and register of readings."""
        return MemoryReadingStore(world.store, world.keys)

    def recording(self, world: "World", process: Process) -> ReadingStore:
        """Return the same as *process* sees it."""
        _ = process
        return world.readings

    def log(self, world: "World") -> EventLog:
        """Return the log as projections read it."""
        return world.store

    def checkpoints(self, world: "World", stored: MemoryProjection[Any], owner: str) -> Checkpoints[Any]:
        """Return the checkpoints of a projection for one worker."""
        return MemoryCheckpoints(stored, owner=owner, monotonic=world.monotonic, lease_s=LEASE_S)

    def tables(self, name: str, register: MemoryRegister) -> Any:
        """Return the empty tables of a projection."""
        return MemoryRollups(register) if name == "aggregates" else MemoryConsumption(register)


class World:
    """
    Everything that outlives a process.

    Args:
        chance: Decides.
        parts: What it is made of.
        checks: The invariants to look at.
    """

    def __init__(self, chance: Chance, parts: Parts, checks: frozenset[str]) -> None:
        self.chance = chance
        self.parts = parts
        self.checks = checks
        self.history = History()
        self.keys: MemoryIdempotencyKeys = parts.keys(self)
        self.store: EventStore = parts.store(self)
        self.readings: MemoryReadingStore = parts.readings(self)
        self.register = TwinRegister(self.readings)
        self.log: list[Recorded[Event]] = []
        self.ghosts: list[asyncio.Task[Any]] = []
        self.stored = {
            one.name: MemoryProjection[Any](
                name=one.name, version=1, positions=dict.fromkeys(one.logs, 0), tables=self._tables(one)
            )
            for one in parts.projections
        }
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._folds: dict[str, list[Tables]] = {}
        self._folding = {one.name: self._tables(one) for one in parts.projections}
        self._traces: list[Trace] = []
        self._seen: dict[str, tuple[int, Tables]] = {}
        self._last: dict[str, Trace] = {}

    def _tables(self, projection: Projection[Any]) -> Any:
        return self.parts.tables(projection.name, self.register)

    def now(self) -> datetime:
        """Return the simulated time."""
        return BEGIN + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """Return the time since the beginning [s]."""
        return asyncio.get_running_loop().time()

    def pace(self) -> Pace:
        """Return how runners use time here."""
        draw = self.chance.draw
        return Pace(
            batch_events=draw.randrange(1, 6), poll_s=0.25, renew_s=0.4, jitter=draw.random, monotonic=self.monotonic
        )

    def carry_out(self, effects: Sequence[Effect]) -> None:
        """File retractions, as the real register does in the transaction of the append."""
        for effect in effects:
            assert isinstance(effect, RetractionFiled)
            found = self.register.find(effect.event_id)
            if found is None or not found[1] or effect.event_id in self.register.retracted:
                raise EffectRefused(effect, "reading_retractions_pkey")
            self.register.retracted[effect.event_id] = len(self.log) + 1

    async def reading(self, event_id: UUID) -> RegisteredReading | None:
        """Return what *event_id* stands for."""
        found = self.register.find(event_id)
        if found is None:
            return None
        key, newest = found
        subject, name = self.register.names[key.series_id]
        return RegisteredReading(
            subject=subject,
            subject_id=name.subject_id,
            measurand=name.measurand,
            phase=None if name.phase == "-" else name.phase,
            measured_at=EPOCH + timedelta(microseconds=key.measured_at_us),
            seq=None if key.seq == -1 else key.seq,
            newest=newest,
            retracted_at=self.register.retracted.get(event_id),
        )

    async def meter_of_decision(self, event_id: UUID) -> str | None:
        """Return none: nobody exchanges meters here."""
        _ = event_id
        return None

    async def look(self) -> None:
        """Check what has to hold after every step; what is found goes to :attr:`broken`, not to who took the step."""
        try:
            await self._read_on()
            for name, stored in self.stored.items():
                if self.checks:
                    await self._look_at(name, stored)
        except Violated as violated:
            self._found(violated)

    def _found(self, violated: Violated) -> None:
        if not self.broken.done():
            self.broken.set_exception(violated)

    async def _read_on(self) -> None:
        new = await self.store.read_log(LOG, after=len(self.log))
        if not new:
            return
        self.log += new
        self.register.follow()
        if "I4" in self.checks:
            checkers.in_order(self.log)
        if "I2" in self.checks:
            checkers.no_phantom(self.history, self.log)

    async def _look_at(self, name: str, stored: MemoryProjection[Any]) -> None:
        trace = Trace(name, stored.epoch, dict(stored.positions))
        if "I5" in self.checks and (not self._traces or trace != self._last.get(name)):
            self._traces.append(trace)
            checkers.never_back(self._traces[-200:])
        self._last[name] = trace
        if stored.lock.locked():
            return  # someone is in the middle of a transaction
        rows = rows_of(stored.tables)
        position = stored.positions[LOG]
        if self._seen.get(name) == (position, rows):
            return
        self._seen[name] = position, rows
        if "I6" in self.checks:
            checkers.is_fold(name, position, rows, await self.fold(name, position))
        if "I3" in self.checks:
            checkers.one_effect(self.history, self.log[:position], self.counted(stored.tables, name))

    def claimed(self, name: str) -> None:
        """Note that someone claimed a projection."""
        stored = self.stored[name]
        trace = Trace(name, stored.epoch, dict(stored.positions), claimed=True)
        self._traces.append(trace)
        self._last[name] = trace
        if "I5" in self.checks:
            try:
                checkers.never_back(self._traces[-200:])
            except Violated as violated:
                self._found(violated)

    def counted(self, tables: Any, name: str) -> Mapping[Bucket, tuple[int, int]] | None:
        """Return number and sum of each quarter of an hour that holds readings."""
        if name != "aggregates":
            return None
        rollups: MemoryRollups = tables
        names = {series: name for series, (_, name) in self.register.names.items()}
        return {
            (names[series].subject_id, names[series].measurand, names[series].phase, start): (row.n, row.s)
            for (level, series, start), row in rollups.rows.items()
            if level == 0 and row.n
        }

    async def fold(self, name: str, position: int) -> Tables:
        """Return the rows that the events up to *position* make, folded one by one."""
        projection = next(one for one in self.parts.projections if one.name == name)
        folds = self._folds.setdefault(name, [rows_of(self._folding[name])])
        while len(folds) <= position and len(folds) <= len(self.log):
            await projection.project([self.log[len(folds) - 1]], self._folding[name])
            folds.append(rows_of(self._folding[name]))
        return folds[min(position, len(folds) - 1)]

    async def look_at_the_end(self) -> None:
        """Check what has to hold when nothing disturbs any more and all had time."""
        await self.look()
        if self.broken.done():
            self.broken.result()
        if "I1" in self.checks:
            checkers.no_lost_ack(self.history, self.log)
        for name, stored in self.stored.items():
            if "I7" in self.checks:
                rebuilt = await self.fold(name, len(self.log))
                checkers.converged(name, stored.positions[LOG], len(self.log), rows_of(stored.tables), rebuilt)


def rows_of(tables: object) -> Tables:
    """Return the rows of memory tables as bytes."""
    found: dict[str, Any] = {name: rows for name, rows in vars(tables).items() if isinstance(rows, dict)}
    return {name: repr(sorted(rows.items())).encode() for name, rows in found.items()}
