"""
Access tokens to principals, cheap when the same token comes again.

A verified token is remembered by the hash of its whole text, so another spelling of it is another token. What is
remembered saves the signature only: the end of the token and the state of its session are looked at each time, the
latter never older than a second.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import cast

from smartgrid_commands.accounts import AccessTokens, Claims
from smartgrid_commands.ports import Clock, StoreUnavailable
from smartgrid_commands.profiles import SessionState
from smartgrid_domain.errors import Forbidden, NotFound
from smartgrid_http.principal import Principal, Role

Lookup = Callable[[str], Awaitable[SessionState | None]]

FRESH_S = 0.9
"""A session that was looked up longer ago is looked up again before it counts: with the look-up, revoked in 1 s."""
REFRESH_S = 0.4
"""A session in use that was looked up longer ago is looked up beside the request, so that none has to wait."""
DOWN_S = 1.0
"""After a failed look-up nobody tries again for so long [s]."""
TOKENS_KEPT = 10_000


class _Session:
    __slots__ = ("looked_up", "pending", "state")

    def __init__(self) -> None:
        self.state: SessionState | None = None
        self.looked_up = float("-inf")
        self.pending: asyncio.Task[SessionState | None] | None = None


class _Known:
    __slots__ = ("claims", "ends_at", "principal", "session", "state")

    def __init__(self, claims: Claims, session: _Session) -> None:
        self.claims = claims
        self.ends_at = datetime.fromtimestamp(claims.exp, UTC)
        self.session = session
        self.state = session.state
        self.principal = _principal(claims, session.state)

    def present(self) -> Principal:
        """Return the principal, made anew when its session was looked up since."""
        if self.state is not self.session.state:
            self.state = self.session.state
            self.principal = _principal(self.claims, self.state)
        return self.principal


class TokenAuthenticator:
    """The port ``Authenticator`` over signed tokens and looked-up sessions."""

    def __init__(self, tokens: AccessTokens, lookup: Lookup, clock: Clock, *, kept: int = TOKENS_KEPT) -> None:
        self._tokens, self._lookup, self._clock, self._kept_most = tokens, lookup, clock, kept
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._down_until = float("-inf")

    def known(self, token: bytes) -> Principal | None:
        """Return the principal of a token that was verified before, if nothing about it may have changed."""
        known = self._known.get(hashlib.sha256(token).digest())
        if known is None:
            return None
        session = known.session
        age = self._clock.monotonic() - session.looked_up
        if age >= FRESH_S or known.ends_at <= self._clock.now() or not _alive(session.state, known.claims):
            return None
        if age >= REFRESH_S and session.pending is None:
            self._look_up(known.claims.sid, session)
        return known.present()

    async def verify(self, token: bytes, *, strict: bool) -> Principal:
        """Return the principal of *token*, looking at whatever is not known for sure."""
        digest = hashlib.sha256(token).digest()
        known = self._known.get(digest)
        if known is None or known.ends_at <= self._clock.now():
            claims = self._tokens.verify(token, now=self._clock.now())
        else:
            claims = known.claims
        session = self._session(claims.sid)
        try:
            await self._refreshed(claims.sid, session)
        except StoreUnavailable:
            if strict:
                raise
            # Nobody can tell: what only reads may go on until the token ends. A session known to be over stays over.
            if session.state is not None and not _alive(session.state, claims):
                raise _revoked() from None
            return _principal(claims, session.state)
        if not _alive(session.state, claims):
            raise _revoked()
        fresh = self._known[digest] = _Known(claims, session)
        self._known.move_to_end(digest)
        if len(self._known) > self._kept_most:
            self._known.popitem(last=False)
        return fresh.principal

    def _session(self, session_id: str) -> _Session:
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = _Session()
            if len(self._sessions) > self._kept_most:
                self._sessions.popitem(last=False)
        else:
            self._sessions.move_to_end(session_id)
        return session

    async def _refreshed(self, session_id: str, session: _Session) -> None:
        now = self._clock.monotonic()
        if now - session.looked_up < FRESH_S:
            return
        if now < self._down_until:
            raise StoreUnavailable("no session source")
        # Shielded: one caller that goes away must not end the look-up that others wait for.
        await asyncio.shield(session.pending or self._look_up(session_id, session))

    def _look_up(self, session_id: str, session: _Session) -> asyncio.Task[SessionState | None]:
        async def look_up() -> SessionState | None:
            asked_at = self._clock.monotonic()
            try:
                session.state = await self._lookup(session_id)
            except NotFound:
                session.state = None
            except StoreUnavailable:
                self._down_until = self._clock.monotonic() + DOWN_S
                raise
            finally:
                session.pending = None
            session.looked_up = asked_at
            return session.state

        session.pending = asyncio.get_running_loop().create_task(look_up())
        session.pending.add_done_callback(_seen)
        return session.pending


def _seen(task: asyncio.Task[SessionState | None]) -> None:
    """Take the error of a look-up that nobody waited for: the next request meets it again."""
    if not task.cancelled():
        task.exception()


def _alive(state: SessionState | None, claims: Claims) -> bool:
    return (
        state is not None
        and state.alive
        and state.session_version == claims.sv
        and state.user_id == claims.sub
        and state.role == claims.role
    )


def _principal(claims: Claims, state: SessionState | None) -> Principal:
    return Principal(
        kind="user",
        id=claims.sub,
        role=cast("Role", claims.role),
        session_id=claims.sid,
        customer_id=state.customer_id if state else None,
        username=state.username if state else None,
    )


def _revoked() -> Forbidden:
    return Forbidden("token_revoked", "The session has ended; sign in again")
