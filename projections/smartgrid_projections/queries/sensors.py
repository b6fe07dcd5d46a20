"""Sensors as they are set now, with what they have sent."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from msgspec import Struct

from smartgrid_schemas.telemetry import Location, SensorConfigured, SensorRegistered


class Sensor(Struct, frozen=True, kw_only=True, gc=False):
    """
    A sensor, as answered.

    Attributes:
        sensor_id: The sensor.
        types: What it measures, in order.
        location: Where it stands.
        nominal: Rated value in the canonical unit of its measurand.
        expected_interval_s: Time between two readings [s].
        name: For people.
        feeder: The feeder it belongs to.
        first_seen: Time of its earliest reading.
        last_seen: Time of its newest reading.
        version: Version of its settings.
    """

    sensor_id: str
    types: list[str]
    location: Location | None
    nominal: float | None
    expected_interval_s: float | None
    name: str | None
    feeder: str | None
    first_seen: datetime
    last_seen: datetime
    version: int


class SensorFilter(Struct, frozen=True, kw_only=True):
    """
    Which sensors are wanted, ordered by id.

    Attributes:
        sensor_type: Only those that measure it.
        prefix: Only ids that begin so.
        after: Only ids behind this one.
        limit: Most of them.
    """

    sensor_type: str | None = None
    prefix: str = ""
    after: str = ""
    limit: int


@runtime_checkable
class Sensors(Protocol):
    """All sensors that ever sent a reading."""

    async def sensor(self, sensor_id: str) -> Sensor | None:
        """Return one of them."""
        ...

    async def sensors(self, wanted: SensorFilter) -> Sequence[Sensor]:
        """Return the first of those wanted."""
        ...


def sensor_of(
    settings: SensorRegistered | SensorConfigured,
    version: int,
    types: list[str],
    first_seen: datetime,
    last_seen: datetime,
) -> Sensor:
    """Return a sensor whose newest event is *settings*: each holds all settings."""
    now = settings
    if isinstance(now, SensorRegistered):
        now = SensorConfigured(sensor_id=now.sensor_id, location=now.location)
    return Sensor(
        sensor_id=now.sensor_id,
        types=types,
        location=now.location,
        nominal=now.nominal,
        expected_interval_s=now.expected_interval_s,
        name=now.name,
        feeder=now.feeder,
        first_seen=first_seen,
        last_seen=last_seen,
        version=version,
    )
