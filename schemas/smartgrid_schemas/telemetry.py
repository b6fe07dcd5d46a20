"""Sensors and their readings."""

from typing import Annotated

from msgspec import Struct

from smartgrid_schemas.event import Event, Instant, Plain

Scalar = str | int | float | bool | None


class SeriesKey(Struct, frozen=True, gc=False, array_like=True):
    """
    What a run of readings has in common.

    Attributes:
        sensor_id: The sensor.
        sensor_type: The measurand: ``voltage``, ``current`` …
        phase: ``L1`` … ``total``, or null.
        unit: The unit as sent, such as ``kW``.
    """

    sensor_id: Annotated[str, Plain]
    sensor_type: Annotated[str, Plain]
    phase: Annotated[str | None, Plain]
    unit: Annotated[str, Plain]


class Corrects(Struct, frozen=True, gc=False, array_like=True):
    """
    Why one row replaces an earlier reading.

    Attributes:
        row: Index of the row in its event, from 0.
        event_id: 16 bytes, the id of the reading that it replaces.
        reason: Why, in the operator's words.
    """

    row: Annotated[int, Plain]
    event_id: Annotated[bytes, Plain]
    reason: Annotated[str, Plain]


class ReadingsRecorded(Event, tag="telemetry.readings-recorded.v1", frozen=True, kw_only=True, array_like=True):
    """
    Sensor readings of one shard, in columns; rows are sorted by series, then as they came.

    The byte columns are those of ``smartgrid_domain.maths.columns``. A reading's value is
    ``mantissa * 10**exponent`` in the unit of its series, exactly as sent.

    Attributes:
        shard: crc32(sensor_id) mod 16.
        count: Number of rows, 1…4,096.
        series: What the rows of each run have in common.
        runs: Number of rows of each series, in order; they add up to *count*.
        measured_at: Microseconds since 1970 [µs], integer column.
        mantissas: Integer column.
        exponents: Integer column.
        qualities: Integer column of codes (``smartgrid_domain.maths.quantities.QUALITIES``); absent: all measured.
        seqs: Integer column, -1 where a reading has none; absent: none has one.
        corrects: The rows that replace an earlier reading.
        metadata: (row, metadata as sent) of the rows that have some.
        requests: Correlation ids of the requests that brought the rows, if more than one.
        request_of: Integer column, index into *requests* of each row.
    """

    shard: Annotated[int, Plain]
    count: Annotated[int, Plain]
    series: Annotated[list[SeriesKey], Plain]
    runs: Annotated[list[int], Plain]
    measured_at: Annotated[bytes, Plain]
    mantissas: Annotated[bytes, Plain]
    exponents: Annotated[bytes, Plain]
    qualities: Annotated[bytes | None, Plain] = None
    seqs: Annotated[bytes | None, Plain] = None
    corrects: Annotated[list[Corrects] | None, Plain] = None
    metadata: Annotated[list[tuple[int, dict[str, Scalar]]] | None, Plain] = None
    requests: Annotated[list[str] | None, Plain] = None
    request_of: Annotated[bytes | None, Plain] = None


class ReadingRetracted(Event, tag="telemetry.reading-retracted.v1", frozen=True, kw_only=True):
    """
    A sensor reading no longer counts; it stays in the log. On the stream ``readings:{shard}``.

    Attributes:
        event_id: The reading, the newest of its natural key.
        sensor_id: Its sensor.
        sensor_type: Its measurand.
        phase: Its phase.
        measured_at: When it was measured.
        seq: Its sequence number.
        reason: Why, in the operator's words.
    """

    event_id: Annotated[str, Plain]
    sensor_id: Annotated[str, Plain]
    sensor_type: Annotated[str, Plain]
    phase: Annotated[str | None, Plain] = None
    measured_at: Annotated[Instant, Plain]
    seq: Annotated[int | None, Plain] = None
    reason: Annotated[str, Plain]


class Location(Struct, frozen=True, gc=False):
    """
    A place on the WGS 84 ellipsoid.

    Attributes:
        lat: Latitude [°], -90…90.
        lon: Longitude [°], -180…180.
    """

    lat: Annotated[float, Plain]
    lon: Annotated[float, Plain]


class SensorRegistered(Event, tag="telemetry.sensor-registered.v1", frozen=True, kw_only=True):
    """
    A sensor was seen for the first time. First event of the stream ``sensor:{sensor_id}``.

    Attributes:
        sensor_id: The sensor.
        location: Where it stands.
    """

    sensor_id: Annotated[str, Plain]
    location: Annotated[Location, Plain]


class SensorConfigured(Event, tag="telemetry.sensor-configured.v1", frozen=True, kw_only=True):
    """
    The settings of a sensor from now on, all of them; they apply to all its history.

    Attributes:
        sensor_id: The sensor.
        location: Where it stands; null when unknown.
        nominal: Rated value in the canonical unit of its measurand, such as 230 [V].
        expected_interval_s: Time between two readings [s].
        name: For people.
        feeder: The feeder it belongs to.
    """

    sensor_id: Annotated[str, Plain]
    location: Annotated[Location | None, Plain] = None
    nominal: Annotated[float | None, Plain] = None
    expected_interval_s: Annotated[float | None, Plain] = None
    name: Annotated[str | None, Plain] = None
    feeder: Annotated[str | None, Plain] = None
