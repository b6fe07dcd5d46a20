"""What the domain may refuse, without knowing of HTTP."""

from collections.abc import Mapping, Sequence

from msgspec import Struct


class Finding(Struct, frozen=True, gc=False):
    """
    One thing that is wrong with an input.

    Attributes:
        pointer: JSON pointer into the body, ``?name`` of a query parameter or ``@Header-Name``.
        code: One of the pointer codes of the API, such as ``missing_field``.
        message: What to do about it.
    """

    pointer: str
    code: str
    message: str


class Rejected(Exception):
    """
    A rule says no; nothing was stored.

    Attributes:
        code: Error code of the API, such as ``reading_conflict``.
        detail: What to do about it.
        findings: Every single finding, for invalid input.
        extra: Further members of the answer, such as ``existing_event_id``.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        findings: Sequence[Finding] = (),
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.findings = tuple(findings)
        self.extra = dict(extra or {})


class Invalid(Rejected):
    """The input breaks a rule that holds for everybody, at any time."""


class NotFound(Rejected):
    """What the command is about does not exist, or not for this caller."""


class Conflict(Rejected):
    """The input contradicts what is recorded."""


class Forbidden(Rejected):
    """The caller may not do this."""
