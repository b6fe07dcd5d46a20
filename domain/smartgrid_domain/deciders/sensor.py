"""
A sensor and its settings; stream ``sensor:{sensor_id}``.

A sensor is registered by its first reading (``smartgrid_commands.ingestion``), so no command does that here.
"""

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from smartgrid_domain.decider import Decider
from smartgrid_domain.deciders.checks import MAX_INTERVAL_S, number, refuse, text, unless_unset
from smartgrid_domain.errors import Finding, NotFound
from smartgrid_schemas.telemetry import Location, SensorConfigured, SensorRegistered

MAX_NOMINAL = 1e15
MAX_LATITUDE = 90.0
MAX_LONGITUDE = 180.0


class ConfigureSensor(Struct, frozen=True, kw_only=True):
    """
    Change settings of a sensor: what is unset stays, null clears.

    Attributes:
        sensor_id: The sensor.
        location: Where it stands.
        nominal: Rated value in the canonical unit of its measurand, above 0, such as 230 [V].
        expected_interval_s: Time between two readings [s], above 0, at most a year.
        name: For people, 1…100 characters.
        feeder: The feeder it belongs to, at most 100 characters.
    """

    sensor_id: str
    location: Location | UnsetType | None = UNSET
    nominal: float | UnsetType | None = UNSET
    expected_interval_s: float | UnsetType | None = UNSET
    name: str | UnsetType | None = UNSET
    feeder: str | UnsetType | None = UNSET


SensorEvent = SensorRegistered | SensorConfigured


class Sensor(Struct):
    """
    What a decision has to know about a sensor.

    Attributes:
        settings: What counts now; null for a sensor that was never seen.
    """

    settings: SensorConfigured | None = None


def evolve(state: Sensor, event: SensorEvent) -> Sensor:
    """Change *state* by *event*, in place."""
    match event:
        case SensorRegistered():
            state.settings = SensorConfigured(sensor_id=event.sensor_id, location=event.location)
        case SensorConfigured():
            state.settings = event
    return state


def decide(state: Sensor, command: ConfigureSensor) -> tuple[SensorEvent, ...]:
    """
    Return what *command* leads to.

    Raises:
        NotFound: The sensor was never seen.
        Invalid: A setting is out of its range.
    """
    if state.settings is None:
        raise NotFound("not_found", f"No sensor {command.sensor_id}: it appears with its first reading")
    wanted = replace(
        state.settings,
        location=unless_unset(command.location, state.settings.location),
        nominal=unless_unset(command.nominal, state.settings.nominal),
        expected_interval_s=unless_unset(command.expected_interval_s, state.settings.expected_interval_s),
        name=unless_unset(command.name, state.settings.name),
        feeder=unless_unset(command.feeder, state.settings.feeder),
    )
    refuse(
        [
            _place(wanted.location),
            number("/nominal", wanted.nominal, above=0, most=MAX_NOMINAL),
            number("/expected_interval_s", wanted.expected_interval_s, above=0, most=MAX_INTERVAL_S),
            text("/name", wanted.name, least=1, most=100),
            text("/feeder", wanted.feeder, least=0, most=100),
        ]
    )
    return () if wanted == state.settings else (wanted,)


def _place(place: Location | None) -> Finding | None:
    # A NaN compares false, so it is refused as well.
    if place is None or (abs(place.lat) <= MAX_LATITUDE and abs(place.lon) <= MAX_LONGITUDE):
        return None
    return Finding("/location", "out_of_range", "Give lat -90…90 and lon -180…180")


SENSOR: Decider[ConfigureSensor, SensorEvent, Sensor] = Decider(
    log="telemetry", subject="sensor", initial=Sensor, evolve=evolve, decide=decide
)
