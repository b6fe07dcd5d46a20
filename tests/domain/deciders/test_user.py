"""Accounts decide alike, however often they are asked."""

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartgrid_domain.deciders.user import ROLES, USER, RegisterUser, UserEvent
from smartgrid_domain.errors import Conflict, Invalid, Rejected
from smartgrid_schemas.identity import PasswordChanged, UserChanged, UserRegistered

commands = st.builds(
    RegisterUser,
    user_id=st.sampled_from(["u1", "u2"]),
    username=st.sampled_from(["ann", "bob"]),
    email=st.just("a@example.com"),
    role=st.sampled_from([*ROLES, "root", ""]),
    customer_id=st.none() | st.just("c1"),
    via=st.sampled_from(["self", "admin", "bootstrap"]),
)
REGISTERED = UserRegistered(user_id="u1", username="ann", email="a@example.com", role="viewer", via="self")


@given(commands)
def test_any_command_twice_equals_once(command: RegisterUser) -> None:
    state = USER.initial()
    try:
        events = USER.decide(state, command)
    except Rejected as rejection:
        assert isinstance(rejection, Invalid)  # noqa: PT017  # nothing else may come out
        return
    assert USER.decide(reduce(USER.evolve, events, state), command) == ()


def test_registration_holds_what_was_asked() -> None:
    command = RegisterUser(
        user_id="u1", username="ann", email="a@example.com", role="operator", customer_id="c1", via="admin"
    )

    (event,) = USER.decide(USER.initial(), command)

    assert event == UserRegistered(
        user_id="u1", username="ann", email="a@example.com", role="operator", customer_id="c1", via="admin"
    )


def test_an_account_cannot_be_opened_twice_differently() -> None:
    state = USER.evolve(USER.initial(), REGISTERED)

    with pytest.raises(Conflict):
        USER.decide(state, RegisterUser(user_id="u1", username="ann", email="a", role="admin", via="self"))


def test_the_newest_change_counts() -> None:
    changed = UserChanged(user_id="u1", email="b@example.com", role="analyst", customer_id="c1", is_active=False)

    history: tuple[UserEvent, ...] = (REGISTERED, changed, PasswordChanged(user_id="u1"))
    state = reduce(USER.evolve, history, USER.initial())

    assert (state.role, state.is_active, state.email, state.customer_id) == ("analyst", False, "b@example.com", "c1")
