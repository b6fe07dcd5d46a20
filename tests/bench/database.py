"""Databases to measure in: the embedded server with the settings of the product."""

import itertools
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from msgspec import Struct
from psycopg import sql
from psycopg.rows import TupleRow

from smartgrid_adapters.postgres.migrate import migrate
from smartgrid_ops.embedded_postgres import EmbeddedPostgres

_numbers = itertools.count()
_DURABILITY = ("fsync", "synchronous_commit", "full_page_writes")


class Server(Struct, frozen=True):
    """
    A running PostgreSQL.

    Attributes:
        url: Of its first database.
        version: Of the server.
        rounds: How often each side of a figure is measured.
    """

    url: str
    version: str
    rounds: int


@asynccontextmanager
async def server(rounds: int) -> AsyncGenerator[Server]:
    """Run a server with fsync on in a folder of its own and remove both afterwards."""
    home = Path(tempfile.mkdtemp(prefix="sg-bench-"))
    postgres = EmbeddedPostgres(home)
    try:
        url = postgres.start()
        async with await psycopg.AsyncConnection.connect(url) as conn:
            told = {name: await _setting(conn, name) for name in _DURABILITY}
            if set(told.values()) != {"on"}:
                raise RuntimeError(f"figures need a durable server: {told}")
            yield Server(url, str(conn.info.server_version // 10_000) + f".{conn.info.server_version % 10_000}", rounds)
    finally:
        postgres.stop()
        shutil.rmtree(home, ignore_errors=True)


async def _setting(conn: psycopg.AsyncConnection[TupleRow], name: str) -> str:
    row = await (await conn.execute("SELECT current_setting(%s)", (name,))).fetchone()
    return str(row[0]) if row else ""


def url_of_database(url: str, name: str) -> str:
    """Return the URL of database *name* on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@asynccontextmanager
async def fresh_database(it: Server) -> AsyncGenerator[str]:
    """Yield the URL of a migrated database of its own."""
    name = f"bench{next(_numbers)}"
    async with await psycopg.AsyncConnection.connect(it.url, autocommit=True) as conn:
        await conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            url = url_of_database(it.url, name)
            await migrate(url)
            yield url
        finally:
            await conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
