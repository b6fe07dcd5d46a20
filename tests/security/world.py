"""A whole identity service behind the front, with hashes that cost little and a clock that tests move."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smartgrid_adapters.memory.accounts import MemoryAccounts
from smartgrid_adapters.memory.data_keys import MemoryDataKeys
from smartgrid_adapters.memory.event_store import MemoryEventStore
from smartgrid_adapters.passwords import Argon2Passwords
from smartgrid_adapters.sealing import DataKeys, KeySealer
from smartgrid_adapters.tokens import BootstrapFile, JwtAccessTokens, SigningKey, load_keys
from smartgrid_commands.accounts import Accounts
from smartgrid_commands.identity import Identity
from smartgrid_commands.ports import EventStore, StoreUnavailable
from smartgrid_commands.profiles import IdentitySettings, SessionState
from smartgrid_http.app import build_app
from smartgrid_http.authentication import TokenAuthenticator
from smartgrid_http.front import Front
from smartgrid_http.services import Services
from smartgrid_http.testing import AsgiClient, FixedClock
from smartgrid_ops.system import SystemIds

MASTER = b"m" * 32
PASSWORD = "correct horse battery staple"  # noqa: S105  # of accounts that live for one test
CHEAP = {"memory_kib": 64, "passes": 1}


@dataclass(kw_only=True)
class World:
    """
    The service and its parts.

    Attributes:
        down: Whether the session source is out of reach.
    """

    app: Front
    services: Services
    identity: Identity
    accounts: Accounts
    store: EventStore
    passwords: Argon2Passwords
    tokens: JwtAccessTokens
    keys: Sequence[SigningKey]
    clock: FixedClock
    code_path: Path
    down: bool = False

    def client(self, token: str | None = None) -> AsgiClient:
        return AsgiClient(self.app, token=token)

    def code(self) -> str:
        return self.code_path.read_text()

    async def session(self, session_id: str) -> SessionState | None:
        if self.down:
            raise StoreUnavailable("down")
        return await self.identity.session(session_id)

    async def admin(self, username: str = "root") -> str:
        """Make the first admin and return his token."""
        await self.identity.issue_bootstrap_code()
        body = {"code": self.code(), "username": username, "email": "root@example.com", "password": PASSWORD}
        reply = await self.client().post("/api/v1/auth/bootstrap", body)
        assert reply.status == 201, reply.body
        return str(reply.json()["token"])

    async def user(self, username: str, admin: str, role: str = "viewer", customer_id: str | None = None) -> str:
        """Have *admin* register somebody and return that one's token."""
        body = {"username": username, "email": f"{username}@example.com", "password": PASSWORD, "role": role}
        if customer_id is not None:
            body["customer_id"] = customer_id
        reply = await self.client(admin).post("/api/v1/auth/register", body)
        assert reply.status == 201, reply.body
        signed = await self.client().post("/api/v1/auth/login", {"username": username, "password": PASSWORD})
        assert signed.status == 200, signed.body
        return str(signed.json()["token"])


def world_of(  # noqa: PLR0913  # the parts that tests exchange
    home: Path,
    *,
    store: EventStore,
    accounts: Accounts,
    sealer: KeySealer,
    clock: FixedClock,
    settings: IdentitySettings | None = None,
    passwords: Argon2Passwords | None = None,
) -> World:
    """Wire a world around a store."""
    keys = load_keys(home / "keys", make=True)
    tokens, ids = JwtAccessTokens(keys), SystemIds()
    passwords = passwords or Argon2Passwords(b"pepper", **CHEAP)
    identity = Identity(
        store=store,
        accounts=accounts,
        sealer=sealer,
        passwords=passwords,
        tokens=tokens,
        clock=clock,
        ids=ids,
        code_file=BootstrapFile(home / "bootstrap-code"),
        settings=settings or IdentitySettings(),
    )
    world: World

    async def lookup(session_id: str) -> SessionState | None:
        return await world.session(session_id)

    authenticator = TokenAuthenticator(tokens, lookup, clock)
    services = Services(clock=clock, ids=ids, authenticator=authenticator, store=store, identity=identity)
    world = World(
        app=build_app(services),
        services=services,
        identity=identity,
        accounts=accounts,
        store=store,
        passwords=passwords,
        tokens=tokens,
        keys=keys,
        clock=clock,
        code_path=home / "bootstrap-code",
    )
    return world


def memory_world(
    home: Path, settings: IdentitySettings | None = None, *, passwords: Argon2Passwords | None = None
) -> World:
    """Return a world without a database."""
    clock, accounts = FixedClock(), MemoryAccounts()
    sealer = KeySealer(_memory_keys(), MASTER)
    store = MemoryEventStore(sealer=sealer, now=clock.now, carry_out=accounts.carry_out)
    return world_of(
        home, store=store, accounts=accounts, sealer=sealer, clock=clock, settings=settings, passwords=passwords
    )


def _memory_keys() -> DataKeys:
    return MemoryDataKeys()
