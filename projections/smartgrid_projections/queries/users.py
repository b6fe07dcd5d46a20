"""Accounts as administrators list them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from msgspec import Struct

BATCH = 200
"""Accounts read at a time while looking for those that match."""


class Account(Struct, frozen=True, kw_only=True):
    """
    An account in the list.

    Attributes:
        id: User id.
        username: Name; null when it was erased.
        email: Address; null when it was erased.
        role: Role.
        customer_id: Whose meters a viewer may see.
        is_active: Whether it may sign in.
        version: Version for ``If-Match``.
        created_at: When it was opened.
    """

    id: str
    username: str | None
    email: str | None
    role: str
    customer_id: str | None
    is_active: bool
    version: int
    created_at: datetime


class After(Struct, frozen=True, array_like=True):
    """
    A place in the list, which is ordered by age.

    Attributes:
        created_at: When the last account before it was opened.
        user_id: Its id.
    """

    created_at: datetime
    user_id: str


@runtime_checkable
class Users(Protocol):
    """The read model of accounts."""

    async def users(self, *, role: str | None, after: After | None, limit: int) -> Sequence[Account]:
        """
        Return up to *limit* accounts behind *after*, oldest first, opened for reading.

        Args:
            role: Only those of this role.
            after: Place of the last account that the caller has.
            limit: Most of them.

        Raises:
            StoreUnavailable: The read model cannot be reached.
        """
        ...


async def matching(users: Users, *, role: str | None, q: str | None, after: After | None, limit: int) -> list[Account]:
    """
    Return up to *limit* accounts behind *after* whose name or address contains *q*, whatever its case.

    Names and addresses are sealed at rest, so no index knows them: they are opened and looked at.
    """
    if not q:
        return list(await users.users(role=role, after=after, limit=limit))
    wanted, found = q.casefold(), list[Account]()
    while len(found) < limit:
        batch = await users.users(role=role, after=after, limit=BATCH)
        found += [one for one in batch if any(wanted in (text or "").casefold() for text in (one.username, one.email))]
        if len(batch) < BATCH:
            break
        after = After(batch[-1].created_at, batch[-1].id)
    return found[:limit]
