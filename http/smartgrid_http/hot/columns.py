"""
Readings as MessagePack columns of times and values per sensor.

The arrays make nearly all of the bytes and are read without making an object of each number where a sender packs all
of one array alike.
"""

import struct
from typing import Any, Final, cast

import msgspec
import numpy as np
from msgspec import UNSET, Raw, Struct, UnsetType
from numpy.typing import NDArray

from smartgrid_commands.ingestion import Prepared
from smartgrid_commands.reading_items import UNUSED, Bad, sensor_source
from smartgrid_commands.reading_rows import NO_SEQ, Rows, Source
from smartgrid_domain.errors import Finding, Invalid
from smartgrid_domain.instants import END
from smartgrid_domain.maths.quantities import Floats, Ints, decimals_of
from smartgrid_domain.readings import Place, SensorReading, sensor_findings
from smartgrid_http.findings import explain
from smartgrid_http.hot.bodies import Clocked
from smartgrid_http.problems import Problem, invalid
from smartgrid_schemas.telemetry import Location


class ColumnSeries(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A series whose columns nobody has read."""

    sensor_id: str
    sensor_type: str
    unit: str | UnsetType | None = UNSET
    phase: str | UnsetType | None = UNSET
    location: Place | UnsetType | None = UNSET
    t: Raw
    v: Raw


class ColumnBatch(Struct, forbid_unknown_fields=True):
    """A body whose columns nobody has read."""

    series: list[ColumnSeries]


class PlainSeries(Struct, forbid_unknown_fields=True, kw_only=True):
    """A series as it is documented."""

    sensor_id: str
    sensor_type: str
    unit: str | None = None
    phase: str | None = None
    location: Place | None = None
    t: list[int]
    v: list[float]


class PlainBatch(Struct, forbid_unknown_fields=True):
    """A body as it is documented."""

    series: list[PlainSeries]


_BATCH: Final = msgspec.msgpack.Decoder(ColumnBatch)
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_INTS: Final = msgspec.msgpack.Decoder(list[int])
_FLOATS: Final = msgspec.msgpack.Decoder(list[float])
_DECODING: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError)
_END_US: Final = int(END.timestamp()) * 1_000_000
_FAR: Final = 2**62
_HEADS: Final = {0xDC: (">H", 3), 0xDD: (">I", 5)}
_FIXED_ARRAY, _FIXED_MOST = 0x90, 0x9F
_UINT64, _INT64, _FLOAT64 = 0xCF, 0xD3, 0xCB
_FIXED_MAP, _FIXED_TEXT, _FIXED_TEXT_MOST = 0x80, 0xA0, 0xBF
_MAPS: Final = {0xDE: 2, 0xDF: 4}
_LISTS: Final = {0xDC: 2, 0xDD: 4}
_TEXTS: Final = {0xD9: 1, 0xC4: 1, 0xDA: 2, 0xC5: 2, 0xDB: 4, 0xC6: 4}
_NUMBERS: Final = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}


def from_columns(body: bytes, when: Clocked) -> Prepared:
    """
    Return the items of *body*, numbered through its series.

    Raises:
        Invalid: It is not MessagePack of that form; columns of one series differ in length.
        Problem: 413 for too many items, 400 for none.
    """
    try:
        batch = _BATCH.decode(body)
    except _DECODING as error:
        raise _explained(body, error) from None
    # The arrays are kept as they came, so a key that came twice leaves fewer bytes; so does a head longer than needed.
    if len(_ENCODE(batch)) != len(body):
        _Walk(body).check()
    columns = [_columns(index, series) for index, series in enumerate(batch.series)]
    total = sum(len(times) for times, _ in columns)
    if total > when.items:
        raise Problem(413, "payload_too_large", f"A batch has at most {when.items} items")
    if total == 0:
        raise invalid([Finding("/series", "missing_field", "A batch has at least one item")])
    prepared = Prepared(items=total)
    rows, bad = _rows(batch.series, columns, when)
    prepared.reject(bad)
    prepared.parts.append(rows)
    return prepared


def _explained(body: bytes, error: Exception) -> Exception:
    try:
        value = msgspec.msgpack.decode(body)
    except _DECODING:
        return Invalid("malformed_json", f"The body is not MessagePack: {error}"[:200])
    found = explain(_plain(value), PlainBatch)
    return invalid(found or [Finding("", "wrong_type", str(error)[:200])])


def _plain(value: Any, depth: int = 0) -> Any:  # noqa: ANN401  # whatever MessagePack holds
    """Return *value* with texts for keys, so that it can be explained."""
    if depth > 32:  # noqa: PLR2004  # as deep as JSON may be
        raise Invalid("too_deep", "nest at most 32 levels")
    if isinstance(value, dict):
        members = cast("dict[object, object]", value)
        return {str(key)[:64]: _plain(part, depth + 1) for key, part in members.items()}
    if isinstance(value, list):
        return [_plain(part, depth + 1) for part in cast("list[object]", value)]
    return value


def _columns(index: int, series: ColumnSeries) -> tuple[Ints, Floats]:
    try:
        times, values = _ints(bytes(series.t)), _floats(bytes(series.v))
    except _DECODING:
        plain = {"t": _any(series.t), "v": _any(series.v)}
        found = [*_bad_list(plain["t"], f"/series/{index}/t", int), *_bad_list(plain["v"], f"/series/{index}/v", float)]
        raise invalid(found or [Finding(f"/series/{index}", "wrong_type", "t and v are arrays of numbers")]) from None
    if len(times) != len(values):
        raise invalid([Finding(f"/series/{index}/v", "bad_format", "t and v differ in length")])
    return times, values


def _any(part: Raw) -> Any:  # noqa: ANN401  # whatever MessagePack holds
    try:
        return msgspec.msgpack.decode(part)
    except _DECODING:
        return None


def _bad_list(value: object, pointer: str, kind: type) -> list[Finding]:
    if not isinstance(value, list):
        return [Finding(pointer, "wrong_type", "Expected an array")]
    kinds = (int, float) if kind is float else (int,)
    return [
        Finding(f"{pointer}/{at}", "wrong_type", "Expected a number" if kind is float else "Expected a whole number")
        for at, part in enumerate(cast("list[object]", value))
        if not isinstance(part, kinds) or isinstance(part, bool)
    ][:100]


def _uniform(data: bytes, tag: int, kind: str) -> NDArray[Any] | None:
    """Return the numbers of an array whose elements all are *tag* and 8 bytes; None for any other."""
    head = data[0]
    if _FIXED_ARRAY <= head <= _FIXED_MOST:
        count, start = head - _FIXED_ARRAY, 1
    elif head in _HEADS:
        form, start = _HEADS[head]
        (count,) = struct.unpack_from(form, data, 1)
    else:
        return None
    if len(data) - start != 9 * count:
        return None
    cells = np.frombuffer(data, np.dtype([("tag", "u1"), ("value", kind)]), count, start)
    return cells["value"] if bool((cells["tag"] == tag).all()) else None


def _ints(data: bytes) -> Ints:
    for tag, kind in ((_UINT64, ">u8"), (_INT64, ">i8")):
        found = _uniform(data, tag, kind)
        if found is not None:
            if tag == _UINT64:
                found = np.minimum(found, _FAR)
            return found.astype(np.int64)
    return np.array([max(-_FAR, min(_FAR, number)) for number in _INTS.decode(data)], np.int64)


def _floats(data: bytes) -> Floats:
    found = _uniform(data, _FLOAT64, ">f8")
    return np.array(_FLOATS.decode(data), np.float64) if found is None else found.astype(np.float64)


def _rows(series: list[ColumnSeries], columns: list[tuple[Ints, Floats]], when: Clocked) -> tuple[Rows, Bad]:
    findings = [sensor_findings(_probe(one), when.latest_us) for one in series]
    sources = [
        None if found else sensor_source(one.sensor_id, one.sensor_type, one.phase, one.unit)
        for one, found in zip(series, findings, strict=True)
    ]
    times = np.concatenate([part for part, _ in columns])
    values = np.concatenate([part for _, part in columns])
    source_of = np.repeat(np.arange(len(series)), [len(part) for part, _ in columns])
    low = np.array([source.low if source else np.inf for source in sources])  # a bad one: nothing in range
    high = np.array([source.high if source else -np.inf for source in sources])
    good = (values >= low[source_of]) & (values <= high[source_of])
    good &= (times >= 0) & (times < min(_END_US, when.latest_us + 1))
    bad: Bad = {}
    numbers = np.arange(len(times))
    if not good.all():
        for row in np.flatnonzero(~good).tolist():
            number = int(source_of[row])
            source = sources[number]
            bad[row] = findings[number] if source is None else _findings(source, times[row], values[row], when)
        times, values, source_of, numbers = times[good], values[good], source_of[good], numbers[good]
    mantissa, exponent = decimals_of(values)
    rows = Rows(
        sources=[source or UNUSED for source in sources],
        source_of=source_of,
        measured_at=times,
        seq=np.full(len(times), NO_SEQ, np.int64),
        mantissa=mantissa,
        exponent=exponent,
        quality=np.zeros(len(times), np.int8),
        item=numbers,
    )
    _fill_places(rows, series)
    return rows, bad


def _probe(series: ColumnSeries) -> SensorReading:
    return SensorReading(
        sensor_id=series.sensor_id,
        sensor_type=series.sensor_type,
        value=0.0,
        unit=series.unit,
        phase=series.phase,
        location=series.location,
    )


def _fill_places(rows: Rows, series: list[ColumnSeries]) -> None:
    used, first = np.unique(rows.source_of, return_index=True)
    numbers: list[int] = used.tolist()
    for number, row in zip(numbers, first.tolist(), strict=True):
        place = series[number].location
        if place:
            owner = rows.sources[number].owner
            rows.places.setdefault(owner, (row, Location(lat=place.lat, lon=place.lon)))


def _findings(source: Source, at_us: np.int64, value: np.float64, when: Clocked) -> list[Finding]:
    found: list[Finding] = []
    if not np.isfinite(value):
        found.append(Finding("/v", "not_finite", "Send a finite number"))
    elif not source.low <= value <= source.high:
        message = f"{source.measurand} lies in {source.low:,} … {source.high:,} {source.unit}"
        found.append(Finding("/v", "out_of_physical_range", message))
    if not 0 <= at_us < _END_US:
        found.append(Finding("/t", "timestamp_out_of_range", "Times are from 1970 to 2100"))
    elif at_us > when.latest_us:
        found.append(Finding("/t", "timestamp_in_future", "The time is more than 5 minutes ahead"))
    return found


class _Walk:
    """Looks for keys that come twice, in a document that is known to be good."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def check(self) -> None:
        """
        Walk through the document.

        Raises:
            Invalid: ``duplicate_key``.
        """
        self._value(columns=False)

    def _size(self, width: int) -> int:
        size = int.from_bytes(self._data[self._at : self._at + width], "big")
        self._at += width
        return size

    def _value(self, *, columns: bool) -> None:
        tag = self._data[self._at]
        if _FIXED_TEXT <= tag <= _FIXED_TEXT_MOST or tag in _TEXTS:
            self._text()
            return
        self._at += 1
        if _FIXED_MAP <= tag < _FIXED_ARRAY:
            self._map(tag - _FIXED_MAP)
        elif _FIXED_ARRAY <= tag <= _FIXED_MOST:
            self._list(tag - _FIXED_ARRAY, columns=columns)
        elif tag in _MAPS:
            self._map(self._size(_MAPS[tag]))
        elif tag in _LISTS:
            self._list(self._size(_LISTS[tag]), columns=columns)
        else:
            self._at += _NUMBERS.get(tag, 0)

    def _text(self) -> bytes:
        tag = self._data[self._at]
        self._at += 1
        size = self._size(_TEXTS[tag]) if tag in _TEXTS else tag - _FIXED_TEXT
        self._at += size
        return self._data[self._at - size : self._at]

    def _list(self, count: int, *, columns: bool) -> None:
        end = _end_of_numbers(self._data, self._at, count) if columns else None
        if end is not None:
            self._at = end
            return
        for _ in range(count):
            self._value(columns=False)

    def _map(self, count: int) -> None:
        seen: set[bytes] = set()
        for _ in range(count):
            key = self._text()
            if key in seen:
                raise Invalid("duplicate_key", "A key comes twice")
            seen.add(key)
            self._value(columns=key in (b"t", b"v"))


def _end_of_numbers(data: bytes, at: int, count: int) -> int | None:
    """Return the end of *count* numbers of 8 bytes each; None when they are not all such."""
    end = at + 9 * count
    tags = np.frombuffer(data, np.uint8, end - at, at)[::9] if end <= len(data) else np.zeros(0, np.uint8)
    alike = len(tags) == count and bool(np.isin(tags, (_UINT64, _INT64, _FLOAT64)).all())
    return end if alike else None
