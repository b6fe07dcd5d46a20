"""Meters: what they are, what they are set to, their readings."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Literal

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct, field
from msgspec.structs import replace

from smartgrid_http.answers import Answer, answer
from smartgrid_http.call import call_of, principal_of
from smartgrid_http.conditions import not_found
from smartgrid_http.describe import describe
from smartgrid_http.findings import TimeText
from smartgrid_http.guard import Req
from smartgrid_http.pages import Streamed, form_of, lines_of, scope_of, whole
from smartgrid_http.params import query_of
from smartgrid_http.positions import AsOf, TokenList, WaitMs, head_of, moment_of
from smartgrid_http.principal import Principal
from smartgrid_http.ranges import ALL, PAGE, READINGS_PAGE, Limit, Prefix, RegisterName, Walk, time_range
from smartgrid_http.services import Services, present
from smartgrid_projections.queries.meter_readings import MeterReading, Teller
from smartgrid_projections.queries.meters import Meter, MeterFilter
from smartgrid_projections.queries.readings import LOG, Slice, pages_of

NOBODY = "-"
"""Matches no customer: ids begin with a letter or digit."""


class MetersQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of ``/meters``."""

    register: RegisterName | None = None
    prefix: Prefix = ""
    limit: Limit | None = None
    cursor: str | None = None
    min_position: TokenList | None = None
    wait_ms: WaitMs = 2000


class MeterQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of one meter."""

    min_position: TokenList | None = None
    wait_ms: WaitMs = 2000


class LatestQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of a meter's newest readings."""

    register: RegisterName | None = None
    as_of: AsOf | None = None
    min_position: TokenList | None = None
    wait_ms: WaitMs = 2000


class MeterReadingsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of a meter's readings."""

    register: RegisterName | None = None
    start: TimeText | None = field(default=None, name="from")
    end: TimeText | None = field(default=None, name="to")
    order: Literal["asc", "desc"] = "asc"
    versions: Literal["latest", "all"] = "latest"
    limit: Limit | None = None
    cursor: str | None = None
    as_of: AsOf | None = None
    min_position: TokenList | None = None
    wait_ms: WaitMs = 2000


class MeterPage(Struct, frozen=True, kw_only=True):
    """A page of meters."""

    status: Literal["success"] = "success"
    data: list[Meter]
    next_cursor: str | None


class MeterAnswer(Struct, frozen=True, kw_only=True):
    """One meter."""

    status: Literal["success"] = "success"
    meter: Meter


class MeterReadings(Struct, frozen=True, kw_only=True):
    """A page of readings."""

    status: Literal["success"] = "success"
    data: list[MeterReading]
    next_cursor: str | None


class LatestMeterReadings(Struct, frozen=True, kw_only=True):
    """The newest reading of each register."""

    status: Literal["success"] = "success"
    data: list[MeterReading]


class AfterMeter(Struct, frozen=True, array_like=True):
    """The last meter of a page."""

    meter_id: str


async def visible_from(
    services: Services, principal: Principal, meter_id: str, up_to: int | None = None
) -> datetime | None:
    """
    Return from when on *principal* may see what the meter counts; None for all.

    Args:
        services: The meters.
        principal: Who asks.
        meter_id: The meter.
        up_to: Position of the answer: whose the meter was then decides. Absent: whose it is now.

    Raises:
        Problem: 404, there is no such meter, or not for this caller.
    """
    link = await present(services.meters).link(meter_id, up_to=up_to)
    if link is None:
        raise not_found(meter_id)
    if principal.at_least("analyst"):
        return None
    if principal.customer_id is None or link.customer_id != principal.customer_id:
        raise not_found(meter_id)
    return link.since


@get(
    "/api/v1/meters",
    opt=describe("Meters", query=MetersQuery, answers={200: MeterPage}, media=("text/csv", "application/x-ndjson")),
)
async def list_meters(request: Req, services: NamedDependency[Services]) -> Answer:
    """Answer the meters that ever sent a reading, ordered by id; to a viewer only their own."""
    query = query_of(request, MetersQuery)
    principal = principal_of(request.scope)
    form = form_of(call_of(request.scope).header(b"accept"))
    scope = scope_of(principal, "meters", query)
    cursors, meters = present(services.cursors), present(services.meters)
    after = cursors.open(query.cursor, scope, AfterMeter).meter_id if query.cursor is not None else ""
    head = await head_of(present(services.store), LOG, query.min_position, query.wait_ms)
    limit = query.limit or (PAGE if form == "json" else ALL)
    wanted = MeterFilter(
        customer_id=None if principal.at_least("analyst") else principal.customer_id or NOBODY,
        register=query.register,
        prefix=query.prefix,
        after=after,
        limit=limit,
    )
    position = f"{LOG}@{head}"
    if form != "json":

        async def fetch(behind: str, most: int) -> Sequence[Meter]:
            return await meters.meters(replace(wanted, after=behind, limit=most))

        rows = whole(fetch, lambda one: one.meter_id, after=after, limit=limit)
        return Streamed(form, lines_of(form, Meter, rows), position)
    found = await meters.meters(replace(wanted, limit=limit + 1))
    page = list(found[:limit])
    cursor = cursors.issue(scope, AfterMeter(page[-1].meter_id)) if len(found) > limit else None
    return answer(MeterPage(data=page, next_cursor=cursor), position=position)


@get("/api/v1/meters/{meter_id:str}", opt=describe("A meter", query=MeterQuery, answers={200: MeterAnswer}))
async def get_meter(request: Req, meter_id: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Answer one meter."""
    query = query_of(request, MeterQuery)
    head = await head_of(present(services.store), LOG, query.min_position, query.wait_ms)
    await visible_from(services, principal_of(request.scope), meter_id)
    return await meter_answer(services, meter_id, head)


async def meter_answer(services: Services, meter_id: str, head: int) -> Answer:
    """Return the meter as it is at *head*."""
    meter = await present(services.meters).meter(meter_id)
    if meter is None:
        raise not_found(meter_id)
    return answer(MeterAnswer(meter=meter), position=f"{LOG}@{head}", etag=meter.version)


@get(
    "/api/v1/meters/{meter_id:str}/latest",
    opt=describe("Newest readings of a meter", query=LatestQuery, answers={200: LatestMeterReadings}),
)
async def latest_meter_readings(request: Req, meter_id: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Answer the newest reading of each register, as it is known now or was ``as_of`` then."""
    query = query_of(request, LatestQuery)
    head, _ = await moment_of(services, LOG, query.as_of, query.min_position, query.wait_ms)
    since = await visible_from(services, principal_of(request.scope), meter_id, head)
    rows = await present(services.register).latest("meter", meter_id, measurand=query.register, start=since, up_to=head)
    data = await (await _teller(services, meter_id, since, head)).told(rows)
    return answer(LatestMeterReadings(data=data), position=f"{LOG}@{head}")


@get(
    "/api/v1/meters/{meter_id:str}/readings",
    opt=describe(
        "Readings of a meter",
        query=MeterReadingsQuery,
        answers={200: MeterReadings},
        media=("text/csv", "application/x-ndjson"),
    ),
)
async def list_meter_readings(request: Req, meter_id: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Answer the readings of a meter with what each counted, as it is known now or was ``as_of`` then."""
    query = query_of(request, MeterReadingsQuery)
    principal = principal_of(request.scope)
    form = form_of(call_of(request.scope).header(b"accept"))
    scope = scope_of(principal, "meter readings", query, meter_id)
    cursors, register = present(services.cursors), present(services.register)
    if query.cursor is not None:
        walk = cursors.open(query.cursor, scope, Walk)
    else:
        moment = await moment_of(services, LOG, query.as_of, query.min_position, query.wait_ms)
        walk = Walk(moment.position, *time_range(query.start, query.end, moment.now), None)
    # Who goes on through the present must still be the meter's customer; who looks at the past was it then.
    going_on = query.cursor is not None and query.as_of is None
    since = await visible_from(services, principal, meter_id, None if going_on else walk.up_to)
    wanted = Slice(
        subject="meter",
        subject_id=meter_id,
        measurand=query.register,
        start=walk.start if since is None else max(walk.start, since),
        end=walk.end,
        up_to=walk.up_to,
        descending=query.order == "desc",
        all_versions=query.versions == "all",
        after=walk.after,
        limit=query.limit or (READINGS_PAGE if form == "json" else ALL),
    )
    position = f"{LOG}@{walk.up_to}"
    if form != "json":
        return Streamed(form, lines_of(form, MeterReading, _streamed(services, wanted, since)), position)
    rows = await register.rows(replace(wanted, limit=wanted.limit + 1))
    page = rows[: wanted.limit]
    more = len(rows) > wanted.limit
    cursor = cursors.issue(scope, replace(walk, after=page[-1].place)) if more else None
    data = await (await _teller(services, meter_id, since, walk.up_to)).told(page)
    return answer(MeterReadings(data=data, next_cursor=cursor), position=position)


async def _streamed(services: Services, wanted: Slice, since: datetime | None) -> AsyncIterator[list[MeterReading]]:
    teller = await _teller(services, wanted.subject_id, since, wanted.up_to)
    async for rows in pages_of(present(services.register), wanted):
        yield await teller.told(rows)


async def _teller(services: Services, meter_id: str, since: datetime | None, up_to: int) -> Teller:
    history = await present(services.store).read_stream(LOG, f"meter:{meter_id}")
    return Teller(meter_id, present(services.registers), history, start=since, up_to=up_to)


handlers = [list_meters, get_meter, latest_meter_readings, list_meter_readings]
