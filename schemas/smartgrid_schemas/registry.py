"""Event name → struct and topic: the only list."""

from msgspec.structs import StructConfig

from smartgrid_schemas.event import Event
from smartgrid_schemas.identity import PasswordChanged, SessionEnded, SessionStarted, UserChanged, UserRegistered
from smartgrid_schemas.metering import (
    MeterConfigured,
    MeterExchanged,
    MeterReadingRetracted,
    MeterReadingsRecorded,
    MeterRegistered,
    MeterReset,
)
from smartgrid_schemas.telemetry import ReadingRetracted, ReadingsRecorded, SensorConfigured, SensorRegistered

SENSOR_DATA = "smartgrid-sensor-data"
METER_READINGS = "smartgrid-meter-readings"
ALERTS = "smartgrid-alerts"
NOTIFICATIONS = "smartgrid-notifications"
USERS = "smartgrid-users"
DEAD_LETTER = "smartgrid-dead-letter"

TOPIC_OF: dict[type[Event], str] = {
    ReadingsRecorded: SENSOR_DATA,
    ReadingRetracted: SENSOR_DATA,
    SensorRegistered: SENSOR_DATA,
    SensorConfigured: SENSOR_DATA,
    MeterReadingsRecorded: METER_READINGS,
    MeterReadingRetracted: METER_READINGS,
    MeterRegistered: METER_READINGS,
    MeterConfigured: METER_READINGS,
    MeterExchanged: METER_READINGS,
    MeterReset: METER_READINGS,
    UserRegistered: USERS,
    UserChanged: USERS,
    PasswordChanged: USERS,
    SessionStarted: USERS,
    SessionEnded: USERS,
}
"""The bus topic of each event; also the list of all events."""


def name_of(event: type[Event] | Event) -> str:
    """
    Return the name of *event* in the log.

    Example:
        >>> name_of(SensorRegistered)
        'telemetry.sensor-registered.v1'
    """
    config: StructConfig = event.__struct_config__
    return str(config.tag)


EVENT_OF: dict[str, type[Event]] = {name_of(event): event for event in TOPIC_OF}
"""Event name → struct."""
