"""What the readings say: statistics of sensors, consumption of meters and customers."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal, cast

from litestar import get
from litestar.di import NamedDependency
from litestar.types import ASGIApp
from msgspec import Meta, Struct, field

from smartgrid_domain.errors import Finding
from smartgrid_domain.maths.calendar import UnknownZone, zone_of
from smartgrid_http.answers import answer
from smartgrid_http.call import call_of, principal_of
from smartgrid_http.describe import describe
from smartgrid_http.findings import TimeText, checked
from smartgrid_http.guard import Req
from smartgrid_http.pages import Streamed, form_of, lines_of
from smartgrid_http.params import query_of
from smartgrid_http.positions import AsOf, TokenList, WaitMs, as_of, behind, positions_of
from smartgrid_http.problems import Problem, invalid, unavailable
from smartgrid_http.ranges import DAY, Id, SensorType, time_range
from smartgrid_http.readings import Phase
from smartgrid_http.services import Services, present
from smartgrid_projections.ports import Unavailable
from smartgrid_projections.queries import stats as statistics
from smartgrid_projections.queries import trends as consumption
from smartgrid_projections.queries.standing import Waiting

LOG = "telemetry"
AGGREGATES = "aggregates"
CONSUMPTION = "consumption"
HOUR = timedelta(hours=1)


def _zone(text: str) -> tuple[str, str] | None:
    try:
        zone_of(text)
    except UnknownZone:
        return "unknown_value", "Name an IANA time zone, such as Europe/Tirane"
    return None


Zone = Annotated[str, checked(_zone, max_length=64)]
"""The parameter ``tz``."""

StatsInterval = Literal["1m", "15m", "1h", "1d", "1w", "1mo"]


class StatsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of ``/analytics/sensor/stats``."""

    sensor_id: Id | None = None
    sensor_type: SensorType | None = None
    phase: Phase | None = None
    hours: Annotated[int, Meta(ge=1, le=168)] | None = None
    start: TimeText | None = field(default=None, name="from")
    end: TimeText | None = field(default=None, name="to")
    interval: StatsInterval | None = None
    tz: Zone = "UTC"
    as_of: AsOf | None = None
    min_position: TokenList | None = None
    wait_ms: WaitMs = 2000


class Stats(Struct, frozen=True, kw_only=True):
    """Statistics of sensors; with an interval one row a bucket, and only then rows have bounds."""

    status: Literal["success"] = "success"
    period_hours: int | float
    data: list[statistics.BucketStatsRow]


@get(
    "/api/v1/analytics/sensor/stats",
    opt=describe(
        "Statistics of sensors",
        query=StatsQuery,
        answers={200: Stats},
        problems=(503,),
        media=("text/csv", "application/x-ndjson"),
    ),
)
async def sensor_stats(request: Req, services: NamedDependency[Services]) -> ASGIApp:
    """Answer count, mean, extremes, deviation and percentiles of each sensor and measurand in a range of time."""
    query = query_of(request, StatsQuery)
    form = form_of(call_of(request.scope).header(b"accept"))
    then = None if query.as_of is None else await as_of(services, LOG, query.as_of)
    now = services.clock.now() if then is None else then.now
    start, end = hours_or_range(query.hours, query.start, query.end, now, default=24 * HOUR)
    await wait_until(present(services.waiting), [AGGREGATES], query.min_position, query.wait_ms)
    wanted = statistics.StatsQuery(
        start=start,
        end=end,
        interval=query.interval,
        zone=zone_of(query.tz),
        sensor_id=query.sensor_id,
        measurand=query.sensor_type,
        phase=query.phase,
        as_of=None if then is None else then.position,
    )
    try:
        rows, position = await statistics.stats(present(services.stats), wanted)
    except statistics.TooManyBuckets:
        raise invalid([Finding("?interval", "out_of_range", "Ask for a longer interval or a shorter range")]) from None
    except Unavailable as error:
        raise unavailable("store_unavailable", "The database cannot be reached; try again") from error
    token = f"{LOG}@{position}"
    if form == "json":
        return answer(
            Stats(period_hours=hours_of(start, end), data=cast("list[statistics.BucketStatsRow]", rows)), position=token
        )
    row_type = statistics.StatsRow if query.interval is None else statistics.BucketStatsRow
    return Streamed(form, lines_of(form, row_type, one_page(rows)), token)


def hours_or_range(
    hours: int | None, start: str | None, end: str | None, now: datetime, *, default: timedelta
) -> tuple[datetime, datetime]:
    """
    Return the range that ``hours``, or else ``from`` and ``to``, name.

    Raises:
        Problem: 400, both are given, or ``from`` is not before ``to``.
    """
    return either_range("hours", None if hours is None else hours * HOUR, start, end, now, default=default)


def either_range(  # noqa: PLR0913  # two ways to say one thing
    name: str, span: timedelta | None, start: str | None, end: str | None, now: datetime, *, default: timedelta
) -> tuple[datetime, datetime]:
    """
    Return the range of length *span* up to *now*, or the one that ``from`` and ``to`` name.

    Raises:
        Problem: 400, the parameter *name* is given beside ``from`` or ``to``, or ``from`` is not before ``to``.
    """
    if span is None:
        return time_range(start, end, now, default)
    if start is not None or end is not None:
        raise invalid([Finding(f"?{name}", "out_of_range", f"Give {name}, or from and to, not both")])
    return now - span, now


def hours_of(start: datetime, end: datetime) -> int | float:
    """Return the length of a range [h], a whole number where it is one."""
    hours = (end - start) / HOUR
    return int(hours) if hours.is_integer() else hours


async def wait_until(waiting: Waiting, names: Sequence[str], min_position: str | None, wait_ms: int) -> None:
    """
    Wait until projections include the positions of a good token list.

    Raises:
        Problem: 503 ``projection_behind`` after *wait_ms*, 503 ``store_unavailable``.
    """
    if min_position is None:
        return
    try:
        included = await waiting.until(names, positions_of(min_position), wait_ms)
    except Unavailable as error:
        raise unavailable("store_unavailable", "The database cannot be reached; try again") from error
    if not included:
        raise behind()


async def one_page(rows: Sequence[Struct]) -> AsyncIterator[Sequence[Struct]]:
    """Yield *rows*."""
    yield rows


class TrendsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of ``/analytics/consumption/trends``."""

    customer_id: Id | None = None
    meter_id: Id | None = None
    days: Annotated[int, Meta(ge=1, le=400)] | None = None
    start: TimeText | None = field(default=None, name="from")
    end: TimeText | None = field(default=None, name="to")
    interval: Literal["1h", "1d", "1w", "1mo"] = "1d"
    tz: Zone | None = None
    as_of: AsOf | None = None
    compare: Literal["previous", "year_ago"] | None = None
    min_position: TokenList | None = None
    wait_ms: WaitMs = 2000


class Trends(Struct, frozen=True, kw_only=True):
    """Consumption in local buckets; ``compared_kwh`` only with ``compare``."""

    status: Literal["success"] = "success"
    period_days: int | float
    trends: list[consumption.ComparedTrend]
    currency: Literal["EUR"] = "EUR"
    price_eur_per_kwh: float | None


@get(
    "/api/v1/analytics/consumption/trends",
    opt=describe(
        "Consumption of a meter or a customer",
        query=TrendsQuery,
        answers={200: Trends},
        problems=(404, 503),
        media=("text/csv", "application/x-ndjson"),
    ),
)
async def consumption_trends(request: Req, services: NamedDependency[Services]) -> ASGIApp:
    """Answer what a meter or a customer consumed, by local hours, days, weeks or months."""
    query = query_of(request, TrendsQuery)
    if (query.customer_id is None) == (query.meter_id is None):
        code = "missing_field" if query.customer_id is None else "duplicate_parameter"
        raise invalid([Finding("?customer_id", code, "Give one of customer_id and meter_id")])
    form = form_of(call_of(request.scope).header(b"accept"))
    span = None if query.days is None else query.days * DAY
    then = None if query.as_of is None else await as_of(services, LOG, query.as_of)
    now = services.clock.now() if then is None else then.now
    start, end = either_range("days", span, query.start, query.end, now, default=30 * DAY)
    principal = principal_of(request.scope)
    own = None
    if not principal.at_least("analyst"):
        own = principal.customer_id
        if own is None or query.customer_id not in (None, own):
            raise nowhere()
    await wait_until(present(services.waiting), [CONSUMPTION], query.min_position, query.wait_ms)
    wanted = consumption.TrendsQuery(
        start=start,
        end=end,
        interval=query.interval,
        zone=zone_of(query.tz or services.tz),
        customer_id=query.customer_id,
        meter_id=query.meter_id,
        only_customer=None if query.meter_id is None else own,
        compare=query.compare,
        price_eur_per_kwh=services.price_eur_per_kwh,
        as_of=None if then is None else then.position,
    )
    try:
        rows, position = await consumption.trends(present(services.trends), wanted)
    except statistics.TooManyBuckets:
        raise invalid([Finding("?interval", "out_of_range", "Ask for a longer interval or a shorter range")]) from None
    except Unavailable as error:
        raise unavailable("store_unavailable", "The database cannot be reached; try again") from error
    if rows is None and wanted.only_customer is not None:
        raise nowhere()  # a meter that never was this customer's looks like one that does not exist
    token = f"{LOG}@{position}"
    if form != "json":
        row_type = consumption.Trend if query.compare is None else consumption.ComparedTrend
        return Streamed(form, lines_of(form, row_type, one_page(rows or [])), token)
    days = hours_of(start, end) / 24
    payload = Trends(
        period_days=int(days) if days.is_integer() else days,
        trends=cast("list[consumption.ComparedTrend]", rows or []),
        price_eur_per_kwh=services.price_eur_per_kwh,
    )
    return answer(payload, position=token)


def nowhere() -> Problem:
    """Return the problem that there is no such meter or customer, or not for this caller."""
    return Problem(404, "not_found", "There is no such meter or customer")


handlers = [sensor_stats, consumption_trends]
