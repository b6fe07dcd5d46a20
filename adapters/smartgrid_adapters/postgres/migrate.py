"""Numbered SQL files, each applied once, in its own transaction."""

import contextlib
import hashlib
import re
from importlib.resources import files
from typing import Any

import psycopg
from msgspec import Struct
from psycopg import AsyncConnection, sql

LOCK_KEY = 5570193308531
"""Advisory lock that only one migrator of a database holds."""

LOCK_TIMEOUT_MS = 2000
"""How long a migration waits for a table that others use [ms], before it gives up and leaves all as it was."""

NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql\Z")


class MigrationFailed(Exception):
    """The database is not at the version of this code, and the text says what to do."""


class Migration(Struct, frozen=True):
    """
    One numbered file.

    Attributes:
        version: Its number.
        name: File name.
        text: The SQL.
        checksum: SHA-256 of the text, hexadecimal.
    """

    version: int
    name: str
    text: str
    checksum: str


def migrations() -> list[Migration]:
    """Return the migrations that come with this code, in order."""
    found: list[Migration] = []
    for entry in (files(__package__ or "") / "migrations").iterdir():
        if match := NAME.match(entry.name):
            text = entry.read_text(encoding="utf-8")
            checksum = hashlib.sha256(text.encode()).hexdigest()
            found.append(Migration(int(match[1]), entry.name, text, checksum))
    return sorted(found, key=lambda migration: migration.version)


def expected_version() -> int:
    """Return the version of the database that this code works with."""
    return max(migration.version for migration in migrations())


async def current_version(conn: AsyncConnection[Any]) -> int:
    """Return the highest version applied to the database of *conn*, 0 for an empty one."""
    cursor = await conn.execute("SELECT to_regclass('public.schema_migrations') IS NOT NULL")
    if not (await cursor.fetchone() or (False,))[0]:
        return 0
    cursor = await conn.execute("SELECT coalesce(max(version), 0) FROM schema_migrations")
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def migrate(url: str) -> list[str]:
    """
    Bring the database at *url* to the version of this code.

    Returns:
        The names of the files applied, in order; none when it was up to date.

    Raises:
        MigrationFailed: A file that was applied has changed since, or a file failed; those before it stay applied.

    Guarantees:
        Two that start together apply each file once: the second waits for the first.
    """
    async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=5) as conn:
        await conn.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        await conn.execute(
            "CREATE TABLE IF NOT EXISTS public.schema_migrations (version int PRIMARY KEY, name text NOT NULL, "
            "checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        cursor = await conn.execute("SELECT version, checksum FROM public.schema_migrations")
        applied: dict[int, str] = dict(await cursor.fetchall())
        done = [step.name for step in migrations() if await _apply(conn, step, applied.get(step.version))]
        await _make_months(conn)
        return done


async def _make_months(conn: AsyncConnection[Any]) -> None:
    """Make the register's partitions of the months around now; while it is in use the default one goes on holding."""
    with contextlib.suppress(psycopg.errors.LockNotAvailable):
        async with conn.transaction():
            await conn.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT_MS)))
            await conn.execute("SET LOCAL ROLE smartgrid_owner")
            await conn.execute("SELECT register_make_months(now())")


async def _apply(conn: AsyncConnection[Any], step: Migration, known_checksum: str | None) -> bool:
    if known_checksum == step.checksum:
        return False
    if known_checksum is not None:
        raise MigrationFailed(f"{step.name} has changed since it was applied; restore it and add a new file instead")
    try:
        async with conn.transaction():
            await conn.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT_MS)))
            await conn.execute("SET LOCAL client_min_messages = warning")
            if step.version > 1:  # the first one makes the roles
                await conn.execute("SET LOCAL ROLE smartgrid_owner")
            await conn.execute(step.text.encode())
            await conn.execute("RESET ROLE")
            await conn.execute(
                "INSERT INTO public.schema_migrations (version, name, checksum) VALUES (%s, %s, %s)",
                (step.version, step.name, step.checksum),
            )
    except psycopg.Error as error:
        raise MigrationFailed(f"{step.name}: {error}") from error
    return True
