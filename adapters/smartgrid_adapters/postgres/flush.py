"""Readings into the log and the register, many callers in one commit."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import numpy as np
import psycopg
from msgspec import Struct

from smartgrid_adapters.postgres import fixed_arrays
from smartgrid_adapters.postgres.arrays import BigintArray, BytesArray, EventRow, TextArray
from smartgrid_adapters.postgres.codec import encode, encode_metadata
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.fixed_arrays import EPOCH_2000_US, CopyRows, Instants, Int2s, Int4s, Int8s, Uuids
from smartgrid_adapters.postgres.log_writer import Begun, copy_events, versions_of
from smartgrid_adapters.postgres.pool import Connection, Pool
from smartgrid_adapters.postgres.register import Register
from smartgrid_commands.ports import ANY_VERSION, OutcomeUnknown, StoreUnavailable
from smartgrid_commands.reading_calls import Call, LeaseLost, Many, Receipts, replaced_by, settle_place
from smartgrid_commands.reading_flush import Plan, plan
from smartgrid_commands.reading_rows import Owner
from smartgrid_commands.sealing import Sealer
from smartgrid_schemas.envelope import event_id_of
from smartgrid_schemas.event import Event
from smartgrid_schemas.metering import MeterRegistered
from smartgrid_schemas.registry import name_of

LOG: Final = "telemetry"
FLUSH_ROWS: Final = 5_000
"""Callers join one flush up to this many readings; a larger one has its own."""

FUNCTION_ROWS: Final = 200
"""Up to this many readings go in one function call, more by COPY."""

QUEUE_ROWS: Final = 200_000
"""More waiting readings than this are refused."""

ATTEMPTS: Final = 20
WATCHFUL: Final = 8
"""After a collision this many flushes look keys up before they write."""

_RECORD = (
    "SELECT status, first_position, recorded_at, conflict_stream FROM record_readings("
    "%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)
_FINISH = "SELECT idempotency_finish(%s, %s, %s, %s, %s, %s)"
_COPY = (
    "COPY reading_register (series_id, measured_at, seq, revision, mantissa, exponent, quality, event_id, position) "
    "FROM STDIN (FORMAT BINARY)"
)
_REGISTER_ROWS = CopyRows(
    (
        ("series_id", ">i4"),
        ("measured_at", ">i8"),
        ("seq", ">i8"),
        ("revision", ">i2"),
        ("mantissa", ">i8"),
        ("exponent", ">i2"),
        ("quality", ">i2"),
        ("event_id", "V16"),
        ("position", ">i8"),
    )
)
_LEASE_LOST: Final = "SGL01"


class _Sighted(Exception):
    """A stream that should begin in this commit is there already."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.stream = stream


class _Written(Struct, frozen=True):
    first_position: int
    recorded_at: datetime | None


class PostgresReadingStore:
    """
    Fulfils ``ReadingStore`` over the telemetry log of *store*.

    Args:
        pool: Connections for look-ups.
        store: The event store whose log and connection it writes to.
        sealer: Seals the customers of new meters.
    """

    def __init__(self, pool: Pool, store: PostgresEventStore, *, sealer: Sealer | None = None) -> None:
        self.register = Register(pool)
        self._writer = store.writer
        self._announce = store.tail.announce
        self._sealer = sealer
        self._queue: deque[tuple[Call, asyncio.Future[None]]] = deque()
        self._open: set[asyncio.Future[None]] = set()
        self._rows_waiting = 0
        self._wake = asyncio.Event()
        self._flusher: asyncio.Task[None] | None = None
        self._watchful = 0
        self._receipts = Receipts()
        others = self._writer.on_down

        def on_down(log: str) -> None:
            self._on_down(log, others)

        self._writer.on_down = on_down

    async def record(self, call: Call) -> None:
        if self._rows_waiting > QUEUE_ROWS:
            raise StoreUnavailable("too many readings are waiting")
        await self.register.prepare(call)
        settle_place(call)
        self._receipts.settle(call)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open.add(done)
        done.add_done_callback(self._open.discard)
        self._queue.append((call, done))
        self._rows_waiting += call.rows
        self._wake.set()
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush_forever(), name="flush readings")
        await done

    @property
    def busy(self) -> bool:
        """Whether a call waits or is being stored."""
        return bool(self._open)

    async def recorded_at(self, position: int) -> datetime:
        return await self.register.recorded_at(position)

    async def stop(self) -> None:
        """End the flusher once all that waits is answered."""
        while self._open:
            await asyncio.wait(self._open)
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
            self._flusher = None

    def _on_down(self, log: str, others: Callable[[str], None] | None) -> None:
        if others is not None:
            others(log)
        if log == LOG:
            while self._queue:
                _, done = self._queue.popleft()
                _settle(done, StoreUnavailable("no connection to PostgreSQL"))
            self._rows_waiting = 0

    def _take(self) -> list[tuple[Call, asyncio.Future[None]]]:
        taken: list[tuple[Call, asyncio.Future[None]]] = []
        rows = 0
        while self._queue:
            rows += self._queue[0][0].rows
            if taken and rows > FLUSH_ROWS:
                break
            call, done = self._queue.popleft()
            self._rows_waiting -= call.rows
            if not done.done():  # not cancelled meanwhile
                taken.append((call, done))
        return taken

    async def _flush_forever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._gather()
                if taken := self._take():
                    await self._flush(taken)

    async def _gather(self) -> None:
        """Let calls join that are in the house already: while each turn of the loop brings one, fewer commits do."""
        waiting = 0
        while waiting < len(self._queue) and self._rows_waiting < FLUSH_ROWS:
            waiting = len(self._queue)
            await asyncio.sleep(0)

    async def _flush(self, taken: Sequence[tuple[Call, asyncio.Future[None]]]) -> None:
        waiting = dict(taken)
        try:
            await self._store(waiting)
        except (StoreUnavailable, OutcomeUnknown) as error:
            for done in waiting.values():
                _settle(done, type(error)(*error.args))
        except Exception as error:  # noqa: BLE001  # whatever it is, its caller gets it
            if len(waiting) == 1:
                _settle(next(iter(waiting.values())), error)
            else:  # one of them is at fault, and only it shall suffer
                for pair in list(waiting.items()):
                    await self._flush([pair])
        except BaseException:
            for done in waiting.values():
                _settle(done, OutcomeUnknown("the store stopped meanwhile"))
            raise

    async def _store(self, waiting: dict[Call, asyncio.Future[None]]) -> None:
        """Store what waits; calls are settled and taken out as their fate is known."""
        look = self._watchful > 0
        collisions = 0
        while waiting:
            calls = list(waiting)
            if look or replaced_by(calls):
                await self._judge(calls)
            commit = plan(calls)
            try:
                written = await self._write(commit)
            except _Sighted as sighted:
                self._learn(sighted.stream, calls)
            except psycopg.errors.UniqueViolation:
                collisions += 1
                if collisions > ATTEMPTS:
                    raise
                look = True
                self._watchful = WATCHFUL
            except psycopg.Error as error:
                if error.sqlstate != _LEASE_LOST:
                    raise
                _refuse_holder(waiting, UUID(error.diag.message_detail or ""))
            else:
                self.register.saw(commit.owners)
                for call in commit.calls:
                    call.first_position, call.recorded_at = written.first_position, written.recorded_at
                    _settle(waiting.pop(call), None)
                look = True  # those left have keys of this commit

    async def _judge(self, calls: Sequence[Call]) -> None:
        for call in calls:
            call.forget()
        if await self.register.judge(calls):
            self._watchful = WATCHFUL
        elif self._watchful:
            self._watchful -= 1

    def _learn(self, stream: str, calls: Sequence[Call]) -> None:
        """Note that another process registered the owner of *stream* first."""
        subject, _, key = stream.partition(":")
        owner: Owner = ("sensor" if subject == "sensor" else "meter", key)
        self.register.saw([owner])
        for call in calls:
            if isinstance(call, Many):
                call.unknown -= {owner}
            elif call.source.owner == owner:
                call.unknown = False

    async def _write(self, commit: Plan) -> _Written:
        commit_id = uuid4()
        leases = _leases(commit)
        if not commit.events:
            if leases is None:
                return _Written(0, None)
            return await self._write_answers(leases)
        rows = await self._event_rows(commit, commit_id)
        if len(commit.series) <= FUNCTION_ROWS:
            return await self._write_at_once(commit, commit_id, rows, leases)
        return await self._write_by_copy(commit, commit_id, rows, leases)

    async def _event_rows(self, commit: Plan, commit_id: UUID) -> list[EventRow]:
        personal = [planned.event for planned in commit.events if isinstance(planned.event, MeterRegistered)]
        if personal and self._sealer is not None:
            await self._sealer.prepare(personal)
        rows: list[EventRow] = []
        for index, (stream, event, metadata, first) in enumerate(commit.events):
            sealed: Event = event
            if self._sealer is not None and isinstance(event, MeterRegistered):
                sealed = self._sealer.seal(event, stream=stream, event_id=event_id_of(stream, commit_id, index))
            version = 1 if first else ANY_VERSION
            rows.append(EventRow(stream, version, name_of(sealed), encode(sealed), encode_metadata(metadata)))
        return rows

    async def _write_answers(self, leases: "_Leases") -> _Written:
        async def unit(conn: Connection, sending: Callable[[], None]) -> None:
            fixed_arrays.register(conn)
            sending()
            await conn.execute(_FINISH, (*leases.arrays(), 0, None))

        await self._writer.run(LOG, unit)
        return _Written(0, None)

    async def _write_at_once(
        self, commit: Plan, commit_id: UUID, rows: Sequence[EventRow], leases: "_Leases | None"
    ) -> _Written:
        streams, versions, topics, states, metadata = zip(*rows, strict=True)
        parameters = (
            commit_id,
            TextArray.of(streams),
            BigintArray.of(versions),
            TextArray.of(topics),
            BytesArray.of(states),
            BytesArray.of(metadata),
            Int4s(commit.event),
            Int4s(commit.series),
            Instants(commit.measured_at),
            Int8s(commit.seq),
            Int2s(commit.revision),
            Int8s(commit.mantissa),
            Int2s(commit.exponent),
            Int2s(commit.quality),
            Uuids(commit.ids),
            *(leases or _NO_LEASES).arrays(),
        )

        async def unit(conn: Connection, sending: Callable[[], None]) -> tuple[Any, ...]:
            fixed_arrays.register(conn)
            sending()
            cursor = await conn.execute(_RECORD, parameters, prepare=True)
            return (await cursor.fetchall())[0]

        status, first, recorded_at, stream = await self._writer.run(LOG, unit)
        if status == "conflict":
            raise _Sighted(stream)
        self._announce(LOG, first + len(rows) - 1)
        return _Written(first, recorded_at)

    async def _write_by_copy(
        self, commit: Plan, commit_id: UUID, rows: Sequence[EventRow], leases: "_Leases | None"
    ) -> _Written:
        streams = list(dict.fromkeys(row.stream for row in rows))

        async def body(conn: Connection, begun: Begun) -> None:
            versions = await versions_of(conn, LOG, streams)
            numbered: list[EventRow] = []
            for row in rows:
                versions[row.stream] += 1
                if row.version not in (ANY_VERSION, versions[row.stream]):
                    raise _Sighted(row.stream)
                numbered.append(row._replace(version=versions[row.stream]))
            await copy_events(conn, begun, numbered)
            async with conn.cursor() as cursor, cursor.copy(_COPY) as copy:
                await copy.write(
                    _REGISTER_ROWS.of(
                        series_id=commit.series,
                        measured_at=commit.measured_at - EPOCH_2000_US,
                        seq=commit.seq,
                        revision=commit.revision,
                        mantissa=commit.mantissa,
                        exponent=commit.exponent,
                        quality=commit.quality,
                        event_id=np.ascontiguousarray(commit.ids).view("V16").reshape(-1),
                        position=commit.event + begun.base + 1,
                    )
                )
            if leases is not None:
                fixed_arrays.register(conn)
                await conn.execute(_FINISH, (*leases.arrays(), begun.base + 1, None))

        done, _ = await self._writer.transact(LOG, commit_id, body)
        return _Written(done.first_position, done.recorded_at)


class _Leases(Struct, frozen=True):
    principals: list[str]
    key_hashes: list[bytes]
    tokens: list[UUID]
    answers: list[bytes]

    def arrays(self) -> tuple[TextArray, BytesArray, Uuids, BytesArray]:
        tokens = np.frombuffer(b"".join(token.bytes for token in self.tokens), np.uint8).reshape(-1, 16)
        return (
            TextArray.of(self.principals),
            BytesArray.of(self.key_hashes),
            Uuids(tokens),
            BytesArray.of(self.answers),
        )


_NO_LEASES: Final = _Leases([], [], [], [])


def _leases(commit: Plan) -> _Leases | None:
    keyed = [(call, call.lease, call.answer) for call in commit.calls if call.lease is not None]
    if not keyed:
        return None
    return _Leases(
        [lease.principal for _, lease, _ in keyed],
        [lease.key_hash for _, lease, _ in keyed],
        [lease.token for _, lease, _ in keyed],
        [answer() if answer is not None else b"" for _, _, answer in keyed],
    )


def _refuse_holder(waiting: dict[Call, asyncio.Future[None]], token: UUID) -> None:
    for call in [call for call in waiting if call.lease is not None and call.lease.token == token]:
        _settle(waiting.pop(call), LeaseLost())


def _settle(done: asyncio.Future[None], error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
