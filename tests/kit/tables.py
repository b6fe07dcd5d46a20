"""Rows of read models in PostgreSQL, as bytes that are equal for equal rows."""

import re

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow
from tests.kit.checkers import Tables, Trace

_NAMES = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
_STATE = """
    SELECT v.name, v.epoch, c.log, c.position FROM projection_versions v JOIN projection_checkpoints c
    USING (name, version) WHERE v.state = 'active' ORDER BY v.name
"""

Connection = psycopg.AsyncConnection[TupleRow]


async def table_names(connection: Connection) -> list[str]:
    """Return the tables of all versions of all projections: those whose names end in their version."""
    rows = await (await connection.execute(_NAMES)).fetchall()
    return [name for (name,) in rows if re.search(r"_v[0-9]+\Z", name)]


async def dump(connection: Connection) -> Tables:
    """Return all rows of all read models."""
    parts = [
        sql.SQL("SELECT {}, string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\") FROM {} t").format(
            sql.Literal(name), sql.Identifier(name)
        )
        for name in await table_names(connection)
    ]
    rows = await (await connection.execute(sql.SQL(" UNION ALL ").join(parts))).fetchall()
    return {name: (text or "").encode() for name, text in rows}


async def traces(connection: Connection) -> dict[str, Trace]:
    """Return how far the versions in use are."""
    found: dict[str, Trace] = {}
    for name, epoch, log, position in await (await connection.execute(_STATE)).fetchall():
        before = found.get(name, Trace(name, epoch, {}))
        found[name] = Trace(name, epoch, {**before.positions, log: position})
    return found


async def forget(connection: Connection) -> None:
    """Empty all read models and set their checkpoints to the beginning, as if nothing had been folded."""
    for name in await table_names(connection):  # of so few rows TRUNCATE, which makes files, is much slower
        await connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
    await connection.execute("UPDATE projection_checkpoints SET position = 0, epoch = 0")
    await connection.execute(
        "UPDATE projection_versions SET owner = NULL, lease_until = NULL, lock_held = false, epoch = 0, "
        "last_error = NULL"
    )


BUCKETS = """
    SELECT s.subject_id, s.measurand, s.phase, (extract(epoch FROM r.bucket_start) * 1000000)::bigint, r.n, r.s::bigint
    FROM rollups_v1 r JOIN series s USING (series_id) WHERE r.level = 0 AND r.n > 0
"""


async def buckets(connection: Connection) -> dict[tuple[str, str, str, int], tuple[int, int]]:
    """Return number and sum of the quarters of an hour that hold readings."""
    rows = await (await connection.execute(BUCKETS)).fetchall()
    return {(row[0], row[1], row[2], row[3]): (row[4], row[5]) for row in rows}
