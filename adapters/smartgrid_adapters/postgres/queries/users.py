"""Accounts from the read model that folds the identity log."""

from collections.abc import Sequence
from typing import Any

from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_commands.sealing import Sealer
from smartgrid_projections.queries.users import Account, After

USERS = """
SELECT user_id, username, email, customer_id, role, is_active, version, created_at
FROM users
WHERE (%(role)s::text IS NULL OR role = %(role)s)
  AND (%(created_at)s::timestamptz IS NULL OR (created_at, user_id) > (%(created_at)s, %(user_id)s))
ORDER BY created_at, user_id
LIMIT %(limit)s
"""


class PostgresUsers:
    """The port ``Users``."""

    def __init__(self, pool: Pool, sealer: Sealer) -> None:
        self._pool, self._sealer = pool, sealer

    async def users(self, *, role: str | None, after: After | None, limit: int) -> Sequence[Account]:
        parameters = {
            "role": role,
            "created_at": after.created_at if after else None,
            "user_id": after.user_id if after else None,
            "limit": limit,
        }

        async def read(conn: Connection) -> list[tuple[Any, ...]]:
            return await (await conn.execute(USERS, parameters)).fetchall()

        return [await self._opened(row) for row in await run_safely(self._pool, read)]

    async def _opened(self, row: tuple[Any, ...]) -> Account:
        user_id, username, email, customer_id, role, is_active, version, created_at = row
        return Account(
            id=user_id,
            username=await self._sealer.open_packed(username),
            email=await self._sealer.open_packed(email),
            customer_id=await self._sealer.open_packed(customer_id),
            role=role,
            is_active=is_active,
            version=version,
            created_at=created_at,
        )
