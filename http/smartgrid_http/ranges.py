"""Parameters that many lists share: ids, ranges of time, pages."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

from msgspec import Meta, Struct

from smartgrid_domain.errors import Finding
from smartgrid_domain.instants import instant
from smartgrid_http.problems import invalid
from smartgrid_projections.queries.readings import Place

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z")]
"""Id of a sensor, meter or customer."""

Prefix = Annotated[str, Meta(max_length=128)]
SensorType = Literal[
    "voltage", "current", "power", "reactive_power", "energy", "frequency", "power_factor", "temperature"
]
RegisterName = Annotated[str, Meta(min_length=1, max_length=32)]
Reason = Annotated[str, Meta(min_length=1, max_length=500)]
Limit = Annotated[int, Meta(ge=1, le=10_000)]

PAGE = 100
"""Rows of a page of most lists."""

READINGS_PAGE = 1000
"""Rows of a page of readings."""

ALL = 2**62
"""No limit."""

DAY = timedelta(hours=24)


def time_range(start: str | None, end: str | None, now: datetime, span: timedelta = DAY) -> tuple[datetime, datetime]:
    """
    Return the half-open range that ``from`` and ``to`` name.

    Args:
        start: ``from``, a checked text; by default *span* before the end.
        end: ``to``, a checked text; by default *now*.
        now: The present time.
        span: Length of the range when only its end is known.

    Raises:
        Problem: 400, ``from`` is not before ``to``.
    """
    until = instant(end) if end is not None else now
    since = instant(start) if start is not None else until - span
    if since >= until:
        raise invalid([Finding("?from", "out_of_range", "Give a from before to")])
    return since, until


class Walk(Struct, frozen=True, array_like=True):
    """
    What a walk through pages of readings keeps.

    Attributes:
        up_to: Position that it began at.
        start: Start of its range.
        end: End of its range.
        after: The last row of the page before.
    """

    up_to: int
    start: datetime
    end: datetime
    after: Place | None
