"""
A future of this product: three of its events have newer shapes, and what is stored today has to be read in those.

The examples and schemas of the shapes in between are in ``evolved/``, kept like those of the product.
"""

import shutil
from pathlib import Path
from typing import Annotated

from tests.schemas.examples import SCHEMAS

from smartgrid_ops.schema_files import record_checksums
from smartgrid_schemas.event import Event, Plain, Pseudonymous, Sealed, personal
from smartgrid_schemas.identity import UserRegistered
from smartgrid_schemas.metering import MeterReadingsRecorded, RegisterKey
from smartgrid_schemas.registry import TOPIC_OF, Registry
from smartgrid_schemas.telemetry import Corrects, Location, Scalar, SensorConfigured

EVOLVED = Path(__file__).parent / "evolved"


class SensorConfiguredV2(Event, tag="telemetry.sensor-configured.v2", frozen=True, kw_only=True):
    """The interval became a whole number of microseconds."""

    sensor_id: Annotated[str, Plain]
    location: Annotated[Location | None, Plain] = None
    nominal: Annotated[float | None, Plain] = None
    expected_interval_us: Annotated[int | None, Plain] = None
    name: Annotated[str | None, Plain] = None
    feeder: Annotated[str | None, Plain] = None


class SensorConfiguredV3(Event, tag="telemetry.sensor-configured.v3", frozen=True, kw_only=True):
    """A sensor may stand at several feeders."""

    sensor_id: Annotated[str, Plain]
    location: Annotated[Location | None, Plain] = None
    nominal: Annotated[float | None, Plain] = None
    expected_interval_us: Annotated[int | None, Plain] = None
    name: Annotated[str | None, Plain] = None
    feeders: Annotated[tuple[str, ...], Plain] = ()


class UserRegisteredV2(Event, tag="identity.user-registered.v2", frozen=True, kw_only=True):
    """Field *via* got a better name."""

    user_id: Annotated[str, Pseudonymous]
    username: Annotated[str | Sealed, personal("user:user_id")]
    email: Annotated[str | Sealed, personal("user:user_id")]
    role: Annotated[str, Plain]
    customer_id: Annotated[str | Sealed | None, personal("user:user_id")] = None
    origin: Annotated[str, Plain]


class MeterReadingsRecordedV2(Event, tag="metering.readings-recorded.v2", frozen=True, kw_only=True, array_like=True):
    """The shard, which is in the name of the stream, is gone: in array form all places after it moved."""

    count: Annotated[int, Plain]
    series: Annotated[list[RegisterKey], Plain]
    runs: Annotated[list[int], Plain]
    measured_at: Annotated[bytes, Pseudonymous]
    mantissas: Annotated[bytes, Pseudonymous]
    exponents: Annotated[bytes, Pseudonymous]
    qualities: Annotated[bytes | None, Plain] = None
    seqs: Annotated[bytes | None, Plain] = None
    corrects: Annotated[list[Corrects] | None, Plain] = None
    metadata: Annotated[list[tuple[int, dict[str, Scalar]]] | None, Pseudonymous] = None
    requests: Annotated[list[str] | None, Plain] = None
    request_of: Annotated[bytes | None, Plain] = None


def sensor_configured_v2(old: SensorConfigured) -> SensorConfiguredV2:
    seconds = old.expected_interval_s
    # Whatever a float may be has to become something: half to even, and nothing for what is no duration.
    microseconds = round(seconds * 1e6) if seconds is not None and abs(seconds) < 2**40 else None
    return SensorConfiguredV2(
        sensor_id=old.sensor_id,
        location=old.location,
        nominal=old.nominal,
        expected_interval_us=microseconds,
        name=old.name,
        feeder=old.feeder,
    )


def sensor_configured_v3(old: SensorConfiguredV2) -> SensorConfiguredV3:
    return SensorConfiguredV3(
        sensor_id=old.sensor_id,
        location=old.location,
        nominal=old.nominal,
        expected_interval_us=old.expected_interval_us,
        name=old.name,
        feeders=() if old.feeder is None else (old.feeder,),
    )


def user_registered_v2(old: UserRegistered) -> UserRegisteredV2:
    return UserRegisteredV2(
        user_id=old.user_id,
        username=old.username,
        email=old.email,
        role=old.role,
        customer_id=old.customer_id,
        origin=old.via,
    )


def meter_readings_recorded_v2(old: MeterReadingsRecorded) -> MeterReadingsRecordedV2:
    kept = MeterReadingsRecordedV2.__struct_fields__
    return MeterReadingsRecordedV2(**{field: getattr(old, field) for field in kept})


NEW_SHAPES: dict[type[Event], type[Event]] = {
    SensorConfigured: SensorConfiguredV3,
    UserRegistered: UserRegisteredV2,
    MeterReadingsRecorded: MeterReadingsRecordedV2,
}
LATER = Registry(
    {NEW_SHAPES.get(kind, kind): topic for kind, topic in TOPIC_OF.items()},
    {
        SensorConfigured: sensor_configured_v2,
        SensorConfiguredV2: sensor_configured_v3,
        UserRegistered: user_registered_v2,
        MeterReadingsRecorded: meter_readings_recorded_v2,
    },
)


def later_schemas(folder: Path) -> Path:
    """Copy what is kept for all shapes, those of the product and the newer ones, to *folder*, and return it."""
    for part in ("golden", "frozen"):
        shutil.copytree(SCHEMAS / part, folder / part)
        shutil.copytree(EVOLVED / part, folder / part, dirs_exist_ok=True)
        record_checksums(folder / part)
    return folder
