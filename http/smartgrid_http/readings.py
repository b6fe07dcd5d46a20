"""Raw readings of sensors, and taking a reading back."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Literal

from litestar import get
from litestar.di import NamedDependency
from msgspec import Struct, field

from smartgrid_http.answers import Answer, answer
from smartgrid_http.call import call_of, principal_of
from smartgrid_http.describe import describe
from smartgrid_http.findings import TimeText
from smartgrid_http.guard import Req
from smartgrid_http.pages import Streamed, form_of, lines_of, scope_of
from smartgrid_http.params import query_of
from smartgrid_http.positions import TokenList, WaitMs, head_of
from smartgrid_http.ranges import Id, Limit, time_range
from smartgrid_http.services import Services, present
from smartgrid_projections.queries.readings import LOG, Place, Reading, Row, Slice, pages_of, reading_of

SensorType = Literal[
    "voltage", "current", "power", "reactive_power", "energy", "frequency", "power_factor", "temperature"
]
Phase = Literal["L1", "L2", "L3", "N", "L12", "L23", "L31", "total"]
PAGE = 1000
ALL = 2**62
"""No limit."""


class ReadingsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of ``/readings``."""

    sensor_id: Id
    sensor_type: SensorType | None = None
    phase: Phase | None = None
    start: TimeText | None = field(default=None, name="from")
    end: TimeText | None = field(default=None, name="to")
    order: Literal["asc", "desc"] = "asc"
    versions: Literal["latest", "all"] = "latest"
    limit: Limit | None = None
    cursor: str | None = None
    min_position: TokenList | None = None
    wait_ms: WaitMs = 2000


class Readings(Struct, frozen=True, kw_only=True):
    """A page of readings."""

    status: Literal["success"] = "success"
    downsampled: bool = False
    data: list[Reading]
    next_cursor: str | None


class Walk(Struct, frozen=True, array_like=True):
    """
    What a walk through pages keeps.

    Attributes:
        up_to: Position that the walk began at.
        start: Start of its range.
        end: End of its range.
        after: The last row of the page before.
    """

    up_to: int
    start: datetime
    end: datetime
    after: Place


@get(
    "/api/v1/readings",
    opt=describe(
        "Readings of a sensor",
        query=ReadingsQuery,
        answers={200: Readings},
        media=("text/csv", "application/x-ndjson"),
    ),
)
async def list_readings(request: Req, services: NamedDependency[Services]) -> Answer | Streamed:
    """Answer the readings of a sensor in a range of time."""
    query = query_of(request, ReadingsQuery)
    form = form_of(call_of(request.scope).header(b"accept"))
    scope = scope_of(principal_of(request.scope), "readings", query)
    cursors, register = present(services.cursors), present(services.register)
    if query.cursor is not None:
        walk = cursors.open(query.cursor, scope, Walk)
        up_to, start, end, after = walk.up_to, walk.start, walk.end, walk.after
    else:
        start, end = time_range(query.start, query.end, services.clock.now())
        after = None
        up_to = await head_of(present(services.store), LOG, query.min_position, query.wait_ms)
    wanted = Slice(
        subject="sensor",
        subject_id=query.sensor_id,
        measurand=query.sensor_type,
        phase=query.phase,
        start=start,
        end=end,
        up_to=up_to,
        descending=query.order == "desc",
        all_versions=query.versions == "all",
        after=after,
        limit=(query.limit or PAGE) + 1 if form == "json" else query.limit or ALL,
    )
    position = f"{LOG}@{up_to}"
    if form != "json":
        pages = _answered(query.sensor_id, pages_of(register, wanted))
        return Streamed(form, lines_of(form, Reading, pages), position)
    rows = await register.rows(wanted)
    more = len(rows) == wanted.limit
    rows = rows[: wanted.limit - 1]
    cursor = cursors.issue(scope, Walk(up_to, start, end, rows[-1].place)) if more else None
    data = [reading_of(query.sensor_id, row) for row in rows]
    return answer(Readings(data=data, next_cursor=cursor), position=position)


async def _answered(sensor_id: str, pages: AsyncIterator[Sequence[Row]]) -> AsyncIterator[list[Reading]]:
    async for rows in pages:
        yield [reading_of(sensor_id, row) for row in rows]


handlers = [list_readings]
