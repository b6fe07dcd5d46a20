"""The table of accounts, written by its projection."""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import astuple, fields
from psycopg import sql
from psycopg.rows import class_row

from smartgrid_adapters.postgres.pool import Connection
from smartgrid_commands.sealing import Sealer
from smartgrid_projections.read_models.users import UserRow
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event

_COLUMNS: Final = [field.name for field in fields(UserRow)]


class PostgresUserTables:
    """The table of one version of the projection, in the transaction that moves its checkpoint."""

    def __init__(self, connection: Connection, sealer: Sealer, version: int = 1) -> None:
        self._connection = connection
        self._sealer = sealer
        names = [sql.Identifier(name) for name in _COLUMNS]
        table = sql.Identifier(f"users_v{version}")
        columns = sql.SQL(", ").join(names)
        self._load = sql.SQL("SELECT {} FROM {} WHERE user_id = ANY(%s)").format(columns, table)
        self._save = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (user_id) DO UPDATE SET {}").format(
            table,
            columns,
            sql.SQL(", ").join([sql.Placeholder()] * len(names)),
            sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(name) for name in names[1:]),
        )

    def packed(self, recorded: Recorded[Event], field: str) -> bytes | None:
        return self._sealer.pack_sealed(recorded, field)

    async def load(self, user_ids: Sequence[str]) -> dict[str, UserRow]:
        async with self._connection.cursor(row_factory=class_row(UserRow)) as cursor:
            await cursor.execute(self._load, (list(user_ids),))
            return {row.user_id: row for row in await cursor.fetchall()}

    async def save(self, rows: Sequence[UserRow]) -> None:
        async with self._connection.cursor() as cursor:
            await cursor.executemany(self._save, [astuple(row) for row in rows])
