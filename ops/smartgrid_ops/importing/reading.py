"""Rows to readings, as the mapping says."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from smartgrid_ops.importing.files import Row, Source, rows
from smartgrid_ops.importing.items import Item, Line, Reading, Series, Skipped, meter_series, sensor_series
from smartgrid_ops.importing.mapping import Accumulate, Mapping, MeterMapping, SensorMapping
from smartgrid_ops.importing.numbers import Inaccurate, NotANumber, RunningTotal, number_text, plain_text
from smartgrid_ops.importing.times import EPOCH, BadTime, Moment, TimeReader, moment_of


def readings(source: Source, mapping: Mapping) -> Iterator[Item | Skipped | None]:
    """
    Yield what *source* holds, row by row: readings, cells that cannot be sent, and None for each missing value.

    Raises:
        BadFile: The file is not what the mapping says.
    """
    zone = ZoneInfo(mapping.time.zone)
    missing = {mark.casefold() for mark in mapping.missing}
    clock = TimeReader(mapping.time, zone)
    columns: list[_Sensor | _Meter] = [
        *(_Sensor(sensor, mapping, TimeReader(mapping.time, zone)) for sensor in mapping.sensors),
        *(_Meter(meter, mapping) for meter in mapping.meters),
    ]
    for row in rows(source, mapping):
        if isinstance(row, Skipped):
            yield row
            continue
        cells = [row.cells[name] for name in mapping.time.columns]
        try:
            at = clock.read(cells)
        except BadTime as error:
            yield Skipped(row.line, "+".join(mapping.time.columns), "bad_time", str(error))
            continue
        for column in columns:
            cell = row.cells[column.name].strip()
            if cell.casefold() in missing:
                yield None
                continue
            try:
                yield from column.take(row, at, cell)
            except NotANumber as error:
                yield Skipped(row.line, column.name, "not_a_number", str(error))
            except Inaccurate as error:
                yield Skipped(row.line, column.name, "too_many_digits", str(error))


class _Sensor:
    """A column of values of one sensor, or of several that another column names."""

    def __init__(self, sensor: SensorMapping, mapping: Mapping, clock: TimeReader) -> None:
        self.name = sensor.column
        self._sensor = sensor
        self._mapping = mapping
        self._clock = clock
        self._series: dict[str, Series] = {}

    def take(self, row: Row, at: Moment, cell: str) -> Iterator[Item]:
        number = number_text(cell, decimal_mark=self._mapping.decimal_mark)
        named = self._sensor.sensor_id_column
        sensor_id = row.cells[named] if named else self._sensor.sensor_id or ""
        if named:  # many sensors in one column: which hour a repeated local time means is told for each apart
            at = self._clock.read([row.cells[name] for name in self._mapping.time.columns], sensor_id)
        series = self._series.get(sensor_id)
        if series is None:
            series = self._series[sensor_id] = sensor_series(self._sensor, sensor_id, self._mapping.location)
        yield Reading(row.line, series, at, number)


class _Meter:
    """A column of register readings, or of energies that are added up to some."""

    def __init__(self, meter: MeterMapping, mapping: Mapping) -> None:
        self.name = meter.column
        self._mark = mapping.decimal_mark
        self._series = meter_series(meter)
        self._accumulate = meter.accumulate
        start = Decimal(meter.accumulate.start) if meter.accumulate else Decimal(0)
        self._total = RunningTotal(start)
        self._last: int | None = None

    def take(self, row: Row, at: Moment, cell: str) -> Iterator[Item | Skipped]:
        number = number_text(cell, decimal_mark=self._mark)
        if self._accumulate is None:
            yield Reading(row.line, self._series, at, number)
            return
        start, end = _interval(at, self._accumulate)
        if self._last is not None and end.micros <= self._last:
            message = f"{at.text} is not later than the row before; energy can only be added up in the order of time"
            yield Skipped(row.line, self.name, "out_of_order", message)
            return
        before = plain_text(self._total.total)
        register = self._total.add(number)
        if self._last is None:
            yield Reading(row.line, self._series, start, before)
        self._last = end.micros
        yield Reading(row.line, self._series, end, register)


def _interval(at: Moment, accumulate: Accumulate) -> tuple[Moment, Moment]:
    length = timedelta(seconds=accumulate.interval_s)
    moment = EPOCH + timedelta(microseconds=at.micros)
    if accumulate.label == "end":
        return moment_of(moment - length), at
    return at, moment_of(moment + length)


def lines(source: Source) -> Iterator[Item]:
    """Yield the lines of an NDJSON file whose lines are items of the API already."""
    with source:
        for number, line in enumerate(source.bytes(), 1):
            text = line.strip()
            if text:
                yield Line(number, text)
