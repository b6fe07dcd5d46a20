"""Names fold to one spelling, and a password is refused for a reason that helps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartgrid_domain.credentials import NAME, folded_name, is_email, normal_password, weakness

COMMON = frozenset({"password", "dragon", "qwertyuiop", "123456789123456"})


@given(st.text(max_size=70))
def test_folding_a_name_twice_equals_once(text: str) -> None:
    folded = folded_name(text)

    assert folded is None or (folded_name(folded) == folded and NAME.match(folded))


@given(st.text("abcDEF0._-\uff21\uff42\u212a\u017f", min_size=3, max_size=10))
def test_case_and_width_make_no_other_name(text: str) -> None:
    assert folded_name(text) == folded_name(text.upper()) == folded_name(text.lower())


@pytest.mark.parametrize("text", ["ab", "a" * 65, "a b", "ann\n", "ann\0", "", "änn", "\u0430nn", "ann@x", "../x"])
def test_other_texts_are_no_names(text: str) -> None:
    assert folded_name(text) is None


@pytest.mark.parametrize("text", ["a@b", "ops.room+grid@example.com", "x" * 64 + "@example.com", "ü@example.al"])
def test_addresses_pass(text: str) -> None:
    assert is_email(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a@",
        "@b",
        "a@b@c",
        "a b@c",
        "a@b\n",
        "a@b\r\nBcc: c@d",
        "a\0@b",
        "a@b,c@d",
        "<a@b>",
        "x" * 250 + "@b.cd",
    ],
)
def test_other_texts_are_no_addresses(text: str) -> None:
    assert not is_email(text)


def judged(password: str, username: str = "annette", email: str = "annette.hoxha@kesh.example") -> str | None:
    return weakness(normal_password(password), username=username, email=email, common=COMMON)


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "tr0ub4dor&3 is not enough",
        "ë" * 5 + "çfarë bukurie në mal",
        "annette likes long walks in Theth",
        "a dragon guards the password store",
        "x9#kQ2!vLp0@wZr",
        "p" * 3 + "QzT7vbN1mKe4Hs8" * 8,
    ],
)
def test_long_and_uncommon_passwords_pass(password: str) -> None:
    assert judged(password) is None


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("fourteen chars", "at least 15"),
        ("abcde" * 25 + "xyzw", "at most 128"),
        ("abcdefghij\0klmnopq", "NUL"),
        ("aaaaaaaaaaaaaaaa", "different"),
        ("abababababababab", "different"),
        ("123456789123456", "tried first"),
        ("passwordpassword", "tried first"),
        ("PassWord12345678", "tried first"),
        ("p4ssw0rdp4ssw0rd", "tried first"),
        ("!!!!dragon!!!!!!", "tried first"),
        ("annetteannette12", "name"),
        ("annette.hoxha@kesh.example", "address"),
        ("hoxhahoxhahoxha1", "address"),
        ("SmartGridAnalytics2026", "product"),
    ],
)
def test_weak_passwords_are_refused_for_a_reason(password: str, why: str) -> None:
    told = judged(password)

    assert told is not None
    assert why in told


@given(st.text(max_size=200), st.text(max_size=70), st.text(max_size=70))
def test_any_text_is_judged(password: str, username: str, email: str) -> None:
    told = weakness(password, username=username, email=email, common=COMMON)

    assert told is not None or 15 <= len(password) <= 128


def test_bytes_count_as_well_as_characters() -> None:
    assert judged("\U0001f600\U0001f601\U0001f602\U0001f603\U0001f604" * 25 + "xyz") is None
    assert judged("\U0001f600\U0001f601\U0001f602\U0001f603\U0001f604" * 25 + "xyz\u00eb") is not None
