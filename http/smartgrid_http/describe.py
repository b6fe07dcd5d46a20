"""What a handler tells of itself for the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

KEY = "describe"


class Described(Struct, frozen=True, kw_only=True):
    """
    One operation.

    Attributes:
        summary: One line.
        body: Type of the JSON body.
        query: Type of the query.
        answers: Status to type of the JSON answer; None for an answer without a body.
        problems: Codes that it answers beside those that follow from its access and body.
        media: Further media types of the answer, such as ``text/csv``.
    """

    summary: str
    body: Any = None
    query: Any = None
    answers: Mapping[int, Any]
    problems: tuple[int, ...] = ()
    media: tuple[str, ...] = ()


def describe(  # noqa: PLR0913  # each is a part of the description
    summary: str,
    *,
    answers: Mapping[int, Any],
    body: Any = None,  # noqa: ANN401  # a type
    query: Any = None,  # noqa: ANN401  # a type
    problems: tuple[int, ...] = (),
    media: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return the ``opt=`` of a Litestar handler; the arguments are those of :class:`Described`."""
    described = Described(summary=summary, body=body, query=query, answers=answers, problems=problems, media=media)
    return {KEY: described}
