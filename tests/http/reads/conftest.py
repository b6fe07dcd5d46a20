from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from tests.conftest import TEMPLATE, fresh_database
from tests.http.reads.filling import Filler, Pool

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.facts import PostgresFacts
from smartgrid_adapters.postgres.idempotency import PostgresIdempotencyKeys
from smartgrid_adapters.postgres.log_times import PostgresLogTimes
from smartgrid_adapters.postgres.queries.meter_readings import PostgresRegisters
from smartgrid_adapters.postgres.queries.meters import PostgresMeters
from smartgrid_adapters.postgres.queries.readings import PostgresRegister
from smartgrid_adapters.postgres.queries.receipts import PostgresReceipts
from smartgrid_adapters.postgres.queries.sensors import PostgresSensors
from smartgrid_adapters.postgres.sealing import PostgresDataKeys
from smartgrid_adapters.sealing import KeySealer
from smartgrid_http.app import build_app
from smartgrid_http.pages import Cursors
from smartgrid_http.services import Services
from smartgrid_http.testing import AsgiClient, FixedClock, fixed_services

TABLES = """
SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
    AND NOT c.relispartition AND c.relname NOT IN
    ('schema_migrations', 'log_fences', 'projection_versions', 'projection_checkpoints')
"""


@pytest.fixture(scope="session")
def shared_database(postgres_server: str) -> Iterator[str]:
    with fresh_database(postgres_server, TEMPLATE) as url:
        yield url


@pytest.fixture
def database(shared_database: str) -> str:
    """Return the URL of an empty migrated database; emptying one takes a tenth of making one."""
    with psycopg.connect(shared_database, autocommit=True) as conn:
        conn.execute("SET session_replication_role = replica")  # only so does a log let go of its events
        names = conn.execute(TABLES).fetchall()
        statements = [sql.SQL("DELETE FROM {}").format(sql.Identifier(name)) for (name,) in names]
        conn.execute(sql.SQL("; ").join([*statements, sql.SQL("UPDATE projection_checkpoints SET position = 0")]))
    return shared_database


@pytest.fixture
def filler(pool: Pool) -> Filler:
    return Filler(pool)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def sealer(pool: Pool) -> KeySealer:
    return KeySealer(PostgresDataKeys(pool), b"m" * 32)


@pytest.fixture
def services(pool: Pool, store: PostgresEventStore, sealer: KeySealer, clock: FixedClock) -> Services:
    def fail(_: str, error: BaseException) -> None:
        raise error  # a mistake of ours shows itself, not an answer 500

    return fixed_services(
        clock=clock,
        log_error=fail,
        store=store,
        times=PostgresLogTimes(pool),
        sealer=sealer,
        keys=PostgresIdempotencyKeys(pool),
        facts=PostgresFacts(pool),
        register=PostgresRegister(pool),
        sensors=PostgresSensors(pool),
        meters=PostgresMeters(pool, sealer),
        registers=PostgresRegisters(pool),
        receipts=PostgresReceipts(pool),
        cursors=Cursors(b"secret", clock.now),
    )


@pytest.fixture
def anonymous(services: Services) -> AsgiClient:
    return AsgiClient(build_app(services))


@pytest.fixture
def client(anonymous: AsgiClient) -> AsgiClient:
    return anonymous.signed_in("operator")
