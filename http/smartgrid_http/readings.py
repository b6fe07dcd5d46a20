"""Raw readings of sensors, and taking a reading back."""

from collections.abc import AsyncIterator, Sequence
from typing import Literal
from uuid import UUID

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct, field
from msgspec.structs import replace

from smartgrid_commands.retracting import retract
from smartgrid_http.answers import Answer, answer
from smartgrid_http.call import call_of, metadata_of, principal_of
from smartgrid_http.conditions import uuid_in_path
from smartgrid_http.describe import describe
from smartgrid_http.findings import TimeText
from smartgrid_http.guard import Req, decoded, read_body
from smartgrid_http.idempotency import once
from smartgrid_http.pages import Streamed, form_of, lines_of, scope_of
from smartgrid_http.params import query_of
from smartgrid_http.positions import AsOf, TokenList, WaitMs, moment_of
from smartgrid_http.ranges import ALL, READINGS_PAGE, Id, Limit, Reason, SensorType, Walk, time_range
from smartgrid_http.services import Services, present
from smartgrid_projections.queries.readings import LOG, Reading, Row, Slice, pages_of, reading_of

Phase = Literal["L1", "L2", "L3", "N", "L12", "L23", "L31", "total"]


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
    as_of: AsOf | None = None
    min_position: TokenList | None = None
    wait_ms: WaitMs = 2000


class Readings(Struct, frozen=True, kw_only=True):
    """A page of readings."""

    status: Literal["success"] = "success"
    downsampled: bool = False
    data: list[Reading]
    next_cursor: str | None


@get(
    "/api/v1/readings",
    opt=describe(
        "Readings of a sensor",
        query=ReadingsQuery,
        answers={200: Readings},
        media=("text/csv", "application/x-ndjson"),
    ),
)
async def list_readings(request: Req, services: NamedDependency[Services]) -> Answer:
    """Answer the readings of a sensor in a range of time, as they are known now or were ``as_of`` then."""
    query = query_of(request, ReadingsQuery)
    form = form_of(call_of(request.scope).header(b"accept"))
    scope = scope_of(principal_of(request.scope), "readings", query)
    cursors, register = present(services.cursors), present(services.register)
    if query.cursor is not None:
        walk = cursors.open(query.cursor, scope, Walk)
    else:
        moment = await moment_of(services, LOG, query.as_of, query.min_position, query.wait_ms)
        walk = Walk(moment.position, *time_range(query.start, query.end, moment.now), None)
    wanted = Slice(
        subject="sensor",
        subject_id=query.sensor_id,
        measurand=query.sensor_type,
        phase=query.phase,
        start=walk.start,
        end=walk.end,
        up_to=walk.up_to,
        descending=query.order == "desc",
        all_versions=query.versions == "all",
        after=walk.after,
        limit=query.limit or (READINGS_PAGE if form == "json" else ALL),
    )
    position = f"{LOG}@{walk.up_to}"
    if form != "json":
        pages = _answered(query.sensor_id, pages_of(register, wanted))
        return Streamed(form, lines_of(form, Reading, pages), position)
    rows = await register.rows(replace(wanted, limit=wanted.limit + 1))
    page = rows[: wanted.limit]
    more = len(rows) > wanted.limit
    cursor = cursors.issue(scope, replace(walk, after=page[-1].place)) if more else None
    data = [reading_of(query.sensor_id, row) for row in page]
    return answer(Readings(data=data, next_cursor=cursor), position=position)


async def _answered(sensor_id: str, pages: AsyncIterator[Sequence[Row]]) -> AsyncIterator[list[Reading]]:
    async for rows in pages:
        yield [reading_of(sensor_id, row) for row in rows]


class Retraction(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a reading no longer counts."""

    reason: Reason


class RetractionAnswer(Struct, frozen=True, kw_only=True):
    """Where a retraction is."""

    status: Literal["success"] = "success"
    event_id: UUID
    position: str


@post(
    "/api/v1/readings/{event_id:str}/retract",
    status_code=200,
    opt=describe("Retract a reading", body=Retraction, answers={200: RetractionAnswer}, problems=(404, 409, 422)),
)
async def retract_reading(request: Req, event_id: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Take a reading, an exchange or a reset back: it stays in the log and no longer counts."""
    call = call_of(request.scope)
    sent = await read_body(request.scope, request.receive)

    async def run() -> Answer:
        body = decoded(request, sent, Retraction)
        fact = uuid_in_path(event_id)
        retracted = await retract(
            fact,
            body.reason,
            present(services.store),
            present(services.facts),
            metadata=metadata_of(call),
            commit_id=services.ids.uuid(),
        )
        position = f"{LOG}@{retracted.position}"
        return answer(RetractionAnswer(event_id=fact, position=position), position=position)

    return await once(services.keys, request.scope, sent, run)


handlers = [list_readings, retract_reading]
