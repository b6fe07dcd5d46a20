"""Times and positions of the logs in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import sql

from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_schemas.envelope import LOGS

_POSITION_AT = "SELECT known, last_position FROM log_position_at(%s, %s)"
_RECORDED_AT = {
    log: sql.SQL("SELECT recorded_at FROM {} WHERE last_position >= %s ORDER BY last_position LIMIT 1").format(
        sql.Identifier(f"{log}_commits")
    )
    for log in LOGS
}


class PostgresLogTimes:
    """
    Fulfils ``LogTimes``.

    Args:
        pool: Connections.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def position_at(self, log: str, at: datetime) -> int | None:
        row = await self._row(_POSITION_AT.encode(), (log, at))
        return int(row[1]) if row is not None and row[0] else None

    async def recorded_at(self, log: str, position: int) -> datetime | None:
        if position < 1:
            return None
        row = await self._row(_RECORDED_AT[log], (position,))
        found: datetime | None = None if row is None else row[0]
        return found

    async def _row(self, query: sql.Composed | bytes, values: Sequence[object]) -> tuple[Any, ...] | None:
        async def unit(conn: Connection) -> tuple[Any, ...] | None:
            return await (await conn.execute(query, values)).fetchone()

        return await run_safely(self._pool, unit)
