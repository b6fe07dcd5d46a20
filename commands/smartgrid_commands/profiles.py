"""What identity commands take and give back."""

from datetime import datetime, timedelta

from msgspec import Struct


class IdentitySettings(Struct, frozen=True, kw_only=True):
    """
    What an operator sets.

    Attributes:
        bootstrap_ttl: Life of the bootstrap code.
        open_registration: Whether anyone may register as viewer.
    """

    bootstrap_ttl: timedelta = timedelta(seconds=900)
    open_registration: bool = True


class Client(Struct, frozen=True, kw_only=True):
    """
    Where a request comes from.

    Attributes:
        address: Network address.
        user_agent: What the client calls itself.
        request_id: Id of the request.
    """

    address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


class NewAccount(Struct, frozen=True, kw_only=True):
    """
    What somebody who registers says.

    Attributes:
        username: Name, in any spelling.
        email: Address.
        password: Password.
        role: Role or its alias.
        customer_id: Whose meters a viewer may see.
    """

    username: str
    email: str
    password: str
    role: str = "viewer"
    customer_id: str | None = None


class Profile(Struct, frozen=True, kw_only=True):
    """
    An account as its owner and admins see it.

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


class SignedIn(Struct, frozen=True, kw_only=True):
    """
    A fresh session.

    Attributes:
        token: Access token.
        expires_in: Its life [s].
        refresh_token: Opaque token for the next one; this is the only time it is seen.
        user: Who signed in.
        position: Position of the newest event in the identity log.
    """

    token: str
    expires_in: int
    refresh_token: str
    user: Profile
    position: int


class SessionState(Struct, frozen=True, kw_only=True):
    """
    A session with what handlers want to know of its user.

    Attributes:
        session_id: The session.
        user_id: Whose.
        role: Present role.
        session_version: Present session version.
        alive: Whether it may be used.
        username: Name.
        customer_id: Whose meters a viewer may see.
    """

    session_id: str
    user_id: str
    role: str
    session_version: int
    alive: bool
    username: str | None
    customer_id: str | None
