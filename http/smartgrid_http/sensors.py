"""Sensors: what they are, what they are set to, their newest readings."""

from collections.abc import Sequence
from typing import Annotated, Literal

from litestar import get, put
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from smartgrid_commands.sensing import configure_sensor
from smartgrid_domain.deciders.checks import MAX_INTERVAL_S
from smartgrid_domain.deciders.sensor import MAX_NOMINAL, ConfigureSensor
from smartgrid_http.answers import Answer, answer
from smartgrid_http.call import call_of, metadata_of, principal_of
from smartgrid_http.conditions import if_match, not_found
from smartgrid_http.describe import describe
from smartgrid_http.guard import Req, body_of
from smartgrid_http.pages import Streamed, form_of, lines_of, scope_of, whole
from smartgrid_http.params import query_of
from smartgrid_http.positions import AsOf, TokenList, WaitMs, head_of, moment_of
from smartgrid_http.ranges import ALL, PAGE, Limit, Prefix, SensorType
from smartgrid_http.services import Services, present
from smartgrid_projections.queries.readings import LOG, Reading, reading_of
from smartgrid_projections.queries.sensors import Sensor, SensorFilter
from smartgrid_schemas.telemetry import Location


class Spot(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place."""

    lat: Annotated[float, Meta(ge=-90, le=90)]
    lon: Annotated[float, Meta(ge=-180, le=180)]


class SensorSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings to change: what is absent stays, null clears."""

    location: Spot | UnsetType | None = UNSET
    nominal: Annotated[float, Meta(gt=0, le=MAX_NOMINAL)] | UnsetType | None = UNSET
    expected_interval_s: Annotated[float, Meta(gt=0, le=MAX_INTERVAL_S)] | UnsetType | None = UNSET
    name: Annotated[str, Meta(min_length=1, max_length=100)] | UnsetType | None = UNSET
    feeder: Annotated[str, Meta(max_length=100)] | UnsetType | None = UNSET


class SensorsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of ``/sensors``."""

    sensor_type: SensorType | None = None
    prefix: Prefix = ""
    limit: Limit | None = None
    cursor: str | None = None
    min_position: TokenList | None = None
    wait_ms: WaitMs = 2000


class FreshQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fresh an answer must be."""

    min_position: TokenList | None = None
    wait_ms: WaitMs = 2000


class LatestQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of a sensor's newest readings."""

    as_of: AsOf | None = None
    min_position: TokenList | None = None
    wait_ms: WaitMs = 2000


class SensorPage(Struct, frozen=True, kw_only=True):
    """A page of sensors."""

    status: Literal["success"] = "success"
    data: list[Sensor]
    next_cursor: str | None


class SensorAnswer(Struct, frozen=True, kw_only=True):
    """One sensor."""

    status: Literal["success"] = "success"
    sensor: Sensor


class LatestReadings(Struct, frozen=True, kw_only=True):
    """The newest reading of each type and phase."""

    status: Literal["success"] = "success"
    data: list[Reading]


class AfterSensor(Struct, frozen=True, array_like=True):
    """The last sensor of a page."""

    sensor_id: str


@get(
    "/api/v1/sensors",
    opt=describe("Sensors", query=SensorsQuery, answers={200: SensorPage}, media=("text/csv", "application/x-ndjson")),
)
async def list_sensors(request: Req, services: NamedDependency[Services]) -> Answer:
    """Answer the sensors that ever sent a reading, ordered by id."""
    query = query_of(request, SensorsQuery)
    form = form_of(call_of(request.scope).header(b"accept"))
    scope = scope_of(principal_of(request.scope), "sensors", query)
    cursors, sensors = present(services.cursors), present(services.sensors)
    after = cursors.open(query.cursor, scope, AfterSensor).sensor_id if query.cursor is not None else ""
    head = await head_of(present(services.store), LOG, query.min_position, query.wait_ms)
    limit = query.limit or (PAGE if form == "json" else ALL)
    wanted = SensorFilter(sensor_type=query.sensor_type, prefix=query.prefix, after=after, limit=limit)
    position = f"{LOG}@{head}"
    if form != "json":

        async def fetch(behind: str, most: int) -> Sequence[Sensor]:
            return await sensors.sensors(replace(wanted, after=behind, limit=most))

        rows = whole(fetch, lambda one: one.sensor_id, after=after, limit=limit)
        return Streamed(form, lines_of(form, Sensor, rows), position)
    found = await sensors.sensors(replace(wanted, limit=limit + 1))
    page = list(found[:limit])
    cursor = cursors.issue(scope, AfterSensor(page[-1].sensor_id)) if len(found) > limit else None
    return answer(SensorPage(data=page, next_cursor=cursor), position=position)


@get("/api/v1/sensors/{sensor_id:str}", opt=describe("A sensor", query=FreshQuery, answers={200: SensorAnswer}))
async def get_sensor(request: Req, sensor_id: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Answer one sensor."""
    query = query_of(request, FreshQuery)
    head = await head_of(present(services.store), LOG, query.min_position, query.wait_ms)
    return await _sensor(services, sensor_id, head)


@put(
    "/api/v1/sensors/{sensor_id:str}",
    opt=describe("Change a sensor", body=SensorSettings, answers={200: SensorAnswer}, problems=(404, 409, 412)),
)
async def put_sensor(request: Req, sensor_id: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Change settings of a sensor; what is absent stays, null clears."""
    call = call_of(request.scope)
    versions = if_match(call)
    body = await body_of(request, SensorSettings)
    spot = body.location
    store = present(services.store)
    await configure_sensor(
        ConfigureSensor(
            sensor_id=sensor_id,
            location=Location(lat=spot.lat, lon=spot.lon) if isinstance(spot, Spot) else spot,
            nominal=body.nominal,
            expected_interval_s=body.expected_interval_s,
            name=body.name,
            feeder=body.feeder,
        ),
        store,
        metadata=metadata_of(call),
        commit_id=services.ids.uuid(),
        expected_versions=versions,
    )
    return await _sensor(services, sensor_id, await store.head(LOG))


async def _sensor(services: Services, sensor_id: str, head: int) -> Answer:
    sensor = await present(services.sensors).sensor(sensor_id)
    if sensor is None:
        raise not_found(sensor_id)
    return answer(SensorAnswer(sensor=sensor), position=f"{LOG}@{head}", etag=sensor.version)


@get(
    "/api/v1/sensors/{sensor_id:str}/latest",
    opt=describe("Newest readings of a sensor", query=LatestQuery, answers={200: LatestReadings}),
)
async def latest_readings(request: Req, sensor_id: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Answer the newest reading of each type and phase, as it is known now or was ``as_of`` then."""
    query = query_of(request, LatestQuery)
    head, _ = await moment_of(services, LOG, query.as_of, query.min_position, query.wait_ms)
    rows = await present(services.register).latest("sensor", sensor_id, measurand=None, start=None, up_to=head)
    data = [reading_of(sensor_id, row) for row in rows]
    return answer(LatestReadings(data=data), position=f"{LOG}@{head}")


handlers = [list_sensors, get_sensor, put_sensor, latest_readings]
