"""
The discipline of every write to a log: one lock, one commit id, and an exact answer when the connection breaks.

A flush of its own (such as that of readings) is a *body* given to :meth:`LogWriter.transact`::

    async def body(conn: Connection, begun: Begun) -> Verdicts:
        versions = await versions_of(conn, begun.log, streams)      # nobody else can append meanwhile
        await copy_events(conn, begun, rows)                        # rows go to begun.base + 1, + 2, …
        await conn.execute("INSERT INTO …")                         # more rows of the same transaction
        return verdicts

    commit, verdicts = await writer.transact("telemetry", commit_id, body)
"""

import asyncio
import select
import socket
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import psycopg
from msgspec import Struct
from psycopg import AsyncCursor, sql
from psycopg.rows import TupleRow

from smartgrid_adapters.postgres.arrays import EventRow, copy_lines, register
from smartgrid_adapters.postgres.pool import GONE, WAIT_S, Connection, Pool, dedicated, is_connection_lost, lacks_means
from smartgrid_commands.ports import OutcomeUnknown, StoreUnavailable
from smartgrid_schemas.envelope import LOGS

T = TypeVar("T")

DEADLINE_S = 10.0
"""How long one transaction may take before its connection is cut [s]."""

RESOLVE_S = 5.0
"""How long to seek a new connection to learn whether a commit happened [s]."""

ATTEMPTS = 3
"""How often a unit is run when its connection breaks each time."""

_COPY = {
    log: sql.SQL(
        "COPY {} (notification_id, originator_id, originator_version, topic, state, metadata) "
        "FROM STDIN (FORMAT BINARY)"
    ).format(sql.Identifier(f"{log}_events"))
    for log in LOGS
}


class Begun(Struct, frozen=True, kw_only=True):
    """
    An append under way, with the log's lock held.

    Attributes:
        log: The log.
        commit_id: Its commit id.
        base: Position of the last event before it.
    """

    log: str
    commit_id: UUID
    base: int


class Commit(Struct, frozen=True, kw_only=True):
    """
    A commit that is on disk.

    Attributes:
        first_position: Position of its first event; above *last_position* if it has none.
        last_position: Position of its last event, or of the one before it if it has none.
        recorded_at: Its time; None if it has no event.
        known: Whether it was there already, so that this time nothing was written.
    """

    first_position: int
    last_position: int
    recorded_at: datetime | None
    known: bool


class LogWriter:
    """
    Runs transactions that append, one at a time per log, on a connection of its own per log.

    Args:
        pool: Where its connections go.
        announce: Called with log and position after each commit.
        on_down: Called with a log while no connection can be had for longer than *wait_s*.
        wait_s: How long to try for a connection before a unit that has not sent a commit fails [s].
        deadline_s: How long a unit may take in all [s].

    Attributes:
        on_done: Called with a log and the time [s] that a unit took from its turn to its commit.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        announce: Callable[[str, int], None] | None = None,
        on_down: Callable[[str], None] | None = None,
        wait_s: float = WAIT_S,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._connect = dedicated(pool)
        self._announce = announce
        self.on_down = on_down
        self.on_done: Callable[[str, float], None] | None = None
        self._wait_s = wait_s
        self._deadline_s = deadline_s
        self._connections: dict[str, Connection] = {}
        self._turns = {log: asyncio.Lock() for log in LOGS}

    async def close(self) -> None:
        """Close the connections; a later unit opens them again."""
        for log in list(self._connections):
            await self._drop(log)

    async def transact(
        self, log: str, commit_id: UUID, body: Callable[[Connection, Begun], Awaitable[T]]
    ) -> tuple[Commit, T | None]:
        """
        Run *body* in a transaction that holds the lock of *log*, and commit what it wrote as *commit_id*.

        *body* inserts its events at ``begun.base + 1 …`` and whatever else belongs to the commit. It may run again
        when the connection breaks, with another base, so it keeps its results to what it returns.

        Returns:
            The commit, and what *body* returned in the run that was committed; None if *commit_id* was there before
            this call.

        Raises:
            StoreUnavailable: Nothing was stored.
            OutcomeUnknown: A commit was sent and its fate could not be learnt; repeat with the same *commit_id*.
            Exception: Whatever *body* raises; nothing was stored.

        Guarantees:
            * A commit whose answer was lost is answered with its own positions, not written twice.
            * A body that wrote no event makes no commit row; its other rows are committed. If that answer is lost,
              the body simply runs again, so such a body must bear that.
        """
        result: T | None = None

        async def unit(conn: Connection, sending: Callable[[], None]) -> Commit:
            nonlocal result
            begun = await begin(conn, log, commit_id)
            if isinstance(begun, Commit):
                await conn.execute("ROLLBACK")
                return begun
            result = await body(conn, begun)
            sending()
            return await finish_and_commit(conn, begun)

        commit = await self.run(log, unit)
        if self._announce is not None and commit.last_position:
            self._announce(log, commit.last_position)
        return commit, result

    async def run(self, log: str, unit: Callable[[Connection, Callable[[], None]], Awaitable[T]]) -> T:
        """
        Run *unit*, which does a whole transaction on the connection it gets, again if that breaks.

        *unit* calls its second argument right before the statement that commits. It must look its commit ids up
        (:func:`begin` and ``log_append`` do), so that running again after a lost answer is exact.

        Raises:
            StoreUnavailable: Nothing was stored.
            OutcomeUnknown: A commit was sent and its fate could not be learnt.
        """
        sent = False

        def sending() -> None:
            nonlocal sent
            sent = True

        async with self._turns[log]:
            loop = asyncio.get_running_loop()
            start = loop.time()
            end = start + self._deadline_s
            for _ in range(ATTEMPTS):
                sent_before = sent
                conn = await self._connection(log, committing=sent)
                # Cut, not cancelled: a cancelled statement would first wait for a server that may hang.
                timer = loop.call_at(end, _cut, conn)
                try:
                    done = await unit(conn, sending)
                    if self.on_done is not None:
                        self.on_done(log, loop.time() - start)
                    return done  # noqa: TRY300  # on_done is part of what may break
                except BaseException as error:
                    if not await self._recover(log, conn, error):
                        if lacks_means(error):  # refused, so this run stored nothing; of an earlier one nobody knows
                            raise _lost(committing=sent_before) from error
                        raise
                finally:
                    timer.cancel()
                if loop.time() >= end:
                    break
            raise _lost(committing=sent)

    async def _recover(self, log: str, conn: Connection, error: BaseException) -> bool:
        """Bring the connection back to a clean state; return whether *error* means that it broke."""
        if isinstance(error, GONE) and is_connection_lost(error):
            await self._drop(log)
            return True
        if not isinstance(error, Exception):  # cancelled: the transaction must not linger
            await self._drop(log)
            return False
        try:
            await conn.rollback()
        except psycopg.Error:
            await self._drop(log)
        return False

    async def _drop(self, log: str) -> None:
        conn = self._connections.pop(log, None)
        if conn is not None:
            await conn.close()

    async def _connection(self, log: str, *, committing: bool) -> Connection:
        conn = self._connections.get(log)
        if conn is not None:
            if not conn.closed and not _has_hung_up(conn):
                return conn
            await self._drop(log)
        loop = asyncio.get_running_loop()
        start = loop.time()
        limit_s = RESOLVE_S if committing else self._wait_s
        pause_s = 0.01
        while True:
            try:
                async with asyncio.timeout_at(start + limit_s):
                    conn = await self._connect()
            except (*GONE, TimeoutError) as error:
                waited_s = loop.time() - start
                if waited_s + pause_s > self._wait_s and self.on_down is not None:
                    self.on_down(log)
                if waited_s + pause_s > limit_s:
                    raise _lost(committing=committing) from error
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, 0.2)
            else:
                register(conn)
                self._connections[log] = conn
                return conn


def _has_hung_up(conn: Connection) -> bool:
    """Tell before anything is sent: what was not sent has no unknown outcome. An idle server has nothing to say."""
    waiting = select.poll()
    waiting.register(conn.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


def _cut(conn: Connection) -> None:
    with socket.socket(fileno=socket.dup(conn.fileno())) as link:
        link.shutdown(socket.SHUT_RDWR)


def _lost(*, committing: bool) -> StoreUnavailable | OutcomeUnknown:
    if committing:
        return OutcomeUnknown("the connection to PostgreSQL was lost while committing")
    return StoreUnavailable("no connection to PostgreSQL")


async def begin(conn: Connection, log: str, commit_id: UUID) -> Begun | Commit:
    """Open a transaction, look *commit_id* up and take the lock of *log*; a commit that is there is returned."""
    cursor = await conn.execute(
        sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT * FROM log_begin({}, {})").format(
            sql.Literal(log), sql.Literal(commit_id)
        )
    )
    cursor.nextset()
    return await _begun(cursor, log, commit_id)


async def look_up(conn: Connection, log: str, commit_id: UUID) -> Begun | Commit:
    """Do the same in a transaction that is open already."""
    cursor = await conn.execute("SELECT * FROM log_begin(%s, %s)", (log, commit_id), prepare=True)
    return await _begun(cursor, log, commit_id)


async def _begun(cursor: AsyncCursor[TupleRow], log: str, commit_id: UUID) -> Begun | Commit:
    known, first, last, recorded_at, base = await _one(cursor)
    if known:
        return Commit(first_position=first, last_position=last, recorded_at=recorded_at, known=True)
    return Begun(log=log, commit_id=commit_id, base=base)


async def finish_and_commit(conn: Connection, begun: Begun) -> Commit:
    """Close an append and commit the transaction, in one round trip."""
    cursor = await conn.execute(
        sql.SQL("SELECT * FROM log_finish({}, {}, {}); COMMIT").format(
            sql.Literal(begun.log), sql.Literal(begun.commit_id), sql.Literal(begun.base)
        )
    )
    last, recorded_at = await _one(cursor)
    return Commit(first_position=begun.base + 1, last_position=last, recorded_at=recorded_at, known=False)


async def versions_of(conn: Connection, log: str, streams: Sequence[str]) -> dict[str, int]:
    """Return the version of the last event of each of *streams*, 0 for an empty one."""
    cursor = await conn.execute("SELECT log_versions(%s, %s)", (log, list(streams)))
    (versions,) = await _one(cursor)
    return dict(zip(streams, versions or (), strict=True))


async def copy_events(conn: Connection, begun: Begun, rows: Sequence[EventRow]) -> None:
    """Write *rows*, with versions given, at the next positions by binary COPY; call it once per commit."""
    async with conn.cursor() as cursor, cursor.copy(_COPY[begun.log]) as copy:
        await copy.write(copy_lines(rows, begun.base))


async def _one(cursor: AsyncCursor[TupleRow]) -> TupleRow:
    row = await cursor.fetchone()
    if row is None:
        raise psycopg.DataError("PostgreSQL answered without a row")
    return row
