"""Accounts and sessions: the first admin, registration, signing in and out."""

import asyncio
import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections import OrderedDict
from datetime import timedelta
from typing import Literal

from smartgrid_commands.accounts import (
    AccessTokens,
    Account,
    Accounts,
    AddAccount,
    BootstrapCode,
    ClaimFirstAdmin,
    Claims,
    CloseSession,
    CodeFile,
    OpenSession,
    Passwords,
)
from smartgrid_commands.ports import Appended, Clock, Effect, EffectRefused, EventStore, Ids, StreamWrite
from smartgrid_commands.profiles import Client, IdentitySettings, NewAccount, Profile, SessionState, SignedIn
from smartgrid_commands.sealing import Sealer
from smartgrid_domain.credentials import folded_name, is_email, normal_password, weakness
from smartgrid_domain.deciders.user import ALIASES, ROLES, USER, RegisterUser, User, UserEvent
from smartgrid_domain.errors import Conflict, Finding, Forbidden, Invalid, NotFound
from smartgrid_schemas.envelope import Metadata, Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.identity import SessionEnded, SessionStarted, UserChanged, UserRegistered

ISSUER = "smartgrid"
AUDIENCE = "smartgrid"
ACCESS_S = 600
REFRESH_IDLE = timedelta(hours=12)
SESSION_LIFE = timedelta(days=30)
MAX_WRONG_CODES = 10
PROFILES_KEPT = 10_000


class Identity:
    """Commands on accounts and sessions."""

    def __init__(  # noqa: PLR0913  # ports, each one of its own
        self,
        *,
        store: EventStore,
        accounts: Accounts,
        sealer: Sealer,
        passwords: Passwords,
        tokens: AccessTokens,
        clock: Clock,
        ids: Ids,
        code_file: CodeFile,
        settings: IdentitySettings,
    ) -> None:
        self.tokens = tokens
        self._store, self._accounts, self._sealer = store, accounts, sealer
        self._passwords, self._clock, self._ids = passwords, clock, ids
        self._code_file, self._settings = code_file, settings
        self._bootstrapping = asyncio.Lock()
        self._profiles: OrderedDict[tuple[str, int], Profile] = OrderedDict()

    async def issue_bootstrap_code(self) -> bool:
        """Write a fresh code for the first admin; return False, and remove an old file, when there is one."""
        code = self._ids.token(32)
        expires_at = self._clock.now() + self._settings.bootstrap_ttl
        issued = BootstrapCode(code_hash=_sha256(code), expires_at=expires_at, wrong=0)
        if not await self._accounts.put_bootstrap_code(issued):
            self._code_file.remove()
            return False
        self._code_file.write(code)
        return True

    async def bootstrap(self, code: str, new: NewAccount, client: Client) -> SignedIn:
        """
        Open the account of the first admin and sign it in.

        Raises:
            Rejected: ``already_bootstrapped``, ``bootstrap_code_invalid``, or as :meth:`register`.
        """
        new = self._checked(new)
        async with self._bootstrapping:  # so that the losers of a race do not wait for a hash each
            if await self._accounts.has_admin():
                raise _already_bootstrapped()
            await self._check_code(code)
            command = self._registration(new, role="admin", via="bootstrap")
            signed = await self._open(command, new.password, client, first_admin=True)
        self._code_file.remove()
        return signed

    async def _check_code(self, code: str) -> None:
        issued = await self._accounts.bootstrap_code()
        good = issued is not None and issued.wrong < MAX_WRONG_CODES and self._clock.now() < issued.expires_at
        same = hmac.compare_digest(_sha256(code), issued.code_hash if issued else b"")
        if good and same:
            return
        if good and await self._accounts.count_wrong_code() >= MAX_WRONG_CODES:
            self._code_file.remove()
        raise Forbidden("bootstrap_code_invalid", "The code is wrong or has ended; a new one is written at each start")

    async def register(self, new: NewAccount, client: Client, *, admin_id: str | None = None) -> tuple[Profile, int]:
        """
        Open an account and return it with its position.

        Args:
            new: What it is to be.
            client: Where the request comes from.
            admin_id: User id of the admin who registers somebody else; None for self-registration.

        Raises:
            Rejected: ``validation_failed`` with findings, ``role_not_assignable``, ``registration_closed`` or
                ``username_taken``.
        """
        if admin_id is None:
            if not self._settings.open_registration:
                raise Forbidden("registration_closed", "Ask an administrator for an account")
            if ALIASES.get(new.role, new.role) != "viewer" or new.customer_id is not None:
                raise Forbidden("role_not_assignable", "Only an administrator gives roles and customers")
        new = self._checked(new)
        command = self._registration(new, role=new.role, via="self" if admin_id is None else "admin")
        phc = await self._passwords.hashed(new.password)
        actor = f"user:{admin_id or command.user_id}"
        events, effects = self._account(command, phc)
        appended = await self._append(
            [
                StreamWrite(
                    stream=f"user:{command.user_id}", events=events, expected_version=0, metadata=_by(actor, client)
                )
            ],
            effects,
        )
        return _profile_of_new(command, appended), appended.last_position

    async def login(self, username: str, password: str, client: Client) -> SignedIn:
        """
        Sign in.

        Raises:
            Rejected: ``invalid_credentials``, the same and after the same work for an unknown name, a disabled
                account and a wrong password.
        """
        folded = folded_name(username)
        account = await self._accounts.by_name(self._sealer.lookup("username", folded or username[:64]))
        if folded is None:
            account = None
        verified = await self._passwords.verify(normal_password(password), account.phc if account else None)
        if account is None or not verified.ok or not account.is_active:
            raise Forbidden("invalid_credentials", "Wrong user name or password")
        if verified.rehash is not None:
            await self._accounts.replace_hash(account.user_id, old=account.phc, new=verified.rehash)
        profile = await self.profile(account.user_id)
        write, effect, refresh = self._session(account.user_id, client)
        appended = await self._append([write], [effect])
        return self._signed(account, profile, write.stream.removeprefix("session:"), refresh, appended)

    async def logout(self, session_id: str, user_id: str, client: Client) -> int | None:
        """End the session and return the position of that; None when it has ended already."""
        event = SessionEnded(session_id=session_id, user_id=user_id, reason="logout")
        metadata = _by(f"user:{user_id}", client)
        write = StreamWrite(stream=f"session:{session_id}", events=[event], expected_version=1, metadata=metadata)
        effect = CloseSession(session_id=session_id, ended_at=self._clock.now(), reason="logout")
        try:
            appended = await self._append([write], [effect])
        except Conflict:
            return None
        return appended.last_position

    async def profile(self, user_id: str) -> Profile:
        """
        Return the account *user_id* as it is now.

        Raises:
            NotFound: There is no such account.
        """
        history = await self._store.read_stream(USER.log, f"user:{user_id}")
        if not history:
            raise NotFound("not_found", "There is no such user")
        known = self._profiles.get((user_id, len(history)))
        return known or self._kept(await self._folded(user_id, history))

    async def session(self, session_id: str) -> SessionState | None:
        """Return the session *session_id* with its user's name and customer; None when there never was one."""
        row = await self._accounts.session(session_id)
        if row is None:
            return None
        profile = await self.profile(row.user_id)
        return SessionState(
            session_id=session_id,
            user_id=row.user_id,
            role=row.role,
            session_version=row.session_version,
            alive=row.alive and row.expires_at > self._clock.now(),
            username=profile.username,
            customer_id=profile.customer_id,
        )

    async def _folded(self, user_id: str, history: list[Recorded[Event]]) -> Profile:
        state = USER.initial()
        username: str | None = None
        latest = history[0]
        for recorded in history:
            event = recorded.event
            if isinstance(event, UserEvent):
                state = USER.evolve(state, event)
            if isinstance(event, UserRegistered | UserChanged):
                latest = recorded
            if isinstance(event, UserRegistered):
                username = await self._clear(recorded, "username")
        return Profile(
            id=user_id,
            username=username,
            email=await self._clear(latest, "email"),
            role=state.role,
            customer_id=await self._clear(latest, "customer_id"),
            is_active=state.is_active,
            version=len(history),
            created_at=history[0].recorded_at,
        )

    async def _clear(self, recorded: Recorded[Event], field: str) -> str | None:
        return await self._sealer.open_packed(self._sealer.pack_sealed(recorded, field))

    def _kept(self, profile: Profile) -> Profile:
        self._profiles[profile.id, profile.version] = profile
        if len(self._profiles) > PROFILES_KEPT:
            self._profiles.popitem(last=False)
        return profile

    def _checked(self, new: NewAccount) -> NewAccount:
        """Return *new* in normal form; raise every finding."""
        findings: list[Finding] = []
        username, password = folded_name(new.username), normal_password(new.password)
        if username is None:
            findings.append(Finding("/username", "bad_format", "A user name has 3 to 64 of a-z, 0-9, dot, _ and -"))
        if not is_email(new.email):
            findings.append(Finding("/email", "bad_format", "This is not an e-mail address"))
        role = ALIASES.get(new.role, new.role)
        if role not in ROLES:
            findings.append(Finding("/role", "unknown_value", f"Role is one of {', '.join(ROLES)}"))
        weak = weakness(password, username=username or "", email=new.email, common=self._passwords.common)
        if weak:
            findings.append(Finding("/password", "weak_password", weak))
        if findings or username is None:
            raise Invalid("validation_failed", findings[0].message, findings=findings)
        return NewAccount(username=username, email=new.email, password=password, role=role, customer_id=new.customer_id)

    def _registration(self, new: NewAccount, *, role: str, via: Literal["bootstrap", "self", "admin"]) -> RegisterUser:
        return RegisterUser(
            user_id=str(self._ids.uuid()),
            username=new.username,
            email=new.email,
            role=role,
            customer_id=new.customer_id,
            via=via,
        )

    def _account(self, command: RegisterUser, phc: str) -> tuple[tuple[UserEvent, ...], list[Effect]]:
        key = self._sealer.lookup("username", command.username)
        added = AddAccount(user_id=command.user_id, name_key=key, phc=phc, role=command.role)
        return USER.decide(User(), command), [added]

    async def _open(self, command: RegisterUser, password: str, client: Client, *, first_admin: bool) -> SignedIn:
        """Open an account and its first session in one commit."""
        phc = await self._passwords.hashed(password)
        events, effects = self._account(command, phc)
        if first_admin:
            effects.insert(0, ClaimFirstAdmin(user_id=command.user_id))
        session, opened, refresh = self._session(command.user_id, client)
        metadata = _by(f"user:{command.user_id}", client)
        user = StreamWrite(stream=f"user:{command.user_id}", events=events, expected_version=0, metadata=metadata)
        appended = await self._append([user, session], [*effects, opened])
        account = Account(user_id=command.user_id, phc=phc, role=command.role, is_active=True, session_version=1)
        session_id = session.stream.removeprefix("session:")
        return self._signed(account, _profile_of_new(command, appended), session_id, refresh, appended)

    def _session(self, user_id: str, client: Client) -> tuple[StreamWrite, OpenSession, str]:
        session_id = str(self._ids.uuid())
        now = self._clock.now()
        refresh = self._refresh_token(session_id, 1)
        event = SessionStarted(
            session_id=session_id,
            user_id=user_id,
            address=client.address,
            user_agent=client.user_agent,
            expires_at=now + SESSION_LIFE,
        )
        metadata = _by(f"user:{user_id}", client)
        write = StreamWrite(stream=f"session:{session_id}", events=[event], expected_version=0, metadata=metadata)
        opened = OpenSession(
            session_id=session_id,
            user_id=user_id,
            started_at=now,
            idle_until=now + REFRESH_IDLE,
            expires_at=now + SESSION_LIFE,
            refresh_hash=_sha256(refresh),
        )
        return write, opened, refresh

    def _refresh_token(self, session_id: str, number: int) -> str:
        # Derived, so that a lost answer can be given again without keeping the token; 256 bits for everybody else.
        return urlsafe_b64encode(self._sealer.lookup("refresh", f"{session_id}|{number}")).rstrip(b"=").decode("ascii")

    def _signed(
        self, account: Account, profile: Profile, session_id: str, refresh: str, appended: Appended
    ) -> SignedIn:
        issued = int(self._clock.now().timestamp())
        claims = Claims(
            iss=ISSUER,
            aud=AUDIENCE,
            sub=account.user_id,
            jti=self._ids.token(16),
            sid=session_id,
            sv=account.session_version,
            role=account.role,
            iat=issued,
            exp=issued + ACCESS_S,
        )
        token = self.tokens.sign(claims)
        return SignedIn(
            token=token,
            expires_in=ACCESS_S,
            refresh_token=refresh,
            user=profile,
            position=appended.last_position,
        )

    async def _append(self, writes: list[StreamWrite], effects: list[Effect]) -> Appended:
        try:
            return await self._store.append(USER.log, writes, commit_id=self._ids.uuid(), effects=effects)
        except EffectRefused as error:
            match error.effect:
                case ClaimFirstAdmin():
                    raise _already_bootstrapped() from error
                case AddAccount():
                    raise Conflict("username_taken", "This user name is taken") from error
                case _:
                    raise Conflict("version_conflict", "It changed meanwhile; try again") from error


def _already_bootstrapped() -> Conflict:
    return Conflict("already_bootstrapped", "The first admin exists; sign in")


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _by(actor: str, client: Client) -> Metadata:
    return Metadata(actor=actor, correlation_id=client.request_id, causation_id=client.request_id)


def _profile_of_new(command: RegisterUser, appended: Appended) -> Profile:
    return Profile(
        id=command.user_id,
        username=command.username,
        email=command.email,
        role=command.role,
        customer_id=command.customer_id,
        is_active=True,
        version=1,
        created_at=appended.recorded_at,
    )
