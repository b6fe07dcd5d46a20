"""Credentials and sessions in memory."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from smartgrid_commands.accounts import (
    Account,
    AddAccount,
    BootstrapCode,
    ClaimFirstAdmin,
    CloseSession,
    OpenSession,
    SessionRow,
)
from smartgrid_commands.ports import Effect, EffectRefused


class _Session(Struct):
    user_id: str
    expires_at: datetime
    refresh_hash: bytes
    ended: bool = False


class MemoryAccounts:
    """The port ``Accounts``; give :meth:`carry_out` to the memory event store."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.names: dict[bytes, str] = {}
        self.sessions: dict[str, _Session] = {}
        self.first_admin: str | None = None
        self.code: BootstrapCode | None = None

    def carry_out(self, effects: Sequence[Effect]) -> None:
        """Write *effects*, all or none of them."""
        for effect in effects:
            self._check(effect)
        for effect in effects:
            self._write(effect)

    def _check(self, effect: Effect) -> None:
        match effect:
            case AddAccount() if effect.name_key in self.names:
                raise EffectRefused(effect, "username_taken")
            case ClaimFirstAdmin() if self.first_admin is not None:
                raise EffectRefused(effect, "first_admin_pkey")
            case CloseSession() if effect.session_id not in self.sessions or self.sessions[effect.session_id].ended:
                raise EffectRefused(effect, "must_match")
            case _:
                pass

    def _write(self, effect: Effect) -> None:
        match effect:
            case AddAccount():
                self.names[effect.name_key] = effect.user_id
                self.accounts[effect.user_id] = Account(
                    user_id=effect.user_id, phc=effect.phc, role=effect.role, is_active=True, session_version=1
                )
            case ClaimFirstAdmin():
                self.first_admin, self.code = effect.user_id, None
            case OpenSession():
                session = _Session(effect.user_id, effect.expires_at, effect.refresh_hash)
                self.sessions[effect.session_id] = session
            case CloseSession():
                self.sessions[effect.session_id].ended = True
            case _:
                raise TypeError(type(effect))

    async def by_name(self, name_key: bytes) -> Account | None:
        return self.accounts.get(self.names.get(name_key, ""))

    async def session(self, session_id: str) -> SessionRow | None:
        session = self.sessions.get(session_id)
        if session is None:
            return None
        account = self.accounts[session.user_id]
        return SessionRow(
            session_id=session_id,
            user_id=account.user_id,
            role=account.role,
            session_version=account.session_version,
            alive=account.is_active and not session.ended,
            expires_at=session.expires_at,
        )

    async def replace_hash(self, user_id: str, *, old: str, new: str) -> None:
        if self.accounts[user_id].phc == old:
            self.accounts[user_id] = replace(self.accounts[user_id], phc=new)

    async def has_admin(self) -> bool:
        return self.first_admin is not None

    async def put_bootstrap_code(self, code: BootstrapCode) -> bool:
        if self.first_admin is None:
            self.code = code
        return self.first_admin is None

    async def bootstrap_code(self) -> BootstrapCode | None:
        return self.code

    async def count_wrong_code(self) -> int:
        if self.code is None:
            return 0
        self.code = replace(self.code, wrong=self.code.wrong + 1)
        return self.code.wrong
