"""Errors as answers: RFC 9457 plus the original's ``error``. This module alone knows status codes of errors."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from smartgrid_domain.errors import Finding


class Problem(Exception):
    """
    An answer that is an error.

    Attributes:
        status: HTTP status.
        code: One of the codes of the API.
        detail: The ``error`` text: what to do about it.
        findings: The ``errors`` list.
        extra: Further members of the body.
        headers: Further headers of the answer, such as ``Retry-After``.
    """

    def __init__(  # noqa: PLR0913  # each is a member of the answer
        self,
        status: int,
        code: str,
        detail: str,
        *,
        findings: Sequence[Finding] = (),
        extra: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = HTTPStatus(status)
        self.code = code
        self.detail = detail
        self.findings = tuple(findings)
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})
