"""One reading of a file, ready to be sent."""

from typing import Literal

import msgspec
from msgspec import Struct

from smartgrid_ops.importing.mapping import MeterMapping, Place, SensorMapping
from smartgrid_ops.importing.times import Moment


class Series(Struct, frozen=True):
    """
    What all readings of a column have in common.

    Attributes:
        kind: Of a sensor or of a meter.
        column: The column of the file.
        fields: Fields of the API that never change in it.
        head: The same as the beginning of a JSON object.
    """

    kind: Literal["sensor", "meter"]
    column: str
    fields: dict[str, str | Place]
    head: bytes


def sensor_series(mapping: SensorMapping, sensor_id: str, default: Place | None) -> Series:
    """Return the series of *sensor_id* in the column of *mapping*."""
    fields = {
        "sensor_id": sensor_id,
        "sensor_type": mapping.sensor_type,
        "unit": mapping.unit,
        "phase": mapping.phase,
        "quality": mapping.quality,
        "location": mapping.location or default,
    }
    return _series("sensor", mapping.column, fields)


def meter_series(mapping: MeterMapping) -> Series:
    """Return the series of the column of *mapping*."""
    fields: dict[str, str | Place | None] = {
        "meter_id": mapping.meter_id,
        "customer_id": mapping.customer_id,
        "register": mapping.register,
        "unit": mapping.unit,
        "quality": mapping.quality,
    }
    return _series("meter", mapping.column, fields)


def _series(kind: Literal["sensor", "meter"], column: str, fields: dict[str, str | Place | None]) -> Series:
    present = {name: value for name, value in fields.items() if value is not None}
    return Series(kind, column, present, msgspec.json.encode(present)[:-1])


class Reading(Struct, frozen=True, gc=False):
    """
    One value of one series.

    Attributes:
        line: Line of the file, from 1.
        series: What it belongs to.
        at: When it was measured.
        number: The value, a JSON number with the digits of the file.
    """

    line: int
    series: Series
    at: Moment
    number: str

    @property
    def column(self) -> str:
        """The column of the file."""
        return self.series.column

    def json(self) -> bytes:
        """Return it as an item of a batch."""
        name = "value" if self.series.kind == "sensor" else "reading"
        return b'%b,"timestamp":"%b","%b":%b}' % (
            self.series.head,
            self.at.text.encode(),
            name.encode(),
            self.number.encode(),
        )


class Line(Struct, frozen=True, gc=False):
    """
    A line of a file that is an item of the API already.

    Attributes:
        line: Line of the file, from 1.
        text: The item, as it stands in the file.
    """

    line: int
    text: bytes

    @property
    def column(self) -> str:
        """The line has no columns."""
        return "-"

    def json(self) -> bytes:
        """Return it as an item of a batch."""
        return self.text


Item = Reading | Line


class Skipped(Struct, frozen=True, gc=False):
    """
    A cell that cannot be sent.

    Attributes:
        line: Line of the file, from 1.
        column: The column.
        code: Why, one word for all of its kind.
        message: Why, for people.
    """

    line: int
    column: str
    code: str
    message: str
