"""Argon2id in two threads, never in the event loop."""

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.resources import files
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from smartgrid_commands.accounts import Verified
from smartgrid_domain.errors import Rejected

T = TypeVar("T")

MEMORY_KIB = 19 * 1024
PASSES = 2
THREADS = 2
QUEUE = 16


class Argon2Passwords:
    """The port ``Passwords``: 19 MiB, 2 passes, 1 lane, the least that OWASP advises."""

    def __init__(self, pepper: bytes | None = None, *, memory_kib: int = MEMORY_KIB, passes: int = PASSES) -> None:
        """
        Make the pool.

        Args:
            pepper: Secret that a thief of the table does not have.
            memory_kib: Memory of one hash [KiB].
            passes: Passes over it.
        """
        self._hasher = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=1, type=Type.ID)
        self._pepper = pepper
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")
        self._busy = 0
        # A hash of nothing that anybody can send, for names that do not exist.
        self._dummy = self._hasher.hash(b"\0no such account")

    @property
    def common(self) -> frozenset[str]:
        return common_passwords()

    async def hashed(self, password: str) -> str:
        secret = self._secret(password)
        return await self._run(lambda: self._hasher.hash(secret))

    async def verify(self, password: str, phc: str | None) -> Verified:
        secret = self._secret(password)
        return await self._run(lambda: self._check(secret, phc))

    def _check(self, secret: bytes, phc: str | None) -> Verified:
        try:
            self._hasher.verify(phc or self._dummy, secret)
        except (VerificationError, InvalidHashError):
            return Verified(ok=False)
        if phc is None:
            return Verified(ok=False)
        return Verified(ok=True, rehash=self._hasher.hash(secret) if self._hasher.check_needs_rehash(phc) else None)

    def _secret(self, password: str) -> bytes:
        text = password.encode()
        return text if self._pepper is None else hmac.digest(self._pepper, text, hashlib.sha256)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._busy >= THREADS + QUEUE:
            raise Rejected("overloaded", "Too many people sign in at once; try again in a moment")
        self._busy += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._busy -= 1

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@cache
def common_passwords() -> frozenset[str]:
    """Return the passwords that everybody tries first, in lower case."""
    text = files("smartgrid_adapters").joinpath("common_passwords.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("# "))
