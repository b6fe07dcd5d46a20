"""
Many callers, one commit.

While a commit waits for the disk, callers queue; the next flush takes all of them. The disk is the only timer.

A flush is one transaction. Callers that name a commit id, bring effects or seal personal fields (the id of an event
is part of its seal, so it must be known before) have a commit row of their own in it; all others share one. So each
named id is answered exactly, whoever else was in its flush, and the rest cost one row for all.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import sql

from smartgrid_adapters.postgres.arrays import BigintArray, BytesArray, EventRow, TextArray
from smartgrid_adapters.postgres.effects import carry_out
from smartgrid_adapters.postgres.log_writer import Begun, Commit, LogWriter, copy_events, look_up, versions_of
from smartgrid_adapters.postgres.pool import Connection
from smartgrid_commands.ports import (
    ANY_VERSION,
    Appended,
    Effect,
    EffectRefused,
    OutcomeUnknown,
    StoreUnavailable,
    WrongExpectedVersion,
)
from smartgrid_schemas.envelope import LOGS

FLUSH_ROWS = 5_000
FLUSH_BYTES = 4 * 1024 * 1024
COPY_ROWS = 2_000
"""From how many rows on COPY, which takes more round trips, is not slower than arrays."""

QUEUE_ROWS = 200_000
"""How many rows may wait; beyond, callers are refused."""

_APPEND = {  # log_append without its way to the function of the log
    log: sql.SQL("SELECT * FROM {}(%s, %s, %s, %s, %s, %s)")
    .format(sql.Identifier(f"{log}_append"))
    .as_string()
    .encode()
    for log in LOGS
}


class Caller:
    """
    One caller's append, waiting.

    Attributes:
        rows: Its rows; a version of -1 stands for the next of its stream.
        commit_id: The commit id that it named.
        effects: Its effects.
        size: Bytes of its rows.
        done: Resolved with where they went.
    """

    __slots__ = ("commit_id", "done", "effects", "rows", "size")

    def __init__(self, rows: Sequence[EventRow], commit_id: UUID | None, effects: Sequence[Effect]) -> None:
        self.rows = rows
        self.commit_id = commit_id
        self.effects = effects
        self.size = sum([len(row.state) + 100 for row in rows])
        self.done: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()

    def settle(self, outcome: Appended | Exception) -> None:
        """Answer the caller, unless it has left."""
        if self.done.done():
            return
        if isinstance(outcome, Appended):
            self.done.set_result(outcome)
        else:
            self.done.set_exception(outcome)


class _Unit:
    """What becomes one commit row; *admitted* are the callers that the last run let in, in row order."""

    __slots__ = ("admitted", "callers", "commit", "commit_id", "refused")

    def __init__(self, commit_id: UUID, callers: list[Caller]) -> None:
        self.commit_id = commit_id
        self.callers = callers
        self.admitted = callers
        self.refused: dict[Caller, Exception] = {}
        self.commit: Commit | None = None

    def outcomes(self) -> Iterable[tuple[Caller, Appended | Exception]]:
        yield from self.refused.items()
        if self.commit is None or self.commit.recorded_at is None:
            return
        position = self.commit.first_position
        if len(self.callers) == 1:  # a known commit answers as it did at first, whatever is asked now
            n = self.commit.last_position - position + 1
            yield self.callers[0], _appended(position, n, self.commit.recorded_at)
            return
        for caller in self.admitted:
            yield caller, _appended(position, len(caller.rows), self.commit.recorded_at)
            position += len(caller.rows)


class GroupCommit:
    """
    The flushers of a process, one per log.

    Args:
        writer: Where flushes go.
        announce: Called with log and position after each commit.
    """

    def __init__(self, writer: LogWriter, *, announce: Callable[[str, int], None]) -> None:
        self._writer = writer
        self._announce = announce
        self._queues: dict[str, deque[Caller]] = {log: deque() for log in LOGS}
        self._rows_waiting = 0
        self._wake = {log: asyncio.Event() for log in LOGS}
        self._idle = {log: asyncio.Event() for log in LOGS}
        self._flushers: dict[str, asyncio.Task[None]] = {}
        writer.on_down = self._refuse_waiting

    async def append(
        self, log: str, rows: Sequence[EventRow], *, commit_id: UUID | None = None, effects: Sequence[Effect] = ()
    ) -> Appended:
        """Append *rows* with whatever else waits; see :meth:`smartgrid_commands.ports.EventStore.append`."""
        if self._rows_waiting > QUEUE_ROWS:
            raise StoreUnavailable("too many appends are waiting")
        caller = Caller(rows, commit_id, effects)
        self._queues[log].append(caller)
        self._rows_waiting += len(rows)
        self._wake[log].set()
        self._idle[log].clear()
        if log not in self._flushers:
            self._flushers[log] = asyncio.create_task(self._flush_forever(log), name=f"flush {log}")
        return await caller.done

    async def stop(self) -> None:
        """End the flushers once all that waits is answered."""
        for log in list(self._flushers):
            await self._idle[log].wait()
        for flusher in self._flushers.values():
            flusher.cancel()
        await asyncio.gather(*self._flushers.values(), return_exceptions=True)
        self._flushers.clear()

    def _refuse_waiting(self, log: str) -> None:
        for caller in self._take(log, math.inf, math.inf):
            caller.settle(StoreUnavailable("no connection to PostgreSQL"))

    def _take(self, log: str, max_rows: float = FLUSH_ROWS, max_bytes: float = FLUSH_BYTES) -> list[Caller]:
        queue = self._queues[log]
        batch: list[Caller] = []
        while queue:
            n = len(queue[0].rows)
            max_rows -= n
            max_bytes -= queue[0].size
            if batch and (max_rows < 0 or max_bytes < 0):
                break
            caller = queue.popleft()
            self._rows_waiting -= n
            if not caller.done.done():  # not cancelled meanwhile
                batch.append(caller)
        return batch

    async def _flush_forever(self, log: str) -> None:
        wake = self._wake[log]
        while True:
            await wake.wait()
            wake.clear()
            while batch := self._take(log):
                await self._flush(log, batch)
            self._idle[log].set()

    async def _flush(self, log: str, batch: list[Caller]) -> None:
        try:
            units = _units_of(batch)
            plain = len(units) == 1 and not any(c.effects for c in batch) and _rows(batch) < COPY_ROWS
            if not (plain and await self._flush_at_once(log, units[0])):
                await self._flush_in_transaction(log, units)
        except (StoreUnavailable, OutcomeUnknown) as error:
            for caller in batch:
                caller.settle(type(error)(*error.args))
        except Exception as error:  # noqa: BLE001  # whatever it is, its caller gets it
            if len(batch) == 1:
                batch[0].settle(error)
            else:  # one of them is at fault, and only it shall suffer
                for caller in batch:
                    await self._flush(log, [caller])
        except BaseException:
            for caller in batch:
                caller.settle(OutcomeUnknown("the store stopped meanwhile"))
            raise

    async def _flush_at_once(self, log: str, unit: _Unit) -> bool:
        """Append *unit* in one round trip; return False if it has a conflict that is not plain whose it is."""
        rows = [row for caller in unit.callers for row in caller.rows]
        statement, parameters = _APPEND[log], (unit.commit_id, *_arrays(rows))

        async def append(conn: Connection, sending: Callable[[], None]) -> tuple[Any, ...]:
            sending()
            cursor = await conn.execute(statement, parameters, prepare=True)
            return (await cursor.fetchall())[0]

        status, first, last, recorded_at, stream = await self._writer.run(log, append)
        if status == "conflict":
            if len(unit.callers) > 1:
                return False
            unit.callers[0].settle(_wrong_version(unit.callers[0], stream))
            return True
        self._announce(log, last)
        unit.commit = Commit(first_position=first, last_position=last, recorded_at=recorded_at, known=False)
        _settle([unit])
        return True

    async def _flush_in_transaction(self, log: str, units: list[_Unit]) -> None:
        async def write(conn: Connection, sending: Callable[[], None]) -> None:
            await conn.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            for unit in units:
                await _write_unit(conn, log, unit)
            sending()
            await conn.execute("COMMIT")

        await self._writer.run(log, write)
        last = max((unit.commit.last_position for unit in units if unit.commit), default=0)
        if last:
            self._announce(log, last)
        _settle(units)


async def _write_unit(conn: Connection, log: str, unit: _Unit) -> None:
    unit.refused = {}
    found = await look_up(conn, log, unit.commit_id)
    if isinstance(found, Commit):
        unit.commit = found
        return
    unit.commit = None
    rows = await _admit(conn, log, unit)
    if not rows:
        return
    effects = unit.callers[0].effects  # whoever has some is alone in its unit
    if effects:
        await conn.execute("SAVEPOINT unit")
    try:
        unit.commit = await _write_rows(conn, found, rows)
        await carry_out(conn, effects)
    except EffectRefused as refusal:
        await conn.execute("ROLLBACK TO SAVEPOINT unit")
        unit.commit = None
        unit.refused[unit.callers[0]] = refusal


async def _write_rows(conn: Connection, begun: Begun, rows: Sequence[EventRow]) -> Commit:
    if len(rows) < COPY_ROWS:
        cursor = await conn.execute(_APPEND[begun.log], (begun.commit_id, *_arrays(rows)), prepare=True)
        status, first, last, recorded_at, stream = (await cursor.fetchall())[0]
        if status != "appended":
            raise psycopg.IntegrityError(f"{stream} was at its version under the lock, and is not any more")
    else:
        await copy_events(conn, begun, rows)
        cursor = await conn.execute("SELECT * FROM log_finish(%s, %s, %s)", (begun.log, begun.commit_id, begun.base))
        last, recorded_at = (await cursor.fetchall())[0]
        first = begun.base + 1
    return Commit(first_position=first, last_position=last, recorded_at=recorded_at, known=False)


async def _admit(conn: Connection, log: str, unit: _Unit) -> list[EventRow]:
    """Play the callers in order against the versions under the lock, as if each had come alone."""
    streams = list({row.stream for caller in unit.callers for row in caller.rows})
    versions = await versions_of(conn, log, streams)
    admitted: list[Caller] = []
    rows: list[EventRow] = []
    for caller in unit.callers:
        ends: dict[str, int] = {}
        mine: list[EventRow] = []
        for row in caller.rows:
            version = ends.get(row.stream, versions[row.stream]) + 1
            if row.version not in (ANY_VERSION, version):
                unit.refused[caller] = _wrong_version(caller, row.stream)
                break
            ends[row.stream] = version
            mine.append(row._replace(version=version))
        else:
            versions.update(ends)
            admitted.append(caller)
            rows += mine
    unit.admitted = admitted
    return rows


def _units_of(batch: list[Caller]) -> list[_Unit]:
    shared = [caller for caller in batch if caller.commit_id is None and not caller.effects]
    units = [_Unit(uuid4(), shared)] if shared else []
    apart = [caller for caller in batch if caller.commit_id is not None or caller.effects]
    return units + [_Unit(caller.commit_id or uuid4(), [caller]) for caller in apart]


def _settle(units: Iterable[_Unit]) -> None:
    for unit in units:
        for caller, outcome in unit.outcomes():
            caller.settle(outcome)


def _rows(batch: Iterable[Caller]) -> int:
    return sum([len(caller.rows) for caller in batch])


def _appended(first: int, n: int, recorded_at: datetime) -> Appended:
    return Appended(first_position=first, last_position=first + n - 1, recorded_at=recorded_at)


def _wrong_version(caller: Caller, stream: str) -> WrongExpectedVersion:
    expected = next(row.version for row in caller.rows if row.stream == stream and row.version != ANY_VERSION)
    return WrongExpectedVersion(stream, expected - 1)


def _arrays(rows: Sequence[EventRow]) -> tuple[TextArray, BigintArray, TextArray, BytesArray, BytesArray]:
    streams, versions, topics, states, metadata = zip(*rows, strict=True)
    return (
        TextArray.of(streams),
        BigintArray.of(versions),
        TextArray.of(topics),
        BytesArray.of(states),
        BytesArray.of(metadata),
    )
