"""Accounts and sessions: first admin, registration, signing in and out, who am I, who is there."""

from datetime import datetime
from typing import Annotated, Literal, cast

from litestar import get, post
from litestar.di import NamedDependency
from msgspec import Meta, Struct

from smartgrid_commands.identity import Identity
from smartgrid_commands.profiles import Client, NewAccount, Profile, SignedIn
from smartgrid_http.answers import Answer, answer, no_content
from smartgrid_http.auth import bearer, unauthenticated
from smartgrid_http.call import Call, call_of, principal_of
from smartgrid_http.describe import describe
from smartgrid_http.guard import Req, body_of, optional_body_of
from smartgrid_http.pages import scope_of
from smartgrid_http.params import query_of
from smartgrid_http.positions import TokenList, WaitMs, behind, positions_of
from smartgrid_http.ranges import Limit
from smartgrid_http.services import Services, present
from smartgrid_projections.queries.users import Account, After, matching

LOG = "identity"
PAGE = 100
MAX_USER_AGENT = 512
UNASKED_WAIT_MS = 250
"""How long a list waits for what was just done, when nobody asked for a position [ms]."""

Text = Annotated[str, Meta(max_length=1024)]
CustomerId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z")]
Role = Literal["viewer", "user", "analyst", "operator", "admin"]
RoleName = Literal["viewer", "analyst", "operator", "admin"]


class Bootstrap(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first admin."""

    code: Text
    username: Text
    email: Text
    password: Text


class Registration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new account."""

    username: Text
    email: Text
    password: Text
    role: Role = "viewer"
    customer_id: CustomerId | None = None


class Login(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Name and password."""

    username: Text
    password: Text


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """An empty object."""


class UserView(Struct, frozen=True, kw_only=True):
    """An account."""

    id: str
    username: str | None
    email: str | None
    role: RoleName
    customer_id: str | None
    is_active: bool
    version: int
    created_at: datetime


class UserAnswer(Struct, frozen=True, kw_only=True):
    """One account."""

    status: Literal["success"] = "success"
    user: UserView


class UsersAnswer(Struct, frozen=True, kw_only=True):
    """A page of accounts."""

    status: Literal["success"] = "success"
    users: list[UserView]
    next_cursor: str | None


class LoginAnswer(Struct, frozen=True, kw_only=True):
    """A fresh session."""

    status: Literal["success"] = "success"
    token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  # a scheme, not a secret
    expires_in: int
    refresh_token: str
    user: UserView


class VerifiedUser(Struct, frozen=True, kw_only=True):
    """What a token says."""

    sub: str
    user_id: str
    username: str | None
    role: RoleName
    exp: int
    iat: int
    jti: str


class VerifyAnswer(Struct, frozen=True, kw_only=True):
    """A good token."""

    status: Literal["success"] = "success"
    user: VerifiedUser


class Jwk(Struct, frozen=True, kw_only=True):
    """A public key."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    use: Literal["sig"]
    alg: Literal["EdDSA"]
    kid: str
    x: str


class Jwks(Struct, frozen=True, kw_only=True):
    """The public keys."""

    keys: list[Jwk]


class UsersQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of ``/users``."""

    role: Role | None = None
    q: Annotated[str, Meta(max_length=254)] | None = None
    limit: Limit | None = None
    cursor: str | None = None
    min_position: TokenList | None = None
    wait_ms: WaitMs = 2000


@post(
    "/api/v1/auth/bootstrap",
    opt=describe(
        "Open the account of the first admin", body=Bootstrap, answers={201: LoginAnswer}, problems=(401, 409)
    ),
)
async def bootstrap(request: Req, services: NamedDependency[Services]) -> Answer:
    """Open the account of the first admin with the code that the start wrote, and sign it in."""
    body = await body_of(request, Bootstrap)
    new = NewAccount(username=body.username, email=body.email, password=body.password)
    signed = await _identity(services).bootstrap(body.code, new, _client(call_of(request.scope)))
    return _signed(signed, status=201)


@post(
    "/api/v1/auth/register",
    opt=describe("Open an account", body=Registration, answers={201: UserAnswer}, problems=(403, 409)),
)
async def register(request: Req, services: NamedDependency[Services]) -> Answer:
    """Open an account: a viewer's for anybody where that is allowed, any by an admin."""
    call = call_of(request.scope)
    body = await body_of(request, Registration)
    admin = call.principal if call.principal is not None and call.principal.at_least("admin") else None
    new = NewAccount(
        username=body.username,
        email=body.email,
        password=body.password,
        role=body.role,
        customer_id=body.customer_id,
    )
    profile, position = await _identity(services).register(
        new, _client(call), admin_id=admin.id if admin is not None else None
    )
    return answer(UserAnswer(user=_view(profile)), status=201, position=f"{LOG}@{position}", etag=profile.version)


@post("/api/v1/auth/login", opt=describe("Sign in", body=Login, answers={200: LoginAnswer}, problems=(401,)))
async def login(request: Req, services: NamedDependency[Services]) -> Answer:
    """Sign in with name and password."""
    body = await body_of(request, Login)
    signed = await _identity(services).login(body.username, body.password, _client(call_of(request.scope)))
    return _signed(signed, status=200)


@post("/api/v1/auth/logout", opt=describe("Sign out", body=Nothing, answers={204: None}))
async def logout(request: Req, services: NamedDependency[Services]) -> Answer:
    """End the session of the token."""
    await optional_body_of(request, Nothing)
    principal = principal_of(request.scope)
    client = _client(call_of(request.scope))
    position = await _identity(services).logout(principal.session_id or "", principal.id, client)
    return no_content(position=None if position is None else f"{LOG}@{position}")


@get("/api/v1/auth/verify", opt=describe("What the token says", answers={200: VerifyAnswer}))
async def verify(request: Req, services: NamedDependency[Services]) -> Answer:
    """Answer what the token says, if it is good."""
    call, principal = call_of(request.scope), principal_of(request.scope)
    token = bearer(call.headers.get(b"authorization"), None)
    if token is None or principal.role == "device":
        raise unauthenticated()
    claims = _identity(services).tokens.verify(token, now=services.clock.now())
    user = VerifiedUser(
        sub=claims.sub,
        user_id=claims.sub,
        username=principal.username,
        role=principal.role,
        exp=claims.exp,
        iat=claims.iat,
        jti=claims.jti,
    )
    return answer(VerifyAnswer(user=user))


@get("/api/v1/auth/jwks", opt=describe("Public keys of the access tokens", answers={200: Jwks}))
async def jwks(services: NamedDependency[Services]) -> Answer:
    """Answer the public keys."""
    return answer(_identity(services).tokens.jwks())


@get("/api/v1/users/me", opt=describe("One's own account", answers={200: UserAnswer}))
async def me(request: Req, services: NamedDependency[Services]) -> Answer:
    """Answer the account of the token."""
    profile = await _identity(services).profile(principal_of(request.scope).id)
    return answer(UserAnswer(user=_view(profile)), etag=profile.version)


@get("/api/v1/users", opt=describe("All accounts", query=UsersQuery, answers={200: UsersAnswer}, problems=(503,)))
async def list_users(request: Req, services: NamedDependency[Services]) -> Answer:
    """Answer a page of accounts, oldest first."""
    query = query_of(request, UsersQuery)
    scope = scope_of(principal_of(request.scope), "users", query)
    cursors = present(services.cursors)
    after = cursors.open(query.cursor, scope, After) if query.cursor is not None else None
    position = await _awaited(services, query)
    limit = query.limit or PAGE
    role = "viewer" if query.role == "user" else query.role
    found = await matching(present(services.users), role=role, q=query.q, after=after, limit=limit + 1)
    page = found[:limit]
    cursor = cursors.issue(scope, After(page[-1].created_at, page[-1].id)) if len(found) > limit else None
    return answer(UsersAnswer(users=[_view(one) for one in page], next_cursor=cursor), position=position)


async def _awaited(services: Services, query: UsersQuery) -> str | None:
    """Wait for the asked position; without one for the present head, so that an admin sees what he just did."""
    asked = positions_of(query.min_position).get(LOG)
    wanted, wait_ms = asked, query.wait_ms
    if wanted is None:
        wanted, wait_ms = await present(services.store).head(LOG), min(wait_ms, UNASKED_WAIT_MS)
    included = await present(services.waiting).until(["users"], {LOG: wanted}, wait_ms)
    if not included and asked is not None:
        raise behind()
    return f"{LOG}@{wanted}" if included else None


def _identity(services: Services) -> Identity:
    return present(services.identity)


def _client(call: Call) -> Client:
    agent = call.header(b"user-agent")
    return Client(
        address=call.peer or None,
        user_agent=agent[:MAX_USER_AGENT] if agent else None,
        request_id=call.request_id,
    )


def _view(account: Profile | Account) -> UserView:
    return UserView(
        id=account.id,
        username=account.username,
        email=account.email,
        role=cast("RoleName", account.role),
        customer_id=account.customer_id,
        is_active=account.is_active,
        version=account.version,
        created_at=account.created_at,
    )


def _signed(signed: SignedIn, *, status: int) -> Answer:
    payload = LoginAnswer(
        token=signed.token,
        expires_in=signed.expires_in,
        refresh_token=signed.refresh_token,
        user=_view(signed.user),
    )
    return answer(payload, status=status, position=f"{LOG}@{signed.position}")


handlers = [bootstrap, register, login, logout, verify, jwks, me, list_users]
