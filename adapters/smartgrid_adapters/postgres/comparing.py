"""Two versions of a read model, row by row, in the database."""

from typing import Final, NamedTuple

from psycopg import sql

from smartgrid_adapters.postgres.pool import Connection
from smartgrid_projections.versions import Rebuild

MOST_KEPT: Final = 100_000
"""Rows that differ and are kept of one rebuild; all are counted."""

# Images are compared, so 1.0 and 1.00 differ, and null equals null.
_COMPARE = """
    WITH pairs AS MATERIALIZED (
        SELECT old_row.{first} IS NOT NULL AS has_active, new_row.{first} IS NOT NULL AS has_new,
               {key} AS key, to_jsonb(old_row) AS active, to_jsonb(new_row) AS new, {deviation} AS deviation
        FROM {active} old_row FULL JOIN {new} new_row ON {joined}
        WHERE old_row.{first} IS NULL OR new_row.{first} IS NULL OR old_row OPERATOR(pg_catalog.*<>) new_row
    ), kept AS (
        INSERT INTO projection_diffs (rebuild_id, number, base, key, active, new)
        SELECT %(rebuild_id)s, %(after)s + row_number() OVER (ORDER BY key), %(base)s, key, active, new
        FROM pairs ORDER BY key LIMIT %(most)s
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM {active}), (SELECT count(*) FROM {new}), (SELECT count(*) FROM pairs),
           (SELECT coalesce(max(deviation), 0)::float8 FROM pairs), (SELECT count(*) FROM kept)
"""
_COLUMNS = """
    SELECT a.attname, t.typname, a.attnum = ANY(i.indkey::int2[])
    FROM pg_attribute a
    JOIN pg_type t ON t.oid = a.atttypid
    JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
    WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
"""
_NUMBERS: Final = frozenset({"int2", "int4", "int8", "numeric", "float8"})
_NOT_MEASURED: Final = frozenset({"q", "revision", "version", "position"})


class Compared(NamedTuple):
    """One table of both versions."""

    rows_active: int
    rows_new: int
    rows_differing: int
    max_deviation: float


async def compared(connection: Connection, rebuild: Rebuild, active: int) -> list[Compared]:
    """
    Compare all tables of *rebuild* with those of version *active*, in the snapshot of *connection*.

    What was kept of an earlier comparison of this rebuild is replaced.
    """
    await connection.execute("DELETE FROM projection_diffs WHERE rebuild_id = %s", (rebuild.rebuild_id,))
    cursor = await connection.execute(
        'SELECT base FROM projection_tables WHERE name = %s ORDER BY base COLLATE "C"', (rebuild.name,)
    )
    result: list[Compared] = []
    kept = 0
    for (base,) in await cursor.fetchall():
        query = await _query(connection, f"{base}_v{active}", f"{base}_v{rebuild.version}")
        values = {"rebuild_id": rebuild.rebuild_id, "after": kept, "base": base, "most": MOST_KEPT - kept}
        row = await (await connection.execute(query, values)).fetchone()
        if row is not None:
            result.append(Compared(*row[:4]))
            kept += row[4]
    return result


async def _query(connection: Connection, active: str, new: str) -> sql.Composed:
    columns = await (await connection.execute(_COLUMNS, (active,))).fetchall()
    keys = [sql.Identifier(name) for name, _, is_key in columns if is_key]
    numbers = [
        sql.Identifier(name)
        for name, kind, is_key in columns
        if kind in _NUMBERS and not is_key and name not in _NOT_MEASURED
    ]
    joined = sql.SQL(" AND ").join(sql.SQL("old_row.{0} = new_row.{0}").format(key) for key in keys)
    key = sql.SQL("concat_ws('/', {})").format(
        sql.SQL(", ").join(sql.SQL("coalesce(old_row.{0}, new_row.{0})").format(key) for key in keys)
    )
    gaps = [
        sql.SQL("abs(coalesce(old_row.{0}, 0)::numeric - coalesce(new_row.{0}, 0)::numeric)").format(one)
        for one in numbers
    ]
    return sql.SQL(_COMPARE).format(
        first=keys[0],
        key=key,
        active=sql.Identifier(active),
        new=sql.Identifier(new),
        joined=joined,
        deviation=sql.SQL("greatest({})").format(sql.SQL(", ").join([sql.SQL("0::numeric"), *gaps])),
    )
