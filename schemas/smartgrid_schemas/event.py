"""
The base of all events, and how each field is marked for privacy.

Every field of every event carries exactly one mark, and a test fails on an unmarked one:

``Plain``
    About equipment; no person can be told from it.
``Pseudonymous``
    An id that points to a person or a household only by way of another record.
``Personal``
    Says something of a person by itself. Stored sealed with the data key of its subject.
"""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

Instant = Annotated[datetime, Meta(tz=True)]
"""A point in time with its offset; one without is refused when decoding."""


class Event(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag_field="type"):
    """A fact. Subclasses give their name in the log as *tag*: ``subject.fact-in-words.vN``."""


class Sealed(Struct, frozen=True, gc=False, tag_field="type", tag="sealed", array_like=True):
    """
    A personal value that only the holder of its subject's data key can read.

    Attributes:
        subject: Whose key seals it: ``user:<id>`` or ``meter:<id>``.
        nonce: 12 bytes.
        data: Cipher text and tag of AES-256-GCM; the associated data are event name, stream, event id and field.
    """

    subject: str
    nonce: bytes
    data: bytes


def plain(**constraints: Any) -> Meta:  # noqa: ANN401  # passed through to Meta
    """Mark a field about equipment; no person can be told from it."""
    return Meta(extra={"privacy": "none"}, **constraints)


def pseudonymous(**constraints: Any) -> Meta:  # noqa: ANN401  # passed through to Meta
    """Mark an id that leads to a person only by way of another record."""
    return Meta(extra={"privacy": "pseudonymous"}, **constraints)


def personal(subject: str) -> Meta:
    """
    Mark a field that says something of a person by itself.

    Args:
        subject: ``<kind>:<field>``, the kind of the subject and the field of the same event that names it,
            such as ``user:user_id``.
    """
    return Meta(extra={"privacy": "personal", "subject": subject})


Plain = plain()
Pseudonymous = pseudonymous()
