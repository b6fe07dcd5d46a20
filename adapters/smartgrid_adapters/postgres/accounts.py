"""Credentials and sessions in PostgreSQL."""

from typing import Any

from smartgrid_adapters.postgres.effects import EFFECT_SQL, Statement
from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_commands.accounts import (
    Account,
    AddAccount,
    BootstrapCode,
    ClaimFirstAdmin,
    CloseSession,
    OpenSession,
    SessionRow,
)


def _add_account(effect: AddAccount) -> Statement:
    return (
        "INSERT INTO credentials (user_id, name_key, phc, role) VALUES (%s, %s, %s, %s)",
        (effect.user_id, effect.name_key, effect.phc, effect.role),
    )


def _claim_first_admin(effect: ClaimFirstAdmin) -> Statement:
    return (
        "WITH burnt AS (DELETE FROM bootstrap_code) INSERT INTO first_admin (user_id) VALUES (%s)",
        (effect.user_id,),
    )


def _open_session(effect: OpenSession) -> Statement:
    # The reference from the token to the session is checked at the end of the statement.
    return (
        (
            "WITH opened AS ("
            " INSERT INTO user_sessions (session_id, user_id, started_at, idle_until, expires_at)"
            " VALUES (%(session)s, %(user)s, %(started)s, %(idle)s, %(expires)s))"
            " INSERT INTO refresh_tokens (token_hash, session_id, number, issued_at)"
            " VALUES (%(hash)s, %(session)s, 1, %(started)s)"
        ),
        {
            "session": effect.session_id,
            "user": effect.user_id,
            "started": effect.started_at,
            "idle": effect.idle_until,
            "expires": effect.expires_at,
            "hash": effect.refresh_hash,
        },
    )


def _close_session(effect: CloseSession) -> Statement:
    return (
        "UPDATE user_sessions SET ended_at = %s, ended_reason = %s WHERE session_id = %s AND ended_at IS NULL",
        (effect.ended_at, effect.reason, effect.session_id),
    )


EFFECT_SQL[AddAccount] = _add_account
EFFECT_SQL[ClaimFirstAdmin] = _claim_first_admin
EFFECT_SQL[OpenSession] = _open_session
EFFECT_SQL[CloseSession] = _close_session


class PostgresAccounts:
    """The port ``Accounts``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def by_name(self, name_key: bytes) -> Account | None:
        row = await self._row(
            "SELECT user_id, phc, role, is_active, session_version FROM credentials WHERE name_key = %s", name_key
        )
        if row is None:
            return None
        user_id, phc, role, is_active, session_version = row
        return Account(user_id=user_id, phc=phc, role=role, is_active=is_active, session_version=session_version)

    async def session(self, session_id: str) -> SessionRow | None:
        row = await self._row(
            "SELECT s.user_id, c.role, c.session_version, c.is_active AND s.ended_at IS NULL, s.expires_at"
            " FROM user_sessions s JOIN credentials c USING (user_id) WHERE s.session_id = %s",
            session_id,
        )
        if row is None:
            return None
        user_id, role, session_version, alive, expires_at = row
        return SessionRow(
            session_id=session_id,
            user_id=user_id,
            role=role,
            session_version=session_version,
            alive=alive,
            expires_at=expires_at,
        )

    async def replace_hash(self, user_id: str, *, old: str, new: str) -> None:
        async def replace(conn: Connection) -> None:
            await conn.execute("UPDATE credentials SET phc = %s WHERE user_id = %s AND phc = %s", (new, user_id, old))

        await run_safely(self._pool, replace)

    async def has_admin(self) -> bool:
        return await self._row("SELECT 1 FROM first_admin") is not None

    async def put_bootstrap_code(self, code: BootstrapCode) -> bool:
        row = await self._row(
            "INSERT INTO bootstrap_code (code_hash, expires_at, wrong)"
            " SELECT %s, %s, %s WHERE NOT EXISTS (SELECT FROM first_admin)"
            " ON CONFLICT (single) DO UPDATE SET code_hash = excluded.code_hash, expires_at = excluded.expires_at,"
            " wrong = excluded.wrong RETURNING true",
            code.code_hash,
            code.expires_at,
            code.wrong,
        )
        return row is not None

    async def bootstrap_code(self) -> BootstrapCode | None:
        row = await self._row("SELECT code_hash, expires_at, wrong FROM bootstrap_code")
        return None if row is None else BootstrapCode(code_hash=row[0], expires_at=row[1], wrong=row[2])

    async def count_wrong_code(self) -> int:
        row = await self._row("UPDATE bootstrap_code SET wrong = wrong + 1 RETURNING wrong")
        return 0 if row is None else int(row[0])

    async def _row(self, text: str, *parameters: object) -> tuple[Any, ...] | None:
        async def read(conn: Connection) -> tuple[Any, ...] | None:
            return await (await conn.execute(text.encode(), parameters)).fetchone()

        return await run_safely(self._pool, read)
