"""Accounts as administrators list them. Personal fields stay sealed; they open with the key of their subject only."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from smartgrid_projections.projection import Projection
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.identity import PasswordChanged, UserChanged, UserRegistered


class UserRow(Struct, frozen=True, kw_only=True):
    """
    One account.

    Attributes:
        user_id: The account.
        username: Sealed name.
        email: Sealed address.
        customer_id: Sealed id of the customer whose meters a viewer may see.
        role: Role.
        is_active: Whether it may sign in.
        version: Version of its stream.
        created_at: When it was opened.
        changed_at: When it was last changed.
        position: Position of the last event.
    """

    user_id: str
    username: bytes | None
    email: bytes | None
    customer_id: bytes | None
    role: str
    is_active: bool
    version: int
    created_at: datetime
    changed_at: datetime
    position: int


class UserTables(Protocol):
    """Where accounts are kept, in an open transaction."""

    def packed(self, recorded: Recorded[Event], field: str) -> bytes | None:
        """Return a personal field with all that opening it takes, None if absent."""
        ...

    async def load(self, user_ids: Sequence[str]) -> dict[str, UserRow]:
        """Return the rows of *user_ids* that exist, by id."""
        ...

    async def save(self, rows: Sequence[UserRow]) -> None:
        """Write *rows*."""
        ...


async def project(batch: Sequence[Recorded[Event]], tables: UserTables) -> None:
    """Fold *batch* into *tables*."""
    wanted = {r.event.user_id for r in batch if isinstance(r.event, UserRegistered | UserChanged | PasswordChanged)}
    if not wanted:
        return
    rows = await tables.load(sorted(wanted))
    for recorded in batch:
        match recorded.event:
            case UserRegistered() as event:
                rows[event.user_id] = UserRow(
                    user_id=event.user_id,
                    username=tables.packed(recorded, "username"),
                    email=tables.packed(recorded, "email"),
                    customer_id=tables.packed(recorded, "customer_id"),
                    role=event.role,
                    is_active=True,
                    version=recorded.version,
                    created_at=recorded.recorded_at,
                    changed_at=recorded.recorded_at,
                    position=recorded.position,
                )
            case UserChanged() as event:
                rows[event.user_id] = replace(
                    rows[event.user_id],
                    email=tables.packed(recorded, "email"),
                    customer_id=tables.packed(recorded, "customer_id"),
                    role=event.role,
                    is_active=event.is_active,
                    version=recorded.version,
                    changed_at=recorded.recorded_at,
                    position=recorded.position,
                )
            case PasswordChanged() as event:
                rows[event.user_id] = replace(
                    rows[event.user_id],
                    version=recorded.version,
                    changed_at=recorded.recorded_at,
                    position=recorded.position,
                )
            case _:
                pass
    await tables.save([rows[user_id] for user_id in sorted(rows)])


USERS: Projection[UserTables] = Projection(name="users", version=1, logs=("identity",), project=project)
