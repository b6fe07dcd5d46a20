"""One answer for each key that a client chose, however often it sends the request."""

import hashlib
from typing import Protocol, runtime_checkable

from msgspec import Struct

from smartgrid_commands.reading_calls import Lease

LEASE_S = 30
"""A request that died without an answer holds its key this long [s]."""

KEPT_S = 24 * 3600
"""How long an answer is kept [s]."""


class Kept(Struct, frozen=True, kw_only=True):
    """
    The answer that the first request with this key got.

    Attributes:
        answer: As it was kept.
        first_position: Position of the first event of the commit that kept it; 0 for none.
    """

    answer: bytes
    first_position: int


@runtime_checkable
class IdempotencyKeys(Protocol):
    """
    Which requests are being answered, and which were.

    Guarantees:
        * At most one holder of a key at a time; who lets :data:`LEASE_S` pass loses it to the next.
        * An answer is kept once, and only by the holder.
    """

    async def claim(self, principal: str, key: str, request: bytes) -> Lease | Kept:
        """
        Take the right to answer, or learn the answer.

        Args:
            principal: Whose key it is.
            key: As sent; only its hash is kept.
            request: :func:`request_hash` of the request.

        Raises:
            Conflict: ``idempotency_in_progress``.
            Invalid: ``idempotency_key_reused`` for another request.
            StoreUnavailable: Nobody knows.
        """
        ...

    async def keep(self, lease: Lease, answer: bytes) -> None:
        """
        Keep *answer*, of a request that stored nothing or whose events are stored already.

        Raises:
            LeaseLost: Somebody else took the key over.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Give the right back: the request stored nothing and gets no answer that counts."""
        ...


def request_hash(method: str, path: str, body: bytes) -> bytes:
    """Return what two requests with one key must have in common: SHA-256 of method, path with query, and body."""
    head = f"{method} {path}\n".encode("utf-8", "surrogatepass")
    return hashlib.sha256(len(head).to_bytes(4, "big") + head + body).digest()


def key_hash(key: str) -> bytes:
    """Return what is kept of a key."""
    return hashlib.sha256(key.encode()).digest()
