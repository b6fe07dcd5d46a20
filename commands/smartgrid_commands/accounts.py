"""What identity commands need of the outside world: credentials, sessions, hashes and tokens."""

from datetime import datetime
from typing import Protocol, runtime_checkable

from msgspec import Struct

from smartgrid_commands.ports import Effect


class AddAccount(Effect, frozen=True, kw_only=True):
    """
    The credentials of a new account; refused when its name is taken.

    Attributes:
        user_id: The account.
        name_key: Keyed hash of the folded name.
        phc: Password hash.
        role: Role.
    """

    user_id: str
    name_key: bytes
    phc: str
    role: str


class ClaimFirstAdmin(Effect, frozen=True, kw_only=True):
    """There is a first admin now; refused when there was one. Burns the bootstrap code."""

    user_id: str


class OpenSession(Effect, frozen=True, kw_only=True):
    """
    A session and its first refresh token.

    Attributes:
        session_id: The session.
        user_id: Whose.
        started_at: Since when.
        idle_until: Until when the refresh token can be used.
        expires_at: When the session ends at the latest.
        refresh_hash: SHA-256 of the refresh token.
    """

    session_id: str
    user_id: str
    started_at: datetime
    idle_until: datetime
    expires_at: datetime
    refresh_hash: bytes


class CloseSession(Effect, frozen=True, kw_only=True):
    """The end of a session; refused when it has ended."""

    session_id: str
    ended_at: datetime
    reason: str

    @property
    def must_match(self) -> bool:
        """A session ends once."""
        return True


class Account(Struct, frozen=True, kw_only=True):
    """
    What signing in has to know.

    Attributes:
        user_id: The account.
        phc: Password hash.
        role: Role.
        is_active: Whether it may sign in.
        session_version: Sessions of an older one have ended.
    """

    user_id: str
    phc: str
    role: str
    is_active: bool
    session_version: int


class SessionRow(Struct, frozen=True, kw_only=True):
    """
    A session as every request has to know it.

    Attributes:
        session_id: The session.
        user_id: Whose.
        role: Present role of the account.
        session_version: Present session version of the account.
        alive: Whether session and account are.
        expires_at: When it ends at the latest.
    """

    session_id: str
    user_id: str
    role: str
    session_version: int
    alive: bool
    expires_at: datetime


class BootstrapCode(Struct, frozen=True, kw_only=True):
    """
    The one-time code for the first admin.

    Attributes:
        code_hash: SHA-256 of the code.
        expires_at: Until when it can be used.
        wrong: Wrong codes so far.
    """

    code_hash: bytes
    expires_at: datetime
    wrong: int


@runtime_checkable
class Accounts(Protocol):
    """
    Credentials and sessions, written in the transactions of identity events.

    Every method raises StoreUnavailable when nobody can tell.
    """

    async def by_name(self, name_key: bytes) -> Account | None:
        """Return the account whose folded name has the keyed hash *name_key*."""
        ...

    async def session(self, session_id: str) -> SessionRow | None:
        """Return the session *session_id*."""
        ...

    async def replace_hash(self, user_id: str, *, old: str, new: str) -> None:
        """Store a stronger hash of the same password, unless it was changed meanwhile."""
        ...

    async def has_admin(self) -> bool:
        """Return whether a first admin exists."""
        ...

    async def put_bootstrap_code(self, code: BootstrapCode) -> bool:
        """Replace the code; return False, storing nothing, when a first admin exists."""
        ...

    async def bootstrap_code(self) -> BootstrapCode | None:
        """Return the present code."""
        ...

    async def count_wrong_code(self) -> int:
        """Count one more wrong code and return how many there were."""
        ...


class Verified(Struct, frozen=True, kw_only=True):
    """
    The outcome of checking a password.

    Attributes:
        ok: Whether it is the right one.
        rehash: A stronger hash of it to store; null when the stored one is strong enough.
    """

    ok: bool
    rehash: str | None = None


@runtime_checkable
class Passwords(Protocol):
    """
    Slow hashes.

    Guarantees:
        * At most 2 hashes are computed and 16 wait; others are refused with ``overloaded``, a Rejected.
        * Checking against no hash costs what checking against one costs.
        * Nothing runs in the event loop.
    """

    @property
    def common(self) -> frozenset[str]:
        """Passwords that are tried first, in lower case."""
        ...

    async def hashed(self, password: str) -> str:
        """Return the hash of *password* as a PHC string."""
        ...

    async def verify(self, password: str, phc: str | None) -> Verified:
        """Return whether *phc* is the hash of *password*; False, after the same work, for None."""
        ...


class Claims(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What an access token says; every claim is required.

    Attributes:
        iss: Who issued it.
        aud: For whom it is.
        sub: User id.
        jti: Its own id.
        sid: Session.
        sv: Session version.
        role: Role.
        iat: Issued at [s since 1970].
        exp: End [s since 1970].
    """

    iss: str
    aud: str
    sub: str
    jti: str
    sid: str
    sv: int
    role: str
    iat: int
    exp: int


@runtime_checkable
class AccessTokens(Protocol):
    """Signed access tokens."""

    def sign(self, claims: Claims) -> str:
        """Return a token that says *claims*."""
        ...

    def verify(self, token: bytes, *, now: datetime) -> Claims:
        """
        Return what *token* says, if one of our keys signed exactly that and it has not ended.

        Raises:
            Rejected: ``unauthenticated`` or ``token_expired``.
        """
        ...

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public keys."""
        ...


@runtime_checkable
class CodeFile(Protocol):
    """Where the operator finds the bootstrap code."""

    def write(self, code: str) -> None:
        """Write *code* so that only the owner of the process can read it."""
        ...

    def remove(self) -> None:
        """Remove the file, if there is one."""
        ...
