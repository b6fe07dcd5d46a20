"""Users and their sessions. Password hashes are never in an event."""

from typing import Annotated

from smartgrid_schemas.event import Event, Instant, Plain, Pseudonymous, Sealed, personal


class UserRegistered(Event, tag="identity.user-registered.v1", frozen=True, kw_only=True):
    """
    An account exists. First event of the stream ``user:{user_id}``.

    Attributes:
        user_id: A random id, never derived from the name.
        username: Folded name.
        email: Address.
        role: ``viewer``, ``analyst``, ``operator`` or ``admin``.
        customer_id: Whose meters a viewer may see; null for none.
        via: ``bootstrap``, ``self`` or ``admin``.
    """

    user_id: Annotated[str, Pseudonymous]
    username: Annotated[str | Sealed, personal("user:user_id")]
    email: Annotated[str | Sealed, personal("user:user_id")]
    role: Annotated[str, Plain]
    customer_id: Annotated[str | Sealed | None, personal("user:user_id")] = None
    via: Annotated[str, Plain]


class UserChanged(Event, tag="identity.user-changed.v1", frozen=True, kw_only=True):
    """
    What an administrator may change of an account, all of it, from now on.

    Attributes:
        user_id: The account.
        email: Address.
        role: Role.
        customer_id: Whose meters a viewer may see.
        is_active: Whether the account may sign in.
    """

    user_id: Annotated[str, Pseudonymous]
    email: Annotated[str | Sealed, personal("user:user_id")]
    role: Annotated[str, Plain]
    customer_id: Annotated[str | Sealed | None, personal("user:user_id")] = None
    is_active: Annotated[bool, Plain]


class PasswordChanged(Event, tag="identity.password-changed.v1", frozen=True, kw_only=True):
    """
    An account has a new password; all its sessions end.

    Attributes:
        user_id: The account.
    """

    user_id: Annotated[str, Pseudonymous]


class SessionStarted(Event, tag="identity.session-started.v1", frozen=True, kw_only=True):
    """
    Somebody signed in. On the stream ``session:{session_id}``.

    Attributes:
        session_id: The session.
        user_id: Whose.
        address: The client's network address.
        user_agent: What the client calls itself.
        expires_at: When the session ends at the latest.
    """

    session_id: Annotated[str, Pseudonymous]
    user_id: Annotated[str, Pseudonymous]
    address: Annotated[str | Sealed | None, personal("user:user_id")] = None
    user_agent: Annotated[str | Sealed | None, personal("user:user_id")] = None
    expires_at: Annotated[Instant, Plain]


class SessionEnded(Event, tag="identity.session-ended.v1", frozen=True, kw_only=True):
    """
    A session ended.

    Attributes:
        session_id: The session.
        user_id: Whose.
        reason: ``logout``, ``password_changed``, ``role_changed``, ``disabled``, ``refresh_reused`` …
    """

    session_id: Annotated[str, Pseudonymous]
    user_id: Annotated[str, Pseudonymous]
    reason: Annotated[str, Plain]
