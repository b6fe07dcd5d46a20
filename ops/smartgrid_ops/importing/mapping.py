"""The TOML file that says what the columns of a file mean."""

import codecs
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, Struct

DEFAULT_MISSING = ("", "?", "nan", "na", "null")

Text = Annotated[str, Meta(min_length=1)]


class BadMapping(ValueError):
    """A mapping that cannot be used; the text says which line of it and why."""


class Place(Struct, frozen=True, forbid_unknown_fields=True):
    """
    Where a sensor stands.

    Attributes:
        lat: Latitude [°].
        lon: Longitude [°].
    """

    lat: float
    lon: float


class TimeMapping(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    How a file writes times.

    Attributes:
        columns: One column, or several that are read together with a blank between them.
        formats: Tried in order: formats of ``strptime``, or ``iso8601``, ``unix-s``, ``unix-ms``, ``unix-us``.
        zone: IANA zone of times without offset.
        repeated_hour: Which one a local time means that occurs twice when clocks go back: the first time it is
            seen the earlier and then the later (``by-order``), or always ``first`` or ``second``.
        midnight: ``begins-day``: 00:00 is the start of its date; ``ends-day``: it is the end of its date.
    """

    columns: Annotated[list[Text], Meta(min_length=1)]
    formats: Annotated[list[Text], Meta(min_length=1)] = msgspec.field(default_factory=lambda: ["iso8601"])
    zone: str = "UTC"
    repeated_hour: Literal["by-order", "first", "second"] = "by-order"
    midnight: Literal["begins-day", "ends-day"] = "begins-day"


class SensorMapping(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A column of values of one measurand.

    Attributes:
        column: The column.
        sensor_type: The measurand.
        sensor_id: The sensor, or
        sensor_id_column: the column that names it.
        unit: Unit of the column; default: the canonical one.
        phase: ``L1`` … ``total``.
        quality: Quality of all values of the column.
        location: Where the sensor stands; default: the mapping's.
    """

    column: Text
    sensor_type: Text
    sensor_id: Text | None = None
    sensor_id_column: Text | None = None
    unit: str | None = None
    phase: str | None = None
    quality: str | None = None
    location: Place | None = None


class Accumulate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    How the energy of intervals becomes a register that counts up.

    Attributes:
        interval_s: Length of an interval [s].
        label: Whether the time of a row is the ``end`` of its interval or the ``start``.
        start: Where the register stood before the first row, in the unit of the column. This reading is sent too,
            dated at the start of the first interval.
    """

    interval_s: Annotated[float, Meta(gt=0)]
    label: Literal["start", "end"] = "end"
    start: str = "0"


class MeterMapping(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A column of register readings, or of interval energies to accumulate.

    Attributes:
        column: The column.
        meter_id: The meter.
        customer_id: Whose consumption it counts.
        register: The register.
        unit: Unit of the column.
        quality: Quality of all readings of the column.
        accumulate: Present when the column holds the energy of intervals.
    """

    column: Text
    meter_id: Text
    customer_id: str | None = None
    register: str | None = None
    unit: str | None = None
    quality: str | None = None
    accumulate: Accumulate | None = None


class Mapping(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What the columns of a file mean.

    Attributes:
        time: How times are written.
        format: ``csv`` or ``ndjson``; default: by the name of the file.
        encoding: Name of the text encoding; ``utf-8-sig`` for a file that starts with a byte-order mark.
        delimiter: Between the cells of a CSV line.
        decimal_mark: ``.`` or ``,``.
        missing: Cells that mean *no value*, in any case.
        location: Where the sensors stand.
        sensors: Columns with values of sensors.
        meters: Columns with readings of meters.
    """

    time: TimeMapping
    format: Literal["csv", "ndjson"] | None = None
    encoding: str = "utf-8"
    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    decimal_mark: Literal[".", ","] = "."
    missing: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT_MISSING))
    location: Place | None = None
    sensors: list[SensorMapping] = msgspec.field(default_factory=list[SensorMapping])
    meters: list[MeterMapping] = msgspec.field(default_factory=list[MeterMapping])


def load_mapping(path: Path) -> Mapping:
    """
    Return the mapping in the file *path*.

    Raises:
        BadMapping: It cannot be read, or says something that cannot be.
    """
    try:
        mapping = msgspec.toml.decode(path.read_bytes(), type=Mapping)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise BadMapping(f"{path}: {error}") from error
    try:
        _check(mapping)
    except BadMapping as error:
        raise BadMapping(f"{path}: {error}") from None
    return mapping


def _check(mapping: Mapping) -> None:
    try:
        ZoneInfo(mapping.time.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadMapping(f"time.zone: {mapping.time.zone!r} is no zone") from error
    try:
        codecs.lookup(mapping.encoding)
    except LookupError as error:
        raise BadMapping(f"encoding: {mapping.encoding!r} is unknown") from error
    if not mapping.sensors and not mapping.meters:
        raise BadMapping("it needs at least one [[sensors]] or [[meters]]")
    for sensor in mapping.sensors:
        if (sensor.sensor_id is None) == (sensor.sensor_id_column is None):
            raise BadMapping(f"sensors, column {sensor.column}: exactly one of sensor_id and sensor_id_column")
    for meter in mapping.meters:
        if meter.accumulate is not None:
            try:
                Decimal(meter.accumulate.start)
            except InvalidOperation as error:
                raise BadMapping(f"meters, column {meter.column}: start {meter.accumulate.start!r}") from error
