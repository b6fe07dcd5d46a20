import asyncio
from importlib.resources import files
from urllib.parse import urlsplit

import psycopg
import pytest

from smartgrid_adapters.postgres import migrate as module
from smartgrid_adapters.postgres.migrate import (
    Migration,
    MigrationFailed,
    current_version,
    expected_version,
    migrate,
    migrations,
)
from smartgrid_adapters.postgres.pool import Pool, conninfo_of


async def test_two_that_start_together_apply_each_file_once(empty_database: str) -> None:
    first, second = await asyncio.gather(migrate(empty_database), migrate(empty_database))

    assert sorted(first + second) == [step.name for step in migrations()]
    assert await migrate(empty_database) == []


async def test_a_migrated_database_is_at_the_version_of_the_code(pool: Pool) -> None:
    async with pool.connection() as conn:
        assert await current_version(conn) == expected_version()


async def test_an_empty_database_is_at_version_0(empty_database: str) -> None:
    async with await psycopg.AsyncConnection.connect(empty_database) as conn:
        assert await current_version(conn) == 0


async def test_a_file_that_changed_since_is_refused(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *rest = migrations()
    changed = Migration(first.version, first.name, first.text, "0" * 64)
    monkeypatch.setattr(module, "migrations", lambda: [changed, *rest])

    with pytest.raises(MigrationFailed, match=first.name):
        await migrate(database)


async def test_a_file_that_fails_leaves_no_trace(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Migration(9999, "9999_broken.sql", "CREATE TABLE half (a int); SELECT 1/0", "0" * 64)
    monkeypatch.setattr(module, "migrations", lambda: [*migrations(), broken])

    with pytest.raises(MigrationFailed, match="division by zero"):
        await migrate(database)
    async with await psycopg.AsyncConnection.connect(database) as conn:
        cursor = await conn.execute("SELECT to_regclass('half')")
        assert await cursor.fetchone() == (None,)


async def test_databases_of_one_cluster_may_be_migrated_together(postgres_server: str, empty_database: str) -> None:
    """Roles are common to the cluster, advisory locks are not."""
    async with await psycopg.AsyncConnection.connect(postgres_server, autocommit=True) as admin:
        await admin.execute("DROP DATABASE IF EXISTS second WITH (FORCE)")
        await admin.execute("CREATE DATABASE second")
        second = urlsplit(empty_database)._replace(path="/second").geturl()

        done = await asyncio.gather(migrate(empty_database), migrate(second))

        assert done[0] == done[1] == [step.name for step in migrations()]
        await admin.execute("DROP DATABASE second WITH (FORCE)")


async def test_the_application_works_as_its_own_role(database: str) -> None:
    async with await psycopg.AsyncConnection.connect(conninfo_of(database)) as conn:
        cursor = await conn.execute("SELECT current_user, current_setting('timezone')")
        assert await cursor.fetchone() == ("smartgrid_app", "UTC")


def test_numbers_of_migrations_are_unique() -> None:
    versions = [step.version for step in migrations()]

    assert len(set(versions)) == len(versions)
    assert len(versions) == sum(
        entry.name.endswith(".sql") for entry in (files("smartgrid_adapters.postgres") / "migrations").iterdir()
    )
