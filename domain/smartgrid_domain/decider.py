"""The shape of an aggregate: initial state, evolve, decide."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from smartgrid_schemas.event import Event

C = TypeVar("C")
E = TypeVar("E", bound=Event)
S = TypeVar("S")


@dataclass(frozen=True, kw_only=True, slots=True)
class Decider(Generic[C, E, S]):
    """
    How one kind of aggregate decides.

    Attributes:
        log: Where its events go.
        subject: Its streams are ``<subject>:<key>``.
        initial: Makes the state before the first event.
        evolve: Changes the state by an event, in place, and returns it.
        decide: Answers the events that a command leads to; none for a command that changes nothing.

    Guarantees:
        *decide* raises nothing but :class:`~smartgrid_domain.errors.Rejected`, and answers ``()`` for a command
        that was just carried out.
    """

    log: str
    subject: str
    initial: Callable[[], S]
    evolve: Callable[[S, E], S]
    decide: Callable[[S, C], tuple[E, ...]]
