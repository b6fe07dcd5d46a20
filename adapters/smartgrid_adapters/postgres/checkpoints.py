"""Checkpoints of projections: who may move them, and moving them together with the rows."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Generic, TypeVar

import psycopg
from psycopg import sql

from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_commands.ports import StoreUnavailable
from smartgrid_projections.ports import Claim, Fenced, Move, Standing, Unavailable

T = TypeVar("T")

_LOCK_SPACE = 1397181512  # apart from the locks of the logs
_CLAIM = """
    UPDATE projection_versions
    SET epoch = epoch + 1, owner = %(owner)s, lock_held = %(locked)s, last_error = NULL,
        lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
    WHERE name = %(name)s AND version = %(version)s
        AND NOT paused AND state NOT IN ('discarded', 'dropped')
        AND (owner IS NULL OR lease_until < clock_timestamp() OR (lock_held AND %(locked)s))
    RETURNING epoch
"""
_FENCE = """
    UPDATE projection_checkpoints SET epoch = %s WHERE name = %s AND version = %s RETURNING log, position
"""
_RENEW = """
    UPDATE projection_versions
    SET lock_held = %(locked)s, lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
    WHERE name = %(name)s AND version = %(version)s AND epoch = %(epoch)s
"""
_MOVE = """
    UPDATE projection_checkpoints SET position = %s, rate_per_s = %s, moved_at = clock_timestamp()
    WHERE name = %s AND version = %s AND log = %s AND position = %s AND epoch = %s
"""
_FAILED = """
    UPDATE projection_versions SET owner = NULL, lock_held = false, lease_until = NULL, last_error = %s
    WHERE name = %s AND version = %s AND epoch = %s
"""
_RELEASE = """
    UPDATE projection_versions SET owner = NULL, lock_held = false, lease_until = NULL
    WHERE name = %s AND version = %s AND epoch = %s
"""


class PostgresCheckpoints(Generic[T]):
    """
    The checkpoints of one version of one projection, over a connection of its own.

    While a claim is held the session keeps an advisory lock, so another worker sees at once when its holder has died;
    a holder that only stands still loses the claim when its lease runs out, and the epoch fences it off.
    """

    def __init__(  # noqa: PLR0913  # what a projection is, and how long it may be silent
        self,
        connect: Callable[[], Awaitable[Connection]],
        *,
        name: str,
        version: int,
        owner: str,
        tables: Callable[[Connection], T],
        lease_s: float = 5.0,
    ) -> None:
        self._connect = connect
        self._name = name
        self._version = version
        self._owner = owner
        self._tables_of = tables
        self._lease_s = lease_s
        self._lock_key = zlib.crc32(f"{name}/{version}".encode()) - 2**31
        self._connection: Connection | None = None
        self._tables: T | None = None
        self._locked = False

    async def claim(self) -> Claim | None:
        async with self._guarded() as connection:
            await self._try_lock(connection)
            async with connection.transaction():
                cursor = await connection.execute(_CLAIM, self._parameters())
                row = await cursor.fetchone()
                if row is not None:
                    epoch = int(row[0])
                    cursor = await connection.execute(_FENCE, (epoch, self._name, self._version))
                    positions = {str(log): int(position) for log, position in await cursor.fetchall()}
                    self._tables = None  # what a table object remembers is of an earlier claim
                    return Claim(epoch=epoch, positions=positions)
            await self._unlock(connection)
        return None

    async def renew(self, claim: Claim) -> None:
        async with self._guarded() as connection:
            await self._try_lock(connection)
            cursor = await connection.execute(_RENEW, {**self._parameters(), "epoch": claim.epoch})
            if cursor.rowcount != 1:
                await self._unlock(connection)
                raise Fenced(self._name)

    @asynccontextmanager
    async def step(self, claim: Claim, move: Move) -> AsyncGenerator[T]:
        async with self._guarded() as connection:
            try:
                async with connection.transaction():
                    await self._move(connection, claim, move)
                    if self._tables is None:
                        self._tables = self._tables_of(connection)
                    yield self._tables
            except BaseException:
                self._tables = None  # it may remember rows that were rolled back
                raise

    async def failed(self, claim: Claim, error: str) -> None:
        async with self._guarded() as connection:
            await connection.execute(_FAILED, (error[:4000], self._name, self._version, claim.epoch))
            await self._unlock(connection)

    async def release(self, claim: Claim) -> None:
        async with self._guarded() as connection:
            await connection.execute(_RELEASE, (self._name, self._version, claim.epoch))
            await self._unlock(connection)

    async def close(self) -> None:
        connection, self._connection, self._locked = self._connection, None, False
        if connection is not None:
            await connection.close()

    async def _move(self, connection: Connection, claim: Claim, move: Move) -> None:
        cursor = await connection.execute(
            _MOVE, (move.new, move.rate_per_s, self._name, self._version, move.log, move.old, claim.epoch)
        )
        if cursor.rowcount != 1:
            raise Fenced(self._name)

    def _parameters(self) -> dict[str, Any]:
        return {
            "name": self._name,
            "version": self._version,
            "owner": self._owner,
            "locked": self._locked,
            "lease_s": self._lease_s,
        }

    async def _try_lock(self, connection: Connection) -> None:
        if not self._locked:
            cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (_LOCK_SPACE, self._lock_key))
            row = await cursor.fetchone()
            self._locked = row is not None and bool(row[0])

    async def _unlock(self, connection: Connection) -> None:
        if self._locked:
            self._locked = False
            await connection.execute("SELECT pg_advisory_unlock(%s, %s)", (_LOCK_SPACE, self._lock_key))

    @asynccontextmanager
    async def _guarded(self) -> AsyncGenerator[Connection]:
        """Give the connection, made anew when it was lost; tell lack of means from mistakes."""
        try:
            if self._connection is None:
                self._connection = await self._connect()
                # Statements differ in the length of their arrays only; planning them anew costs more than it gains.
                await self._connection.execute("SET plan_cache_mode = force_generic_plan")
            yield self._connection
        except (psycopg.OperationalError, psycopg.InterfaceError, OSError) as error:
            await self.close()
            raise Unavailable(str(error) or type(error).__name__) from error
        except asyncio.CancelledError:
            await self.close()  # a query may still be running on it
            raise


_STANDINGS = """
    SELECT v.name, v.version, v.parked_keys, v.owner IS NOT NULL AND v.lease_until > clock_timestamp(), v.last_error,
           c.log, c.position, c.rate_per_s, v.paused
    FROM projection_versions v JOIN projection_checkpoints c USING (name, version)
    WHERE v.state = 'active'
    ORDER BY v.name COLLATE "C", c.log
"""
_POSITIONS = """
    SELECT v.name, c.log, c.position
    FROM projection_versions v JOIN projection_checkpoints c USING (name, version)
    WHERE v.state = 'active'
"""


class PostgresStandings:
    """The state of all projections, for readers."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def positions(self) -> Mapping[str, Mapping[str, int]]:
        result: dict[str, dict[str, int]] = {}
        for name, log, position in await self._read(_rows_of_positions):
            result.setdefault(name, {})[log] = position
        return result

    async def standings(self) -> list[Standing]:
        rows, waiting = await self._read(_rows_of_standings)
        result: list[Standing] = []
        for name in dict.fromkeys(row[0] for row in rows):
            own = [row for row in rows if row[0] == name]
            result.append(
                Standing(
                    name=name,
                    version=own[0][1],
                    positions={row[5]: row[6] for row in own},
                    next_recorded_at={row[5]: at for row in own if (at := waiting[row[5], row[6]]) is not None},
                    rate_per_s=sum(row[7] for row in own),
                    parked_keys=own[0][2],
                    owned=own[0][3],
                    last_error=own[0][4],
                    paused=own[0][8],
                )
            )
        return result

    async def _read(self, unit: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            return await run_safely(self._pool, unit)
        except StoreUnavailable as error:
            raise Unavailable(str(error)) from error


async def _rows_of_positions(connection: Connection) -> list[tuple[str, str, int]]:
    return [(row[0], row[1], row[2]) for row in await (await connection.execute(_POSITIONS)).fetchall()]


async def _rows_of_standings(
    connection: Connection,
) -> tuple[list[tuple[Any, ...]], dict[tuple[str, str], datetime | None]]:
    rows = await (await connection.execute(_STANDINGS)).fetchall()
    return rows, {(row[5], row[6]): await _next_recorded_at(connection, row[5], row[6]) for row in rows}


async def _next_recorded_at(connection: Connection, log: str, position: int) -> datetime | None:
    query = sql.SQL("SELECT recorded_at FROM {} WHERE last_position > %s ORDER BY last_position LIMIT 1").format(
        sql.Identifier(f"{log}_commits")  # a log's name comes from our own checkpoint rows
    )
    row = await (await connection.execute(query, (position,))).fetchone()
    return None if row is None else row[0]
