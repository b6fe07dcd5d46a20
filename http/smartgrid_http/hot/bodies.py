"""The bodies of a batch: JSON, NDJSON, CSV and columns, each item judged for itself."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgspec
import numpy as np
from msgspec import Raw, Struct

from smartgrid_commands.ingestion import ItemError, Prepared
from smartgrid_commands.reading_items import Bad, rows_of_items
from smartgrid_domain.errors import Finding, Invalid
from smartgrid_domain.reading_values import item_of, meter_of, sensor_of
from smartgrid_domain.readings import Item, MeterReading, SensorReading
from smartgrid_domain.strict_json import JsonLimits, escaped, key_count, shown, strict_value
from smartgrid_http.findings import explain
from smartgrid_http.problems import Problem, invalid


class SensorBatch(Struct, forbid_unknown_fields=True, gc=False):
    """A body of sensor readings alone."""

    readings: list[SensorReading]


class MeterBatch(Struct, forbid_unknown_fields=True, gc=False):
    """A body of meter readings alone."""

    readings: list[MeterReading]


class RawBatch(Struct, forbid_unknown_fields=True):
    """A body of anything."""

    readings: list[Raw]


class AnyBatch(Struct, forbid_unknown_fields=True):
    """A body whose items nobody has looked at."""

    readings: list[Any]


_SENSORS: Final = msgspec.json.Decoder(SensorBatch)
_METERS: Final = msgspec.json.Decoder(MeterBatch)
_RAW: Final = msgspec.json.Decoder(RawBatch)
_SENSOR: Final = msgspec.json.Decoder(SensorReading)
_METER: Final = msgspec.json.Decoder(MeterReading)
_SENSOR_LIST: Final = msgspec.json.Decoder(list[SensorReading])
_METER_LIST: Final = msgspec.json.Decoder(list[MeterReading])
_ENCODE: Final = msgspec.json.Encoder().encode
_KEY_END: Final = b'":'
_DECODING: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

Judge = Callable[[object, int], tuple[Item | None, list[Finding]]]


class Clocked(Struct, frozen=True):
    """
    When a body came.

    Attributes:
        now_us: Time of receipt [µs since 1970].
        latest_us: The latest time that is not ahead of ours [µs since 1970].
        limits: How large JSON may be inside.
        items: Most items of a batch.
    """

    now_us: int
    latest_us: int
    limits: JsonLimits
    items: int


def sensor_body(body: bytes, when: Clocked) -> SensorReading:
    """
    Return the only item of *body*; its values are not judged yet.

    Raises:
        Invalid: It is no item of a sensor, with every finding.
    """
    item: SensorReading = _one(body, _SENSOR, sensor_of, when)
    return item


def meter_body(body: bytes, when: Clocked) -> MeterReading:
    """Return the only item of *body*, of a meter; as :func:`sensor_body`."""
    item: MeterReading = _one(body, _METER, meter_of, when)
    return item


def _one(body: bytes, decoder: msgspec.json.Decoder[Any], judge: Judge, when: Clocked) -> Any:  # noqa: ANN401
    keys = key_count(body, when.limits)
    if keys is not None:
        try:
            item = decoder.decode(body)
        except _DECODING:
            pass
        else:
            # A key that came twice was lost in the item, so encoding it again gives fewer keys.
            if _ENCODE(item).count(_KEY_END) == keys:
                return item
    item, found = judge(strict_value(body, when.limits), when.latest_us)
    if item is None:
        raise Invalid("validation_failed", found[0].message, findings=found)
    return item


def from_json(body: bytes, when: Clocked) -> Prepared:
    """
    Return the items of ``{"readings": […]}``.

    Raises:
        Invalid: The body cannot be split into items.
        Problem: 413 for too many items, 400 for none.
    """
    keys = key_count(body, when.limits)
    if keys is not None:
        for decoder in (_METERS, _SENSORS) if b'"meter_id"' in body else (_SENSORS,):
            try:
                batch = decoder.decode(body)
            except _DECODING:
                continue
            if _ENCODE(batch).count(_KEY_END) == keys:
                return _of_kind(batch.readings, when)
    if b"\\" not in body and body.count(b'"readings"') == 1:
        try:
            parts = _RAW.decode(body).readings
        except _DECODING:
            pass
        else:
            _check_number(len(parts), when)
            return _of_raw([bytes(part) for part in parts], when, line_by_line=False)
    return _of_value(body, when)


def _of_value(body: bytes, when: Clocked) -> Prepared:
    try:
        value = strict_value(body, when.limits)
    except Invalid as error:
        if error.code != "validation_failed":
            raise
        # A number that no item may hold: each item for itself, if the body can be split at all.
        try:
            parts = _RAW.decode(body).readings
        except _DECODING:
            raise error from None
        _check_number(len(parts), when)
        return _of_raw([bytes(part) for part in parts], when, line_by_line=False)
    if found := explain(value, AnyBatch):
        raise invalid(found)
    items = cast("dict[str, list[object]]", value)["readings"]  # as explained
    _check_number(len(items), when)
    return _of_values(items, when)


def from_ndjson(body: bytes, when: Clocked) -> Prepared:
    """Return the items of *body*, one a line; blank lines do not count. Raises as :func:`from_json`."""
    lines = [line for part in body.split(b"\n") if (line := part.strip(b" \t\r"))]
    _check_number(len(lines), when)
    whole = b"[" + b",".join(lines) + b"]"
    keys = key_count(whole, when.limits)
    if keys is not None and all(
        line.startswith(b"{") and line.endswith(b"}") and line.count(b'"') % 2 == 0 for line in lines
    ):
        for decoder in (_METER_LIST, _SENSOR_LIST) if b'"meter_id"' in whole else (_SENSOR_LIST,):
            try:
                items: Any = decoder.decode(whole)
            except _DECODING:
                continue
            if len(items) == len(lines) and _ENCODE(items).count(_KEY_END) == keys:
                return _of_kind(items, when)
    return _of_raw(lines, when, line_by_line=True)


def _check_number(number: int, when: Clocked) -> None:
    if number > when.items:
        raise Problem(413, "payload_too_large", f"A batch has at most {when.items} items")
    if number == 0:
        raise invalid([Finding("/readings", "missing_field", "A batch has at least one item")])


def _of_kind(items: Sequence[Any], when: Clocked) -> Prepared:
    _check_number(len(items), when)
    prepared = Prepared(items=len(items))
    rows, bad = rows_of_items(items, np.arange(len(items)), when.now_us, when.latest_us)
    prepared.parts.append(rows)
    prepared.reject(bad)
    return prepared


def _of_raw(parts: Sequence[bytes], when: Clocked, *, line_by_line: bool) -> Prepared:
    """Return items that are each a JSON document."""
    prepared = Prepared(items=len(parts))
    sorter = _Sorter()
    bad: Bad = {}
    for index, part in enumerate(parts):
        try:
            decoder, judge = (_METER, meter_of) if b'"meter_id"' in part else (_SENSOR, item_of)
            sorter.add(index, _one(part, decoder, judge, when))
        except Invalid as error:
            if error.code == "validation_failed":
                bad[index] = list(error.findings)
            elif line_by_line:
                prepared.errors[index] = ItemError(index=index, code=error.code, message=str(error))
            else:
                raise
    prepared.reject(bad)
    sorter.fill(prepared, when)
    return prepared


def _of_values(values: Sequence[object], when: Clocked) -> Prepared:
    prepared = Prepared(items=len(values))
    sorter = _Sorter()
    bad: Bad = {}
    for index, value in enumerate(values):
        item, found = item_of(value, when.latest_us)
        if item is None:
            bad[index] = found
        else:
            sorter.add(index, item)
    prepared.reject(bad)
    sorter.fill(prepared, when)
    return prepared


class _Sorter:
    """Keeps items of sensors and of meters apart."""

    def __init__(self) -> None:
        self._items: tuple[list[Any], list[Any]] = ([], [])
        self._numbers: tuple[list[int], list[int]] = ([], [])

    def add(self, index: int, item: Item) -> None:
        kind = int(isinstance(item, MeterReading))
        self._items[kind].append(item)
        self._numbers[kind].append(index)

    def fill(self, prepared: Prepared, when: Clocked) -> None:
        for items, numbers in zip(self._items, self._numbers, strict=True):
            if items:
                rows, bad = rows_of_items(items, np.array(numbers, np.int64), when.now_us, when.latest_us)
                prepared.parts.append(rows)
                prepared.reject(bad)


_NUMBERS: Final = frozenset({"value", "reading", "lat", "lon"})
_COLUMNS: Final = frozenset(
    (set(SensorReading.__struct_fields__) | set(MeterReading.__struct_fields__) | {"lat", "lon"}) - {"location"}
)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]+\Z", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)\Z", re.ASCII | re.IGNORECASE)


def from_csv(body: bytes, when: Clocked) -> Prepared:
    """Return the items of *body*, with a header row of field names. Raises as :func:`from_json`."""
    rows = csv_rows(body)
    header = csv_header(rows[0] if rows else [])
    _check_number(len(rows) - 1, when)
    return csv_items(header, rows[1:], when)


def csv_rows(body: bytes) -> list[list[str]]:
    """
    Return the rows of a CSV text that are not blank.

    Raises:
        Invalid: ``malformed_json``: not UTF-8, NUL, or no CSV.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Invalid("malformed_json", "The body is not UTF-8") from None
    if "\0" in text:
        raise Invalid("malformed_json", "Text must not hold NUL")
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise Invalid("malformed_json", f"The body is not CSV: {error}") from None


def csv_header(header: list[str]) -> list[str]:
    """
    Return the names of the columns.

    Raises:
        Problem: 400 for no header, an unknown column or a repeated one.
    """
    if not header:
        raise invalid([Finding("", "missing_field", "The first row names the columns")])
    found = [
        Finding(f"/{escaped(shown(name))}", "unknown_field", f"Unknown column: {shown(name)}")
        for name in header
        if name not in _COLUMNS
    ]
    if found:
        raise invalid(found[:100])
    if len(set(header)) < len(header):
        raise Invalid("duplicate_key", "A column comes twice")
    return header


def csv_items(header: Sequence[str], rows: Sequence[Sequence[str]], when: Clocked) -> Prepared:
    """Return the items of *rows*; an empty cell is an absent field."""
    prepared = Prepared(items=len(rows))
    sorter = _Sorter()
    bad: Bad = {}
    for index, row in enumerate(rows):
        if len(row) != len(header):
            bad[index] = [Finding("", "bad_format", f"The row has {len(row)} cells, the header {len(header)}")]
            continue
        value, found = _csv_value(header, row, when.limits)
        item, more = item_of(value, when.latest_us)
        # A cell that is no number is there, so it is not missing as well.
        told = {finding.pointer for finding in found}
        found += [finding for finding in more if finding.pointer not in told]
        if item is None or found:
            bad[index] = found
        else:
            sorter.add(index, item)
    prepared.reject(bad)
    sorter.fill(prepared, when)
    return prepared


def _csv_value(
    header: Sequence[str], row: Sequence[str], limits: JsonLimits
) -> tuple[dict[str, object], list[Finding]]:
    value: dict[str, object] = {}
    found: list[Finding] = []
    place: dict[str, object] = {}
    for name, cell in zip(header, row, strict=True):
        if not cell:
            continue
        if name in _NUMBERS:
            pointer = f"/location/{name}" if name in ("lat", "lon") else f"/{name}"
            number = _csv_number(cell, pointer, found)
            (place if name in ("lat", "lon") else value)[name] = number
        elif name == "seq":
            value[name] = int(cell) if _INTEGER.match(cell) and len(cell) <= limits.number_chars else cell
        elif name == "metadata":
            try:
                value[name] = strict_value(cell.encode(), limits)
            except Invalid as error:
                found.append(Finding("/metadata", "bad_format", str(error)))
        else:
            value[name] = cell
    if place:
        value["location"] = place
    return value, found


def _csv_number(cell: str, pointer: str, found: list[Finding]) -> object:
    if _NUMBER.match(cell) and len(cell) <= JsonLimits().number_chars:
        return float(cell)
    if not _NOT_FINITE.match(cell):
        found.append(Finding(pointer, "wrong_type", "Write a number"))
        return 0.0
    return float("nan")
