"""The composition root: which adapter stands behind which port."""

import asyncio
import contextlib
import hmac
from collections.abc import AsyncGenerator, Callable, Generator
from datetime import timedelta

import structlog
from msgspec.structs import fields

from smartgrid_adapters.passwords import Argon2Passwords
from smartgrid_adapters.postgres.accounts import PostgresAccounts
from smartgrid_adapters.postgres.audit import PostgresChains
from smartgrid_adapters.postgres.checkpoints import PostgresStandings
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.facts import PostgresFacts
from smartgrid_adapters.postgres.flush import PostgresReadingStore
from smartgrid_adapters.postgres.idempotency import PostgresIdempotencyKeys
from smartgrid_adapters.postgres.imports import PostgresImports
from smartgrid_adapters.postgres.log_times import PostgresLogTimes
from smartgrid_adapters.postgres.migrate import current_version, expected_version
from smartgrid_adapters.postgres.pool import Connection, Pool, open_pool, run_safely
from smartgrid_adapters.postgres.queries.events import PostgresEvents
from smartgrid_adapters.postgres.queries.meter_readings import PostgresRegisters
from smartgrid_adapters.postgres.queries.meters import PostgresMeters
from smartgrid_adapters.postgres.queries.readings import PostgresRegister
from smartgrid_adapters.postgres.queries.receipts import PostgresReceipts
from smartgrid_adapters.postgres.queries.sensors import PostgresSensors
from smartgrid_adapters.postgres.queries.users import PostgresUsers
from smartgrid_adapters.postgres.sealing import PostgresDataKeys
from smartgrid_adapters.postgres.stats import PostgresStats
from smartgrid_adapters.postgres.trends import PostgresTrends
from smartgrid_adapters.postgres.versions import PostgresVersions
from smartgrid_adapters.sealing import KeySealer, master_key
from smartgrid_adapters.tokens import BootstrapFile, JwtAccessTokens, SigningKey, load_keys
from smartgrid_commands.identity import Identity
from smartgrid_commands.importing import Import, ImportRunner
from smartgrid_commands.ingestion import Ingestion, Prepared
from smartgrid_commands.ports import StoreUnavailable
from smartgrid_commands.profiles import IdentitySettings
from smartgrid_http.auth import unauthenticated
from smartgrid_http.authentication import TokenAuthenticator
from smartgrid_http.health import Check, HealthBoard
from smartgrid_http.ingestion import read_part
from smartgrid_http.limits import Limits
from smartgrid_http.pages import Cursors
from smartgrid_http.principal import Principal
from smartgrid_http.services import Services
from smartgrid_ops.failpoints import calls_of, counted
from smartgrid_ops.secrets_files import ensure_secret
from smartgrid_ops.settings import BadSetting, Settings
from smartgrid_ops.system import SystemClock, SystemIds
from smartgrid_ops.telemetry import Appends, Build, Heads, Verdicts
from smartgrid_projections.queries.standing import Waiting

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

log = structlog.get_logger("smartgrid.wiring")


@contextlib.asynccontextmanager
async def build_services(settings: Settings, url: str) -> AsyncGenerator[Services, None]:
    """
    Open everything that handlers need, and close it in the reverse order.

    Args:
        settings: All of them.
        url: The database.

    Raises:
        BadSetting: A key file is missing or holds something else.
    """
    async with contextlib.AsyncExitStack() as stack:
        clock, ids = SystemClock(), SystemIds()
        master, pepper, signing_keys = master_key_of(settings), pepper_of(settings), signing_keys_of(settings)
        pool = await open_pool(url, max_size=POOL_SIZE)
        stack.push_async_callback(pool.close)
        sealer = KeySealer(PostgresDataKeys(pool), master)
        store = PostgresEventStore(pool, sealer=sealer)
        await store.start()
        stack.push_async_callback(store.stop)
        readings = PostgresReadingStore(pool, store, sealer=sealer)
        stack.push_async_callback(readings.stop)
        standings = PostgresStandings(pool)
        appends, verdicts, heads = Appends(), Verdicts(), Heads(standings, store, clock)
        store.writer.on_done = appends.add
        await stack.enter_async_context(heads.refreshed())
        passwords = Argon2Passwords(pepper)
        stack.callback(passwords.close)
        identity = Identity(
            store=store,
            accounts=PostgresAccounts(pool),
            sealer=sealer,
            passwords=passwords,
            tokens=JwtAccessTokens(signing_keys),
            clock=clock,
            ids=ids,
            code_file=BootstrapFile(settings.home / "bootstrap-code"),
            settings=IdentitySettings(
                bootstrap_ttl=timedelta(seconds=settings.bootstrap_ttl_s),
                open_registration=settings.registration == "open",
            ),
        )
        calls = calls_of(settings.failpoint, "ingestion", StoreUnavailable)
        ingestion = Ingestion(counted(calls, readings, "readings"), clock, count=verdicts.add)
        keys, imports = counted(calls, PostgresIdempotencyKeys(pool), "keys"), PostgresImports(pool)
        runner = ImportRunner(imports, ingestion, keys, ids, part_reader(ingestion), log_error=_log_error)
        await stack.enter_async_context(running(runner))
        yield Services(
            clock=clock,
            ids=ids,
            authenticator=TokenAuthenticator(identity.tokens, identity.session, clock),
            store=counted(calls, store, "store"),
            times=PostgresLogTimes(pool),
            events=PostgresEvents(pool),
            chains=PostgresChains(pool),
            ingestion=ingestion,
            keys=keys,
            imports=imports,
            runner=runner,
            sealer=sealer,
            facts=PostgresFacts(pool),
            register=PostgresRegister(pool),
            sensors=PostgresSensors(pool),
            meters=PostgresMeters(pool, sealer),
            registers=PostgresRegisters(pool),
            receipts=PostgresReceipts(pool),
            cursors=Cursors(hmac.digest(master, b"cursors", "sha256"), clock.now),
            identity=identity,
            users=PostgresUsers(pool, sealer),
            waiting=Waiting(standings),
            standings=standings,
            versions=PostgresVersions(pool),
            stats=PostgresStats(pool),
            trends=PostgresTrends(pool, sealer),
            tz=settings.tz,
            price_eur_per_kwh=settings.price_eur_per_kwh,
            health=HealthBoard(needed=checks_of(pool)),
            limits=limits_of(settings),
            hosts=hosts_of(settings),
            metric_sources=[Build(), appends, verdicts, heads],
            log_error=_log_error,
        )


def part_reader(ingestion: Ingestion) -> Callable[[Import, bytes, bool], Prepared]:
    """Return what turns parts of imported files into items."""
    return lambda job, data, first: read_part(job, data, ingestion.now_us(), ingestion.latest_us(), first=first)


@contextlib.asynccontextmanager
async def running(runner: ImportRunner) -> AsyncGenerator[None, None]:
    """Have *runner* record imports meanwhile."""
    task = asyncio.create_task(runner.run(), name="imports")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def master_key_of(settings: Settings) -> bytes:
    """Return the key that wraps the data keys; made at the first start where none is given."""
    with _named("SMARTGRID_MASTER_KEY"):
        return master_key(settings.master_key or ensure_secret(settings.keys / "master-key"))


def pepper_of(settings: Settings) -> bytes:
    """Return what passwords are peppered with; made at the first start where none is given."""
    with _named("SMARTGRID_PEPPER"):
        return (settings.pepper or ensure_secret(settings.keys / "pepper")).read_bytes()


def signing_keys_of(settings: Settings) -> list[SigningKey]:
    """Return the keys of access tokens; made at the first start where none are given."""
    with _named("SMARTGRID_JWT_KEYS"):
        return load_keys(settings.jwt_keys or settings.keys, make=settings.jwt_keys is None)


@contextlib.contextmanager
def _named(setting: str) -> Generator[None, None, None]:
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        raise BadSetting(setting, str(error)) from error


POOL_SIZE = 8
"""Most connections of one process for queries."""


def checks_of(pool: Pool) -> dict[str, Check]:
    """Return what must hold for a process to be ready: the store answers, at the version of this code."""
    expected = expected_version()

    async def usable(conn: Connection) -> bool:
        await conn.execute("SELECT 1")
        return True

    async def at_version(conn: Connection) -> bool:
        return await current_version(conn) == expected

    async def store() -> bool:
        return await run_safely(pool, usable)

    async def migrations() -> bool:
        return await run_safely(pool, at_version)

    return {"store": store, "migrations": migrations}


def limits_of(settings: Settings) -> Limits:
    """Return the limits of the HTTP front with what the settings change."""
    known = {field.name for field in fields(Limits)}
    return Limits(**{name: value for name, value in settings.limits.items() if name in known})


def hosts_of(settings: Settings) -> frozenset[str] | None:
    """Return the names accepted in ``Host``: those given, else this machine's; None for any."""
    if settings.hosts is not None:
        return None if "*" in settings.hosts else frozenset(name.lower() for name in settings.hosts)
    return LOOPBACK_NAMES | {settings.host.lower()}


@contextlib.asynccontextmanager
async def watched(board: HealthBoard) -> AsyncGenerator[HealthBoard, None]:
    """Have the checks of *board* run beside the requests; the first round is done on entry."""
    await board.tick()
    task = asyncio.ensure_future(board.run())
    try:
        yield board
    finally:
        task.cancel()


def _log_error(request_id: str, error: BaseException) -> None:
    log.error("request failed", request_id=request_id, exc_info=error)


class NoTokens:
    """Authentication of a process that nobody signs in to."""

    def known(self, token: bytes) -> Principal | None:
        """Know no token."""
        _ = token
        return None

    async def verify(self, token: bytes, *, strict: bool) -> Principal:
        """Refuse every token."""
        _ = token, strict
        raise unauthenticated("The token is invalid")
