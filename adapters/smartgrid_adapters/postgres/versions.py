"""Versions of read models: their rows in ``projection_versions``, their tables, and what differs between them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec
import psycopg
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from smartgrid_adapters.postgres.comparing import Compared, compared
from smartgrid_adapters.postgres.pool import Connection, Pool, dedicated, run_safely
from smartgrid_commands.ports import StoreUnavailable
from smartgrid_projections.ports import Unavailable
from smartgrid_projections.versions import (
    Difference,
    NoSuchRebuild,
    Rebuild,
    RebuildConflict,
    RebuildState,
    Verification,
    Version,
)

T = TypeVar("T")

HOLD_S: Final = 0.05
"""How long a switch lets the version in use stand still while the next one takes its last step [s]."""

SWITCH_WAIT_S: Final = 5.0
"""How long a switch tries before it says that the next version is behind [s]."""

LOCK_TIMEOUT_MS: Final = 200
"""How long new tables wait for readers of the views, and hold up readers behind them [ms]."""

TRIES: Final = 20
"""Times this is tried before the database counts as unavailable."""

_REBUILD = """
    SELECT b.version, b.state, b.auto_switch, b.report, b.error,
           coalesce((SELECT jsonb_object_agg(c.log, c.position) FROM projection_checkpoints c
                     WHERE c.name = b.name AND c.version = b.version), '{}'),
           coalesce((SELECT sum(c.rate_per_s) FROM projection_checkpoints c
                     WHERE c.name = b.name AND c.version = b.version), 0)
    FROM projection_rebuilds b WHERE b.name = %s AND b.rebuild_id = %s
"""
_DIFFERENCES = """
    SELECT number, base, key, active, new FROM projection_diffs
    WHERE rebuild_id = %s AND number > %s ORDER BY number LIMIT %s
"""
_VERSIONS = """
    SELECT v.version, v.state, b.rebuild_id, coalesce(b.auto_switch, false), v.last_error
    FROM projection_versions v
    LEFT JOIN projection_rebuilds b ON b.name = v.name AND b.version = v.version
        AND b.state IN ('building', 'catching_up', 'verifying', 'ready')
    WHERE v.name = %s AND v.state IN ('building', 'catching_up', 'verifying', 'ready', 'active', 'retired')
    ORDER BY v.version
"""
_POSITIONS = """
    SELECT c.log, c.position FROM projection_versions v JOIN projection_checkpoints c USING (name, version)
    WHERE v.name = %s AND v.state = 'active'
"""
_ADVANCE = """
    WITH moved AS (
        UPDATE projection_rebuilds SET state = %(state)s, error = %(error)s
        WHERE rebuild_id = %(id)s AND state = %(old)s AND EXISTS (
            SELECT FROM projection_versions v
            WHERE v.name = %(name)s AND v.version = %(version)s AND %(epoch)s IN (0, v.epoch)
        )
        RETURNING name, version
    )
    UPDATE projection_versions v SET state = %(version_state)s FROM moved m
    WHERE v.name = m.name AND v.version = m.version
"""
_PAUSE = """
    WITH paused AS (
        UPDATE projection_versions SET paused = true, epoch = epoch + 1, owner = NULL, lease_until = NULL
        WHERE name = %s AND state = 'active'
        RETURNING name, version, epoch
    )
    UPDATE projection_checkpoints c SET epoch = p.epoch FROM paused p WHERE c.name = p.name AND c.version = p.version
"""
_RESUME = "UPDATE projection_versions SET paused = false, last_error = NULL WHERE name = %s AND state = 'active'"
_LOCK_ACTIVE = """
    SELECT version, paused FROM projection_versions WHERE name = %s AND state = 'active' FOR UPDATE
"""
_HOLD = "SELECT log, position FROM projection_checkpoints WHERE name = %s AND version = %s ORDER BY log FOR UPDATE"
_OWN = "SELECT log, position FROM projection_checkpoints WHERE name = %s AND version = %s"
_STATE = "UPDATE projection_versions SET state = %s, paused = %s WHERE name = %s AND version = %s"


class PostgresVersions:
    """The ports ``Versions`` and ``Building``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def start(self, name: str, rebuild_id: str, *, auto_switch: bool) -> int:
        async def unit(connection: Connection) -> int:
            cursor = await connection.execute("SELECT projection_start(%s, %s, %s)", (name, rebuild_id, auto_switch))
            return int((await cursor.fetchone() or (0,))[0])

        try:
            return await self._changing_tables(unit)
        except errors.UniqueViolation as error:
            raise RebuildConflict(f"A rebuild of {name} is under way; switch to it or abort it first") from error
        except errors.NoDataFound as error:
            raise RebuildConflict(f"The version of {name} in use has just changed; try again") from error

    async def rebuild(self, name: str, rebuild_id: str) -> Rebuild:
        async def unit(connection: Connection) -> tuple[Any, ...] | None:
            return await (await connection.execute(_REBUILD, (name, rebuild_id))).fetchone()

        row = await self._read(unit)
        if row is None:
            raise NoSuchRebuild(rebuild_id)
        version, state, auto_switch, report, error, position, rate_per_s = row
        return Rebuild(
            rebuild_id=rebuild_id,
            name=name,
            version=version,
            state=state,
            auto_switch=auto_switch,
            position=position,
            rate_per_s=float(rate_per_s),
            verify=None if report is None else msgspec.convert(report, Verification),
            error=error,
        )

    async def differences(self, name: str, rebuild_id: str, *, after: int, limit: int) -> list[Difference]:
        await self.rebuild(name, rebuild_id)

        async def unit(connection: Connection) -> list[tuple[Any, ...]]:
            return await (await connection.execute(_DIFFERENCES, (rebuild_id, after, limit))).fetchall()

        return [
            Difference(number=row[0], table=row[1], key=row[2], active=row[3], new=row[4])
            for row in await self._read(unit)
        ]

    async def versions(self, name: str) -> list[Version]:
        async def unit(connection: Connection) -> list[tuple[Any, ...]]:
            return await (await connection.execute(_VERSIONS, (name,))).fetchall()

        return [
            Version(version=row[0], state=row[1], rebuild_id=row[2], auto_switch=row[3], error=row[4])
            for row in await self._read(unit)
        ]

    async def positions(self, name: str) -> dict[str, int]:
        async def unit(connection: Connection) -> list[tuple[Any, ...]]:
            return await (await connection.execute(_POSITIONS, (name,))).fetchall()

        return {row[0]: row[1] for row in await self._read(unit)}

    async def advance(self, rebuild: Rebuild, state: RebuildState, *, epoch: int, error: str | None = None) -> bool:
        async with self._guarded() as connection:
            return await _advance(connection, rebuild, state, epoch, error)

    async def verify(
        self, rebuild: Rebuild, *, epoch: int, catch_up: Callable[[Mapping[str, int]], Awaitable[None]]
    ) -> Verification | None:
        async with self._guarded(apart=True) as connection, connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            async with self._guarded(apart=True) as holding, holding.transaction():
                active, positions = await _held(holding, rebuild.name)
                await catch_up(positions)
                # The snapshot is taken by the first statement: both versions in it are at these positions.
                own = dict(await (await connection.execute(_OWN, (rebuild.name, rebuild.version))).fetchall())
            if own != positions:
                raise Unavailable("the new version went past the one in use")
            found = await compared(connection, rebuild, active)
            report = _report(positions, found)
            await connection.execute(
                "UPDATE projection_rebuilds SET report = %s WHERE rebuild_id = %s",
                (Jsonb(msgspec.to_builtins(report)), rebuild.rebuild_id),
            )
        # Not in the transaction of the comparison: the row of the version is renewed while that lasts.
        return report if await self.advance(rebuild, "ready", epoch=epoch) else None

    async def switch(self, name: str, rebuild_id: str) -> None:
        async def decide(connection: Connection) -> int:
            state, version = await _locked_rebuild(connection, name, rebuild_id)
            if state != "ready":
                raise RebuildConflict(f"That rebuild is {state}, not ready")
            return version

        await self._switch(name, decide, old="retired")

    async def rollback(self, name: str) -> None:
        async def decide(connection: Connection) -> int:
            cursor = await connection.execute(
                "SELECT version FROM projection_versions WHERE name = %s AND state = 'retired' FOR UPDATE", (name,)
            )
            row = await cursor.fetchone()
            if row is None:
                raise RebuildConflict(f"There is no version of {name} to return to")
            return int(row[0])

        await self._switch(name, decide, old="discarded")

    async def abort(self, name: str, rebuild_id: str) -> None:
        async with self._guarded() as connection, connection.transaction():
            state, version = await _locked_rebuild(connection, name, rebuild_id)
            if state not in ("building", "catching_up", "verifying", "ready"):
                raise RebuildConflict(f"That rebuild is {state}")
            await connection.execute(
                "UPDATE projection_rebuilds SET state = 'aborted' WHERE rebuild_id = %s", (rebuild_id,)
            )
            await connection.execute(_STATE, ("discarded", False, name, version))

    async def pause(self, name: str) -> None:
        async with self._guarded() as connection:
            await connection.execute(_PAUSE, (name,))

    async def resume(self, name: str) -> None:
        async with self._guarded() as connection:
            await connection.execute(_RESUME, (name,))

    async def sweep(self, name: str) -> None:
        async def unit(connection: Connection) -> None:
            await connection.execute("SELECT projection_sweep(%s)", (name,))

        async with self._guarded() as connection:
            cursor = await connection.execute(
                "SELECT FROM projection_versions WHERE name = %s AND state = 'discarded'", (name,)
            )
            needed = cursor.rowcount
        if needed:
            await self._changing_tables(unit)

    async def _switch(self, name: str, decide: Callable[[Connection], Awaitable[int]], *, old: str) -> None:
        end = time.monotonic() + SWITCH_WAIT_S
        while True:
            async with self._guarded() as connection, connection.transaction():
                version = await decide(connection)
                row = await (await connection.execute(_LOCK_ACTIVE, (name,))).fetchone()
                if row is None:
                    raise RebuildConflict(f"The version of {name} in use has just changed; try again")
                active, paused = row
                if await _reached(connection, name, active, version):
                    await connection.execute(_STATE, (old, False, name, active))
                    await connection.execute(_STATE, ("active", paused, name, version))
                    await _record_switch(connection, name, active, version, back=old == "discarded")
                    return
            if time.monotonic() > end:
                raise RebuildConflict(f"Version {version} of {name} is behind the one in use; is a worker running?")
            await asyncio.sleep(HOLD_S)

    async def _changing_tables(self, unit: Callable[[Connection], Awaitable[T]]) -> T:
        """Run *unit* in a transaction that does not make readers wait long; again when it could not get its locks."""
        for _ in range(TRIES):
            try:
                async with self._guarded() as connection, connection.transaction():
                    await connection.execute(
                        sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT_MS))
                    )
                    await connection.execute("SET LOCAL client_min_messages = warning")
                    return await unit(connection)
            except (errors.LockNotAvailable, errors.DeadlockDetected):
                await asyncio.sleep(HOLD_S)
        raise Unavailable("readers kept the tables locked")

    async def _read(self, unit: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            return await run_safely(self._pool, unit)
        except StoreUnavailable as error:
            raise Unavailable(str(error)) from error

    @asynccontextmanager
    async def _guarded(self, *, apart: bool = False) -> AsyncGenerator[Connection]:
        """Give a connection, one of its own if it is kept for long; tell lack of means from mistakes."""
        try:
            if apart:
                async with await dedicated(self._pool)() as connection:
                    yield connection
            else:
                async with self._pool.connection() as connection:
                    yield connection
        except (errors.LockNotAvailable, errors.DeadlockDetected):
            raise
        except (psycopg.OperationalError, psycopg.InterfaceError, OSError) as error:
            raise Unavailable(str(error) or type(error).__name__) from error


async def _advance(
    connection: Connection, rebuild: Rebuild, state: RebuildState, epoch: int, error: str | None
) -> bool:
    cursor = await connection.execute(
        _ADVANCE,
        {
            "state": state,
            "old": rebuild.state,
            "id": rebuild.rebuild_id,
            "name": rebuild.name,
            "version": rebuild.version,
            "epoch": epoch,
            "error": None if error is None else error[:4000],
            "version_state": "discarded" if state == "failed" else state,
        },
    )
    return cursor.rowcount == 1


async def _locked_rebuild(connection: Connection, name: str, rebuild_id: str) -> tuple[str, int]:
    cursor = await connection.execute(
        "SELECT state, version FROM projection_rebuilds WHERE name = %s AND rebuild_id = %s FOR UPDATE",
        (name, rebuild_id),
    )
    row = await cursor.fetchone()
    if row is None:
        raise NoSuchRebuild(rebuild_id)
    return str(row[0]), int(row[1])


async def _held(connection: Connection, name: str) -> tuple[int, dict[str, int]]:
    """Return the version in use and its positions, which do not move until the transaction ends."""
    row = await (await connection.execute(_LOCK_ACTIVE, (name,))).fetchone()
    if row is None:
        raise Unavailable("the version in use has just changed")
    return int(row[0]), dict(await (await connection.execute(_HOLD, (name, row[0]))).fetchall())


async def _reached(connection: Connection, name: str, active: int, version: int) -> bool:
    """Let *active* stand still, and return whether *version* comes as far within a moment."""
    held: Mapping[str, int] = dict(await (await connection.execute(_HOLD, (name, active))).fetchall())
    end = time.monotonic() + HOLD_S
    while True:
        own: Mapping[str, int] = dict(await (await connection.execute(_OWN, (name, version))).fetchall())
        if all(own.get(log, 0) >= position for log, position in held.items()):
            return True
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.002)


async def _record_switch(connection: Connection, name: str, active: int, version: int, *, back: bool) -> None:
    await connection.execute(
        "UPDATE projection_rebuilds SET state = %s WHERE name = %s AND version = %s AND state IN ('ready', 'switched')",
        ("rolled_back" if back else "switched", name, active if back else version),
    )


def _report(positions: Mapping[str, int], found: Sequence[Compared]) -> Verification:
    return Verification(
        position=positions,
        rows_active=sum(one.rows_active for one in found),
        rows_new=sum(one.rows_new for one in found),
        rows_differing=sum(one.rows_differing for one in found),
        max_deviation=max((one.max_deviation for one in found), default=0.0),
    )
