"""The hash chains of the logs in PostgreSQL, in parts: the server hashes the rows of the next while one is checked."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from psycopg import sql

from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_adapters.postgres.telltales import REGISTERED, is_plausible
from smartgrid_projections.queries.audit import COMMIT, ROW, Audit, Chain, FirstBad, LogAudit, first_of
from smartgrid_schemas.envelope import LOGS

PART_COMMITS: Final = 20_000
PART_EVENTS: Final = 20_000

_COMMITS = """
    SELECT string_agg(
        int8send(c.last_position) || int4send(c.n) || timestamptz_send(c.recorded_at) || uuid_send(c.commit_id)
            || CASE octet_length(c.digest) WHEN 32 THEN c.digest ELSE sha256(c.digest) END,
        ''::bytea ORDER BY c.last_position
    )
    FROM (SELECT * FROM {commits} WHERE last_position > %(after)s ORDER BY last_position LIMIT %(limit)s) c
"""
# Spelled out, though the log has a function for it: whoever can change rows could have changed that function too.
_ROWS = """
    SELECT string_agg(
        int8send(e.notification_id) || sha256(
            int4send(8) || int8send(e.notification_id)
            || int4send(octet_length(convert_to(e.originator_id, 'UTF8'))) || convert_to(e.originator_id, 'UTF8')
            || int4send(8) || int8send(e.originator_version)
            || int4send(octet_length(convert_to(e.topic, 'UTF8'))) || convert_to(e.topic, 'UTF8')
            || coalesce(int4send(octet_length(e.metadata)) || e.metadata, int4send(-1))
            || int4send(octet_length(e.state)) || e.state
        ),
        ''::bytea ORDER BY e.notification_id
    )
    FROM {events} e WHERE e.notification_id > %(after)s AND e.notification_id <= %(up_to)s
"""
_ADDED = """
    SELECT notification_id, originator_id FROM {events}
    WHERE notification_id < 1 OR notification_id > coalesce(
        (SELECT last_position FROM {commits} ORDER BY last_position DESC LIMIT 1), 0)
    ORDER BY notification_id LIMIT 1
"""
# The eventsourcing library numbers its streams itself; its event names are Python paths, with a colon.
_VERSIONS = """
    SELECT v.notification_id, v.originator_id
    FROM (
        SELECT e.notification_id, e.originator_id, e.originator_version,
               lag(e.originator_version, 1, 0::bigint) OVER stream AS version_before,
               lag(e.notification_id, 1, 0::bigint) OVER stream AS position_before
        FROM {events} e WHERE position(':' IN e.topic) = 0
        WINDOW stream AS (PARTITION BY e.originator_id ORDER BY e.originator_version)
    ) v
    WHERE v.originator_version <> v.version_before + 1 OR v.notification_id <= v.position_before
    ORDER BY v.notification_id LIMIT 1
"""
_COMMIT_ROWS = """
    SELECT notification_id, originator_id, topic, state, metadata FROM {events}
    WHERE notification_id > %(after)s AND notification_id <= %(up_to)s ORDER BY notification_id
"""
_HEAD = """
    SELECT (SELECT count(*) FROM {events}),
           (SELECT digest FROM {commits} ORDER BY last_position DESC LIMIT 1),
           coalesce((SELECT last_position FROM {commits} ORDER BY last_position DESC LIMIT 1), 0),
           coalesce((SELECT max(position) FROM projection_checkpoints WHERE log = {name}), 0)
"""


class PostgresChains:
    """
    Fulfils ``Chains``.

    Args:
        pool: Connections; an audit holds one.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def verify(self) -> Audit:
        async def unit(connection: Connection) -> Audit:
            # One snapshot: what is appended meanwhile is not part of it, and no append waits for it.
            async with connection.transaction():
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                return await audited(connection)

        return await run_safely(self._pool, unit)


async def audited(connection: Connection) -> Audit:
    """Return what an audit of all logs finds, in the transaction of *connection*."""
    logs = {log: await _Log(connection, log).verify() for log in LOGS}
    bad = next((found for _, found in logs.values() if found is not None), None)
    return Audit(ok=bad is None, logs={log: told for log, (told, _) in logs.items()}, first_bad=bad)


class _Log:
    def __init__(self, connection: Connection, log: str) -> None:
        self._connection = connection
        self._log = log
        self._names = {
            "events": sql.Identifier(f"{log}_events"),
            "commits": sql.Identifier(f"{log}_commits"),
            "name": sql.Literal(log),
        }

    async def verify(self) -> tuple[LogAudit, FirstBad | None]:
        events, digest, last, seen = await self._row(_HEAD)
        told = LogAudit(events=events, head=None if digest is None else bytes(digest).hex())
        chain, versions = await self._chain(), await self._versions()
        if chain is not None and chain.reason == "altered" and chain.last_position > chain.position:
            chain = await self._narrowed(chain, versions)
        return told, first_of([chain, await self._found("row_added", _ADDED), versions, self._end(last, seen)])

    async def _narrowed(self, commit: FirstBad, versions: FirstBad | None) -> FirstBad:
        """Name the first row of a commit that cannot be what was written, by itself; the whole commit if none is."""
        values = {"after": commit.position - 1, "up_to": commit.last_position}
        query = sql.SQL(_COMMIT_ROWS).format(**self._names)
        rows = await (await self._connection.execute(query, values, binary=True)).fetchall()
        registered: dict[int, bytes] = {}
        if self._log == "telemetry":
            found = await (await self._connection.execute(REGISTERED, values, binary=True)).fetchall()
            registered = {row[0]: bytes(row[1]) for row in found}
        wrong = [
            (position, stream)
            for position, stream, topic, state, metadata in rows
            if not is_plausible(topic, state, metadata, registered.get(position))
        ]
        if versions is not None and commit.position <= versions.position <= commit.last_position:
            wrong.append((versions.position, versions.stream))
        if not wrong:
            return commit
        position, stream = min(wrong)
        return replace(commit, position=position, last_position=position, stream=stream)

    async def _chain(self) -> FirstBad | None:
        chain = Chain(self._log)
        checking: asyncio.Task[FirstBad | None] | None = None
        async for commits, rows in self._parts():
            if checking is not None and (bad := await checking) is not None:
                return bad
            checking = asyncio.create_task(asyncio.to_thread(chain.follow, commits, rows))
        return None if checking is None else await checking

    async def _parts(self) -> AsyncIterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield commits and their rows, as many at a time as memory bears; at least one commit."""
        after = 0
        while True:
            packed = (await self._row(_COMMITS, after=after, limit=PART_COMMITS))[0]
            if packed is None:
                return
            found = np.frombuffer(packed, COMMIT)
            last = found["last"].astype(np.int64)
            first = 0
            while first < len(last):
                until = max(first + 1, int(np.searchsorted(last, after + PART_EVENTS, side="right")))
                up_to = int(last[until - 1])
                rows = (await self._row(_ROWS, after=after, up_to=up_to))[0]
                yield found[first:until], np.frombuffer(rows or b"", ROW)
                first, after = until, up_to

    async def _versions(self) -> FirstBad | None:
        return await self._found("version_gap", _VERSIONS)

    async def _found(self, reason: Any, query: Any) -> FirstBad | None:  # noqa: ANN401  # literals
        row = await self._maybe(query)
        if row is None:
            return None
        return FirstBad(log=self._log, position=row[0], last_position=row[0], reason=reason, stream=row[1])

    def _end(self, last: int, seen: int) -> FirstBad | None:
        """Find that a read model has folded events that are not there any more."""
        if seen <= last:
            return None
        return FirstBad(log=self._log, position=last + 1, last_position=seen, reason="end_missing")

    async def _row(self, query: Any, **values: int) -> tuple[Any, ...]:  # noqa: ANN401  # a literal
        row = await self._maybe(query, **values)
        if row is None:
            raise RuntimeError("an aggregate always has a row")
        return row

    async def _maybe(self, query: Any, **values: int) -> tuple[Any, ...] | None:  # noqa: ANN401  # a literal
        cursor = await self._connection.execute(sql.SQL(query).format(**self._names), values, binary=True)
        return await cursor.fetchone()
