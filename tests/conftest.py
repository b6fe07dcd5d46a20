"""One PostgreSQL per run, a fresh migrated database per test."""

import asyncio
import contextlib
import fcntl
import hashlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.migrate import migrate
from smartgrid_adapters.postgres.pool import Pool, open_pool
from smartgrid_adapters.postgres.sealing import PostgresDataKeys
from smartgrid_adapters.sealing import KeySealer
from smartgrid_ops.embedded_postgres import EmbeddedPostgres

TEMPLATE = "smartgrid_template"
LAST_WORKER_S = 100.0


@pytest.fixture(scope="session")
def unsafe_fast() -> Mapping[str, str]:
    """Settings that lose data on power failure; for tests that kill nothing."""
    return {"fsync": "off", "full_page_writes": "off", "max_connections": "100", "shared_buffers": "64MB"}


@pytest.fixture(scope="session")
def postgres_server(unsafe_fast: Mapping[str, str], request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of the server that all workers of this run share; the first one starts it, and stops it last."""
    worker_input: Mapping[str, str] = getattr(request.config, "workerinput", {})
    run = hashlib.sha256(worker_input.get("testrunuid", f"pid {os.getpid()}").encode()).hexdigest()[:10]
    home = Path(tempfile.gettempdir()) / f"sg-{run}"
    home.mkdir(mode=0o700, exist_ok=True)
    users, mine = home / "users", None
    users.mkdir(exist_ok=True)
    with _locked(home):
        if not (home / "url").exists():
            watched = os.getppid() if worker_input else None
            binaries = os.environ.get("SMARTGRID_TEST_POSTGRES")  # a folder such as /usr/lib/postgresql/15/bin
            mine = EmbeddedPostgres(
                home, settings=unsafe_fast, watched_pid=watched, binaries=Path(binaries) if binaries else None
            )
            try:
                url = mine.start()
                _make_template(url)
            except BaseException:
                mine.stop()
                shutil.rmtree(home)
                raise
            (home / "url").write_text(url)
        url = (home / "url").read_text()
        (users / str(os.getpid())).touch()
    yield url
    (users / str(os.getpid())).unlink()
    if mine is not None:
        end = time.monotonic() + LAST_WORKER_S
        while any(users.iterdir()) and time.monotonic() < end:
            time.sleep(0.02)  # the other workers are at their last tests
        mine.stop()
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _locked(home: Path) -> Generator[None]:
    with (home / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_template(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    asyncio.run(migrate(url_of_database(url, TEMPLATE)))


def url_of_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


_numbers = itertools.count()


@contextlib.contextmanager
def fresh_database(server: str, template: str) -> Generator[str]:
    name = f"t{os.getpid()}_{next(_numbers)}"  # copying files takes a quarter of the time of copying through the WAL
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        try:
            yield url_of_database(server, name)
        finally:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def empty_database(postgres_server: str) -> Iterator[str]:
    """Return the URL of a database without any table of ours."""
    with fresh_database(postgres_server, "template0") as url:
        yield url


@pytest.fixture
def database(postgres_server: str) -> Iterator[str]:
    """Return the URL of a fresh migrated database."""
    with fresh_database(postgres_server, TEMPLATE) as url:
        yield url


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    """Return an open pool on a fresh migrated database, as the application's role."""
    pool = await open_pool(database)
    yield pool
    await pool.close()


@pytest.fixture
async def postgres_store(pool: Pool) -> AsyncIterator[PostgresEventStore]:
    """Return a started event store on a fresh database; personal fields are sealed with a fixed master key."""
    store = PostgresEventStore(pool, sealer=KeySealer(PostgresDataKeys(pool), b"m" * 32))
    await store.start()
    yield store
    await store.stop()


@pytest.fixture
def store(postgres_store: PostgresEventStore) -> PostgresEventStore:
    """Return the same under a shorter name, which a suite over several stores may take for itself."""
    return postgres_store
