"""Files of readings, spooled in PostgreSQL."""

from typing import Any
from uuid import UUID

import msgspec

from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_commands.importing import Import
from smartgrid_commands.ingestion import ItemError

_BEGIN = "INSERT INTO imports (import_id, actor, mode, media_type, state) VALUES (%s, %s, %s, %s, 'spooling')"
_ADD = "INSERT INTO import_parts (import_id, part, data) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
_START = "UPDATE imports SET state = 'running', header = %s, parts = %s WHERE import_id = %s"
_DISCARD = "DELETE FROM imports WHERE import_id = %s AND state = 'spooling'"
_FORGET = "DELETE FROM imports WHERE state = 'spooling' AND created_at < now() - interval '1 hour'"
_FIND = """
    SELECT import_id, actor, mode, media_type, header, parts, state, next_part, read, accepted, duplicates, rejected,
        errors
    FROM imports WHERE import_id = %s AND state <> 'spooling'
"""
_CLAIM = """
    UPDATE imports SET lease = %s, lease_until = now() + make_interval(secs => %s)
    WHERE import_id = (
        SELECT import_id FROM imports WHERE state = 'running' AND lease_until < now()
        ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING import_id, actor, mode, media_type, header, parts, state, next_part, read, accepted, duplicates, rejected,
        errors
"""
_PART = "SELECT data FROM import_parts WHERE import_id = %s AND part = %s"
_SAVE = """
    UPDATE imports SET state = %s, next_part = %s, read = %s, accepted = %s, duplicates = %s, rejected = %s,
        errors = %s, lease_until = now() + make_interval(secs => %s)
    WHERE import_id = %s AND lease = %s
"""
_DROP_PARTS = "DELETE FROM import_parts WHERE import_id = %s"
_ENCODE = msgspec.msgpack.Encoder().encode
_ERRORS = msgspec.msgpack.Decoder(list[ItemError])


class PostgresImports:
    """
    Fulfils ``Imports``.

    Args:
        pool: Connections.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def begin(self, job: Import) -> None:
        await self._execute(_FORGET, ())
        await self._execute(_BEGIN, (job.import_id, job.actor, job.mode, job.media_type))

    async def add_part(self, import_id: str, part: int, data: bytes) -> None:
        await self._execute(_ADD, (import_id, part, data))

    async def start(self, job: Import) -> None:
        await self._execute(_START, (job.header, job.parts, job.import_id))

    async def discard(self, import_id: str) -> None:
        await self._execute(_DISCARD, (import_id,))

    async def find(self, import_id: str) -> Import | None:
        row = await self._row(_FIND, (import_id,))
        return None if row is None else _import(row)

    async def claim(self, token: UUID, lease_s: int) -> Import | None:
        row = await self._row(_CLAIM, (token, lease_s))
        return None if row is None else _import(row)

    async def part(self, import_id: str, part: int) -> bytes:
        row = await self._row(_PART, (import_id, part))
        return b"" if row is None else bytes(row[0])

    async def save(self, job: Import, token: UUID, lease_s: int) -> bool:
        values = (
            job.state,
            job.next_part,
            job.read,
            job.accepted,
            job.duplicates,
            job.rejected,
            _ENCODE(job.errors),
            lease_s,
            job.import_id,
            token,
        )

        async def unit(conn: Connection) -> bool:
            async with conn.transaction():
                mine = (await conn.execute(_SAVE, values)).rowcount == 1
                if mine and job.state != "running":
                    await conn.execute(_DROP_PARTS, (job.import_id,))
            return mine

        return await run_safely(self._pool, unit)

    async def _execute(self, text: Any, values: tuple[Any, ...]) -> None:  # noqa: ANN401  # constant SQL
        async def unit(conn: Connection) -> None:
            await conn.execute(text, values)

        await run_safely(self._pool, unit)

    async def _row(self, text: Any, values: tuple[Any, ...]) -> Any:  # noqa: ANN401  # constant SQL, a row
        async def unit(conn: Connection) -> Any:  # noqa: ANN401
            return await (await conn.execute(text, values, binary=True)).fetchone()

        return await run_safely(self._pool, unit)


def _import(row: Any) -> Import:  # noqa: ANN401  # a row
    *values, errors = row
    names = ("import_id", "actor", "mode", "media_type", "header", "parts", "state", "next_part")
    counts = ("read", "accepted", "duplicates", "rejected")
    job = Import(**dict(zip((*names, *counts), values, strict=True)))
    if errors is not None:
        job.errors = _ERRORS.decode(errors)
    return job
