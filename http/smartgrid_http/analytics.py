"""What the readings say: statistics of sensors."""

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
from smartgrid_http.call import call_of
from smartgrid_http.describe import describe
from smartgrid_http.findings import TimeText, checked
from smartgrid_http.guard import Req
from smartgrid_http.pages import Streamed, form_of, lines_of
from smartgrid_http.params import query_of
from smartgrid_http.positions import TokenList, WaitMs, behind, positions_of
from smartgrid_http.problems import invalid, unavailable
from smartgrid_http.ranges import Id, time_range
from smartgrid_http.readings import Phase, SensorType
from smartgrid_http.services import Services, present
from smartgrid_projections.ports import Unavailable
from smartgrid_projections.queries import stats as statistics
from smartgrid_projections.queries.standing import Waiting

LOG = "telemetry"
AGGREGATES = "aggregates"
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
    start, end = hours_or_range(query.hours, query.start, query.end, services.clock.now(), default=24 * HOUR)
    await wait_until(present(services.waiting), [AGGREGATES], query.min_position, query.wait_ms)
    wanted = statistics.StatsQuery(
        start=start,
        end=end,
        interval=query.interval,
        zone=zone_of(query.tz),
        sensor_id=query.sensor_id,
        measurand=query.sensor_type,
        phase=query.phase,
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


handlers = [sensor_stats]
