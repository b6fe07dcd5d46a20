"""Bugs of the log, of ingestion and of kept answers; see :mod:`tests.simulation.planted`."""

import asyncio
import contextvars
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from msgspec.structs import replace
from tests.simulation.faults import Process
from tests.simulation.world import Parts, World

from smartgrid_adapters.memory.data_keys import MemoryDataKeys
from smartgrid_adapters.memory.event_store import MemoryEventStore
from smartgrid_adapters.memory.readings import MemoryIdempotencyKeys, MemoryReadingStore
from smartgrid_adapters.sealing import KeySealer
from smartgrid_commands.ingestion import ReadingStore
from smartgrid_commands.ports import Appended, Effect, EventStore, OutcomeUnknown, StoreUnavailable, StreamWrite
from smartgrid_commands.reading_calls import ACCEPTED, CONFLICT, Call, Lease, Many
from smartgrid_commands.reading_flush import Plan
from smartgrid_projections.ports import EventLog

_answering: contextvars.ContextVar[Process | None] = contextvars.ContextVar("answering", default=None)


class _Before:
    """Stands before a reading store and knows who asks."""

    def __init__(self, world: World, process: Process) -> None:
        self.inner = world.readings
        self.process = process

    async def record(self, call: Call) -> None:
        _answering.set(self.process)
        await self.inner.record(call)

    async def recorded_at(self, position: int) -> datetime:
        return await self.inner.recorded_at(position)


# the log -------------------------------------------------------------------------------------------------------------


class _Store(MemoryEventStore):
    """A log to break."""

    def __init__(self, world: World) -> None:
        sealer = KeySealer(MemoryDataKeys(), b"m" * 32)
        super().__init__(now=world.now, carry_out=world.carry_out, sealer=sealer)
        self.world = world


class AckBeforeCommit(Parts):
    """The answer goes out while the commit waits in the memory of the process that answered."""

    def readings(self, world: World) -> MemoryReadingStore:
        class Early(MemoryReadingStore):
            async def _write(self, commit: Plan) -> None:
                process = _answering.get()
                for call in commit.calls:
                    call.first_position, call.recorded_at = len(world.log) + 1, world.now()

                async def later() -> None:
                    await asyncio.sleep(0.02)
                    if process is None or not process.dead:
                        await super(Early, self)._write(commit)
                        await world.look()

                world.ghosts.append(asyncio.create_task(later()))

        return Early(world.store, world.keys)

    def recording(self, world: World, process: Process) -> ReadingStore:
        return _Before(world, process)


class PositionFromSequence(Parts):
    """Positions come from a counter that knows of no rollback."""

    def store(self, world: World) -> EventStore:
        class Counting(_Store):
            taken = 0

            def _rows(self, there: Any, writes: Sequence[StreamWrite], commit_id: UUID) -> Any:
                first = self.taken + 1
                self.taken += sum(len(write.events) for write in writes)
                rows = super()._rows(there, writes, commit_id)
                return [replace(row, position=first + index) for index, row in enumerate(rows)]

        return Counting(world)


class AppendWithoutLock(Parts):
    """The versions of streams are read before the turn to append has come."""

    def store(self, world: World) -> EventStore:
        class Hasty(_Store):
            async def append(
                self,
                log: str,
                writes: Sequence[StreamWrite],
                *,
                commit_id: UUID | None = None,
                effects: Sequence[Effect] = (),
            ) -> Appended:
                there: Any = vars(self)["_logs"][log]
                versions = dict(there.versions)
                if len(writes) == 1 and not effects:
                    await world.chance.wait()
                now, there.versions = there.versions, versions
                try:
                    appended = await super().append(log, writes, commit_id=commit_id, effects=effects)
                except BaseException:
                    there.versions = now
                    raise
                mine = {write.stream: max(versions[write.stream], now.get(write.stream, 0)) for write in writes}
                there.versions = {**now, **mine}
                return appended

        return Hasty(world)


class CommitIdNotChecked(Parts):
    """A repeat of a commit is one more commit."""

    def store(self, world: World) -> EventStore:
        class Forgetful(_Store):
            async def append(
                self,
                log: str,
                writes: Sequence[StreamWrite],
                *,
                commit_id: UUID | None = None,
                effects: Sequence[Effect] = (),
            ) -> Appended:
                _ = commit_id
                return await super().append(log, writes, commit_id=uuid4(), effects=effects)

        return Forgetful(world)


class CommitRowInSecondTransaction(Parts):
    """The commit id is stored after its events, and is lost when the connection breaks in between."""

    def store(self, world: World) -> EventStore:
        class Twofold(_Store):
            async def append(
                self,
                log: str,
                writes: Sequence[StreamWrite],
                *,
                commit_id: UUID | None = None,
                effects: Sequence[Effect] = (),
            ) -> Appended:
                commits: dict[UUID, Appended] = vars(self)["_logs"][log].commits
                known = commit_id in commits
                appended = await super().append(log, writes, commit_id=commit_id, effects=effects)
                if commit_id is not None and not known and world.chance.happens("unknown"):
                    del commits[commit_id]
                    raise OutcomeUnknown("the connection broke")
                return appended

        return Twofold(world)


class HalfACaller(Parts):
    """A flush that fails leaves the first event of one caller behind."""

    def store(self, world: World) -> EventStore:
        class Torn(_Store):
            async def append(
                self,
                log: str,
                writes: Sequence[StreamWrite],
                *,
                commit_id: UUID | None = None,
                effects: Sequence[Effect] = (),
            ) -> Appended:
                if len(writes) > 1 and world.chance.happens("unavailable"):
                    await super().append(log, writes[:-1])
                    raise StoreUnavailable("the connection broke")
                return await super().append(log, writes, commit_id=commit_id, effects=effects)

        return Torn(world)


class ConflictAnsweredAsStored(Parts):
    """Another value for a key that is taken is answered with 201."""

    def recording(self, world: World, process: Process) -> ReadingStore:
        class Agreeable(_Before):
            async def record(self, call: Call) -> None:
                await super().record(call)
                if isinstance(call, Many):
                    call.state[call.state == CONFLICT] = ACCEPTED

        return Agreeable(world, process)


class IdempotencyRecordApart(Parts):
    """The answer of a key is kept in a transaction of its own, after that of the events."""

    def keys(self, world: World) -> MemoryIdempotencyKeys:
        class Apart(MemoryIdempotencyKeys):
            def finish(self, lease: Lease, answer: bytes, first_position: int) -> None:
                if world.chance.happens("unknown"):
                    kept: dict[Any, Any] = vars(self)["_kept"]
                    kept.pop((lease.principal, lease.key_hash), None)
                else:
                    super().finish(lease, answer, first_position)

        return Apart(now=world.now)


class ReadBeforeListen(Parts):
    """Who waits for news misses those that came since it last read, and does not look by itself."""

    def log(self, world: World) -> EventLog:
        class Late:
            read_log = world.store.read_log
            head = world.store.head

            async def wait_for(self, log: str, position: int, *, timeout_s: float) -> bool:
                _ = position, timeout_s
                return await world.store.wait_for(log, await world.store.head(log) + 1, timeout_s=1e9)

        return Late()
