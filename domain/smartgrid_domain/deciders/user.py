"""Accounts: who they are and what they may do. Passwords are no business of the log."""

from msgspec import Struct

from smartgrid_domain.decider import Decider
from smartgrid_domain.errors import Conflict, Invalid
from smartgrid_schemas.event import Sealed
from smartgrid_schemas.identity import PasswordChanged, UserChanged, UserRegistered

ROLES = ("viewer", "analyst", "operator", "admin")
"""Each may do all that the ones before it may."""

ALIASES = {"user": "viewer"}
"""Other names of roles that are accepted on input."""

UserEvent = UserRegistered | UserChanged | PasswordChanged


class RegisterUser(Struct, frozen=True, kw_only=True):
    """
    Open an account.

    Attributes:
        user_id: A random id.
        username: Folded name.
        email: Address.
        role: One of :data:`ROLES`.
        customer_id: Whose meters a viewer may see.
        via: ``bootstrap``, ``self`` or ``admin``.
    """

    user_id: str
    username: str
    email: str
    role: str
    customer_id: str | None = None
    via: str


UserCommand = RegisterUser


class User(Struct, kw_only=True):
    """
    What a decision has to know about an account.

    Attributes:
        registered: How it began; null before.
        role: Present role.
        is_active: Whether it may sign in.
        email: Present address, sealed when it comes from the log.
        customer_id: Whose meters a viewer may see, sealed likewise.
    """

    registered: UserRegistered | None = None
    role: str = "viewer"
    is_active: bool = True
    email: str | Sealed = ""
    customer_id: str | Sealed | None = None


def evolve(state: User, event: UserEvent) -> User:
    """Change *state* by *event*."""
    match event:
        case UserRegistered():
            state.registered = event
            state.role, state.email, state.customer_id = event.role, event.email, event.customer_id
        case UserChanged():
            state.role, state.email, state.customer_id = event.role, event.email, event.customer_id
            state.is_active = event.is_active
        case PasswordChanged():
            pass
    return state


def decide(state: User, command: UserCommand) -> tuple[UserEvent, ...]:
    """Answer the events that *command* leads to."""
    if command.role not in ROLES:
        raise Invalid("validation_failed", f"Role is one of {', '.join(ROLES)}")
    if state.registered is None:
        return (
            UserRegistered(
                user_id=command.user_id,
                username=command.username,
                email=command.email,
                role=command.role,
                customer_id=command.customer_id,
                via=command.via,
            ),
        )
    known = state.registered
    if (known.user_id, known.role, known.via) != (command.user_id, command.role, command.via):
        raise Conflict("version_conflict", "The account exists")
    return ()  # the same command again; names and addresses are sealed by now and cannot differ under a random id


USER = Decider(log="identity", subject="user", initial=User, evolve=evolve, decide=decide)
"""Streams ``user:{user_id}``."""
