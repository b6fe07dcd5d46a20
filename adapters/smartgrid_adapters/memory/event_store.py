"""The event store in memory: the model that others are compared to, and for tests without a database."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from msgspec import Struct

from smartgrid_adapters.postgres.codec import CODEC, Codec, UndecodableEvent, encode
from smartgrid_commands.ports import ANY_VERSION, Appended, Effect, StreamWrite, WrongExpectedVersion
from smartgrid_commands.sealing import Sealer
from smartgrid_schemas.envelope import LOGS, Metadata, Recorded, event_id_of
from smartgrid_schemas.event import Event
from smartgrid_schemas.privacy import personal_fields
from smartgrid_schemas.registry import name_of


class _Row(Struct, frozen=True):
    position: int
    stream: str
    version: int
    event_id: UUID
    recorded_at: datetime
    metadata: Metadata
    name: str
    state: bytes


class _Log:
    def __init__(self) -> None:
        self.rows: list[_Row] = []
        self.versions: dict[str, int] = {}
        self.commits: dict[UUID, Appended] = {}
        self.fence = datetime.min.replace(tzinfo=UTC)
        self.waiting: list[tuple[int, asyncio.Future[None]]] = []


class MemoryEventStore:
    """
    Everything the real store guarantees, but durability; fulfils ``LogTimes`` too.

    Args:
        sealer: Seals personal fields; without one, events that have some are refused.
        now: The clock.
        carry_out: Gets the effects of an append right before it is stored; writes all or none of them, and raises
            ``EffectRefused`` to refuse the append.
        codec: Reads events.
    """

    def __init__(
        self,
        *,
        sealer: Sealer | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        carry_out: Callable[[Sequence[Effect]], None] | None = None,
        codec: Codec = CODEC,
    ) -> None:
        self._codec = codec
        self._sealer = sealer
        self._now = now
        self._carry_out = carry_out
        self._logs = {log: _Log() for log in LOGS}

    async def start(self) -> None:
        """Do nothing: there is nobody to listen to."""

    async def stop(self) -> None:
        """Do nothing."""

    async def append(
        self,
        log: str,
        writes: Sequence[StreamWrite],
        *,
        commit_id: UUID | None = None,
        effects: Sequence[Effect] = (),
    ) -> Appended:
        commit_id = commit_id or uuid4()
        events = [event for write in writes for event in write.events]
        if not events:
            raise ValueError("an append has at least one event")
        if any(personal_fields(type(event)) for event in events):
            if self._sealer is None:
                raise ValueError("personal fields need a sealer")
            await self._sealer.prepare(events)
        there = self._logs[log]
        if known := there.commits.get(commit_id):
            return known
        rows = self._rows(there, writes, commit_id)
        if effects:
            if self._carry_out is None:
                raise ValueError("effects need a function that carries them out")
            self._carry_out(effects)
        appended = Appended(
            first_position=rows[0].position, last_position=rows[-1].position, recorded_at=rows[0].recorded_at
        )
        there.rows += rows
        there.versions.update({row.stream: row.version for row in rows})
        there.commits[commit_id] = appended
        _wake(there)
        return appended

    def _rows(self, there: _Log, writes: Sequence[StreamWrite], commit_id: UUID) -> list[_Row]:
        last = there.rows[-1].recorded_at if there.rows else datetime.min.replace(tzinfo=UTC)
        recorded_at = max(last, there.fence + timedelta(microseconds=1), self._now())
        versions: dict[str, int] = {}
        rows: list[_Row] = []
        for write in writes:
            version = versions.get(write.stream, there.versions.get(write.stream, 0))
            if write.expected_version not in (ANY_VERSION, version):
                raise WrongExpectedVersion(write.stream, write.expected_version)
            for event in write.events:
                version += 1
                event_id = event_id_of(write.stream, commit_id, len(rows))
                sealed = self._sealer.seal(event, stream=write.stream, event_id=event_id) if self._sealer else event
                rows.append(
                    _Row(
                        position=len(there.rows) + len(rows) + 1,
                        stream=write.stream,
                        version=version,
                        event_id=event_id,
                        recorded_at=recorded_at,
                        metadata=write.metadata,
                        name=name_of(event),
                        state=encode(sealed),
                    )
                )
            versions[write.stream] = version
        return rows

    async def read_stream(self, log: str, stream: str, *, after: int = 0) -> list[Recorded[Event]]:
        rows = self._logs[log].rows
        return _recorded(self._codec, log, [row for row in rows if row.stream == stream and row.version > after])

    async def read_log(
        self, log: str, *, after: int = 0, limit: int = 1000, up_to: int | None = None
    ) -> list[Recorded[Event]]:
        return _recorded(self._codec, log, self._logs[log].rows[after:up_to][:limit])

    async def head(self, log: str) -> int:
        return len(self._logs[log].rows)

    async def wait_for(self, log: str, position: int, *, timeout_s: float) -> bool:
        there = self._logs[log]
        if len(there.rows) >= position:
            return True
        grown: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        there.waiting.append((position, grown))
        try:
            async with asyncio.timeout(timeout_s):
                await grown
        except TimeoutError:
            pass  # told below
        finally:
            there.waiting = [one for one in there.waiting if one[1] is not grown]
        return len(there.rows) >= position

    async def position_at(self, log: str, at: datetime) -> int | None:
        if at > self._now():
            return None
        there = self._logs[log]
        there.fence = max(there.fence, at)
        return sum(row.recorded_at <= at for row in there.rows)

    async def recorded_at(self, log: str, position: int) -> datetime | None:
        rows = self._logs[log].rows
        return rows[position - 1].recorded_at if 0 < position <= len(rows) else None


def _wake(there: _Log) -> None:
    """Wake up who waited for what is there; an append that has stored something does not pause before it returns."""
    waiting, there.waiting = there.waiting, []
    for position, future in waiting:
        if len(there.rows) < position:
            there.waiting.append((position, future))
        elif not future.done():
            future.set_result(None)


def _recorded(codec: Codec, log: str, rows: Sequence[_Row]) -> list[Recorded[Event]]:
    events: list[Recorded[Event]] = []
    for row in rows:
        try:
            event = codec.decode(row.name, row.state)
        except UndecodableEvent as error:
            if events:
                break
            raise error.at(log, row.position, row.stream) from error
        events.append(
            Recorded(
                log=log,
                position=row.position,
                stream=row.stream,
                version=row.version,
                event_id=row.event_id,
                recorded_at=row.recorded_at,
                metadata=row.metadata,
                event=event,
                stored_as=codec.stored_as(row.name),
            )
        )
    return events
