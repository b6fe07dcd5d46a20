"""Who is asking."""

from typing import Literal

from msgspec import Struct

Role = Literal["device", "viewer", "analyst", "operator", "admin"]
LADDER: tuple[Role, ...] = ("viewer", "analyst", "operator", "admin")
"""Each may do all that the ones before it may; a device stands outside of it."""


class Principal(Struct, frozen=True, kw_only=True):
    """
    The authenticated caller of a request.

    Attributes:
        kind: ``user`` or ``key``.
        id: User id or id of the API key.
        role: What it may do.
        session_id: The user's session.
        customer_id: Whose meters a viewer may see.
        username: The user's name.
        sensors: Sensor ids and prefixes (``b7-*``) that a device may write.
        meters: Meter ids and prefixes that a device may write.
    """

    kind: Literal["user", "key"]
    id: str
    role: Role
    session_id: str | None = None
    customer_id: str | None = None
    username: str | None = None
    sensors: tuple[str, ...] = ()
    meters: tuple[str, ...] = ()

    @property
    def actor(self) -> str:
        """The name of the principal in event metadata: ``user:<id>`` or ``key:<id>``."""
        return f"{self.kind}:{self.id}"

    def at_least(self, role: Role) -> bool:
        """Return whether this is a user of *role* or a higher one."""
        return self.role in LADDER and LADDER.index(self.role) >= LADDER.index(role)
