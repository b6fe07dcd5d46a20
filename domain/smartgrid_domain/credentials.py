"""Rules for names, addresses and passwords of accounts."""

import re
import unicodedata

NAME = re.compile(r"[a-z0-9._-]{3,64}\Z", re.ASCII)
EMAIL = re.compile(r"[^\s@\"(),:;<>\[\]\\]{1,64}@[^\s@\"(),:;<>\[\]\\]{1,253}\Z")
MAX_EMAIL = 254
MIN_PASSWORD, MAX_PASSWORD, MAX_PASSWORD_BYTES = 15, 128, 512
MIN_VARIETY = 5
SHORTEST_PART = 4
"""Parts of a name or address shorter than this [characters] are no reason to refuse a password."""

PRODUCT_WORDS = ("smartgrid", "smart grid", "grid analytics", "smartgridanalytics")
LEET = str.maketrans("013457@$!", "oleastasi")


def folded_name(text: str) -> str | None:
    """
    Return *text* as the one spelling of a user name, None when it is no user name.

    Guarantees:
        Folding twice equals folding once, so look-alikes by case or width are one name.

    Example:
        >>> folded_name("\uff21dmin"), folded_name("no spaces")
        ('admin', None)
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return folded if NAME.match(folded) else None


def is_email(text: str) -> bool:
    r"""
    Return whether *text* can be an e-mail address; only sending tells whether it is one.

    Example:
        >>> is_email("ops@example.com"), is_email("a@b\r\nBcc: x")
        (True, False)
    """
    return len(text) <= MAX_EMAIL and text.isprintable() and EMAIL.match(text) is not None


def normal_password(text: str) -> str:
    """Return *text* in the one form in which it is hashed (NFC); spaces count."""
    return unicodedata.normalize("NFC", text)


def weakness(  # noqa: PLR0911  # one line for each reason
    password: str, *, username: str, email: str, common: frozenset[str]
) -> str | None:
    """
    Return why *password* must not be used; None when it may.

    Args:
        password: In normal form.
        username: Folded name of the account.
        email: Its address.
        common: Passwords that everybody tries first, in lower case.

    Example:
        >>> weakness("short", username="ann", email="ann@example.com", common=frozenset())
        'A password has at least 15 characters'
    """
    if "\0" in password:
        return "A password must not hold NUL"
    if len(password) < MIN_PASSWORD:
        return f"A password has at least {MIN_PASSWORD} characters"
    if len(password) > MAX_PASSWORD or len(password.encode()) > MAX_PASSWORD_BYTES:
        return f"A password has at most {MAX_PASSWORD} characters"
    lowered = password.casefold()
    if len(set(lowered)) < MIN_VARIETY:
        return f"A password has at least {MIN_VARIETY} different characters"
    if _is_made_of(lowered, common):
        return "This password is among those that are tried first"
    own = (username, email.casefold(), *re.split(r"[@.+_-]", email.casefold()), *PRODUCT_WORDS)
    if any(len(part) >= SHORTEST_PART and _is_mostly(lowered, part) for part in own):
        return "A password must not be built from the name, the address or this product"
    return None


def _is_made_of(lowered: str, common: frozenset[str]) -> bool:
    """Return whether *lowered* is a common password, alone, repeated, or with digits and signs around it."""
    plain = lowered.translate(LEET)
    forms = {form for text in (lowered, plain) for form in (text, text.strip("0123456789!?.,-_ *#$"), _unit(text))}
    return not forms.isdisjoint(common)


def _unit(text: str) -> str:
    """Return the shortest text that gives *text* when repeated."""
    at = (text + text).find(text, 1)
    return text[:at]


def _is_mostly(lowered: str, part: str) -> bool:
    """Return whether less than half of a whole password is left when *part* is taken out."""
    rest = lowered.replace(part, "")
    return len(rest) < min(len(lowered) / 2, MIN_PASSWORD / 2)
