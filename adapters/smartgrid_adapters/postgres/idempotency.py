"""Idempotency keys in PostgreSQL."""

from typing import Any, Final
from uuid import uuid4

import psycopg
from psycopg import sql

from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_commands.idempotency import KEPT_S, LEASE_S, Kept, key_hash
from smartgrid_commands.reading_calls import Lease, LeaseLost
from smartgrid_domain.errors import Conflict, Invalid

_CLAIM = "SELECT claimed, same, answer, first_position FROM idempotency_claim(%s, %s, %s, %s, %s, %s)"
_KEEP = "SELECT idempotency_finish(ARRAY[%s], ARRAY[%s::bytea], ARRAY[%s::uuid], ARRAY[%s::bytea], 0, NULL)"
_RELEASE = "DELETE FROM idempotency WHERE principal = %s AND key_hash = %s AND lease = %s AND answer IS NULL"
_FORGET = "DELETE FROM idempotency WHERE created_at < now() - make_interval(secs => %s)"
_FORGET_EVERY: Final = 500
_LEASE_LOST: Final = "SGL01"


class PostgresIdempotencyKeys:
    """
    Fulfils ``IdempotencyKeys``.

    Args:
        pool: Connections.
        lease_s: How long a request that died holds its key [s].
        kept_s: How long an answer is kept [s].
    """

    def __init__(self, pool: Pool, *, lease_s: int = LEASE_S, kept_s: int = KEPT_S) -> None:
        self._pool = pool
        self._lease_s = lease_s
        self._kept_s = kept_s
        self._claims = 0

    async def claim(self, principal: str, key: str, request: bytes) -> Lease | Kept:
        lease = Lease(principal=principal, key_hash=key_hash(key), token=uuid4())
        self._claims += 1
        forget = self._claims % _FORGET_EVERY == 0

        async def unit(conn: Connection) -> Any:  # noqa: ANN401  # a row
            if forget:
                await conn.execute(_FORGET, (self._kept_s,))
            parameters = (principal, lease.key_hash, request, lease.token, self._lease_s, self._kept_s)
            return await (await conn.execute(_CLAIM, parameters)).fetchone()

        claimed, same, answer, first_position = await run_safely(self._pool, unit)
        if claimed:
            return lease
        if same is False:
            raise Invalid(
                "idempotency_key_reused", "This Idempotency-Key was sent with another request; choose a new one"
            )
        if answer is None:
            raise Conflict(
                "idempotency_in_progress", "The first request with this key is being answered; repeat it soon"
            )
        return Kept(answer=bytes(answer), first_position=first_position or 0)

    async def keep(self, lease: Lease, answer: bytes) -> None:
        async def unit(conn: Connection) -> None:
            await conn.execute(_KEEP, (lease.principal, lease.key_hash, lease.token, answer))

        try:
            await run_safely(self._pool, unit)
        except psycopg.Error as error:
            if error.sqlstate != _LEASE_LOST:
                raise
            raise LeaseLost from error

    async def release(self, lease: Lease) -> None:
        async def unit(conn: Connection) -> None:
            await conn.execute(sql.SQL(_RELEASE), (lease.principal, lease.key_hash, lease.token))

        await run_safely(self._pool, unit)
