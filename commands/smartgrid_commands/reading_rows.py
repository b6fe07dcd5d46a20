"""The valid readings of one request, in columns, and how items become them."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any, Final, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np
from msgspec import UNSET, Struct, UnsetType
from numpy.typing import NDArray

from smartgrid_commands.reading_times import ABSENT, BAD, times_of
from smartgrid_domain.errors import Finding
from smartgrid_domain.maths.quantities import (
    MEASURANDS,
    METER_HIGH,
    METER_UNITS,
    QUALITIES,
    Exponents,
    Flags,
    Ints,
    decimal_of,
    decimals_of,
)
from smartgrid_domain.readings import (
    DEFAULT_METER_UNIT,
    DEFAULT_REGISTER,
    HIGHEST_SEQ,
    ID,
    Item,
    Metadata,
    MeterReading,
    SensorReading,
    correction_of,
    meter_findings,
    quality_of,
    sensor_findings,
    time_of,
)
from smartgrid_schemas.telemetry import Location

Subject = Literal["sensor", "meter"]
NO_PHASE: Final = "-"
NO_SEQ: Final = -1
SHARDS: Final = 16
READING_NAMESPACE: Final = uuid5(NAMESPACE_URL, "urn:smartgrid:reading")
"""Namespace of the ids of readings."""

_NAMESPACE: Final = READING_NAMESPACE.bytes
_MOST_SOURCES: Final = 100_000
_SUSPICIOUS: Final = ("metadata", "corrects", "reason")
_NOTHING: Final = {type(None), UnsetType}

Ids = NDArray[np.uint8]
"""Event ids, 16 bytes a row."""

Owner = tuple[Subject, str]
"""A sensor or a meter."""


class Source(Struct, frozen=True, kw_only=True, gc=False):
    """
    What readings of one series and unit have in common.

    Attributes:
        subject: ``sensor`` or ``meter``.
        subject_id: Its id.
        measurand: The sensor_type, or the register of a meter.
        phase: Phase, :data:`NO_PHASE` for none.
        unit: The unit as sent.
        shift: Power of ten that turns *unit* into the canonical one.
        shard: crc32 of the id mod :data:`SHARDS`.
        prefix: Namespace and name of an event id up to the time.
        low: Smallest value that may be sent [*unit*].
        high: Largest [*unit*].
    """

    subject: Subject
    subject_id: str
    measurand: str
    phase: str
    unit: str
    shift: int
    shard: int
    prefix: bytes
    low: float
    high: float

    @property
    def owner(self) -> Owner:
        """The sensor or meter."""
        return self.subject, self.subject_id

    @property
    def series(self) -> tuple[Subject, str, str, str]:
        """What is unique in the table of series."""
        return self.subject, self.subject_id, self.measurand, self.phase


@dataclass(slots=True, kw_only=True)
class Rows:
    """
    Valid readings of one request.

    Attributes:
        sources: Their distinct sources.
        source_of: Index into *sources* of each row.
        measured_at: When it was measured [µs since 1970]; of an untimed row the time of receipt.
        seq: Sequence number, :data:`NO_SEQ` for none.
        mantissa: The value is mantissa · 10**exponent in the unit of its source, as sent; normal.
        exponent: Likewise.
        quality: Code of ``QUALITIES``.
        item: Index of each row's item in its request, ascending.
        untimed: Which rows came without a time; None when all have one.
        corrects: Row → id of the reading that it replaces (16 bytes) and why.
        metadata: Row → metadata as sent.
        places: Sensor → first row that tells its place, and the place; meter → likewise its customer.
    """

    sources: Sequence[Source]
    source_of: Ints
    measured_at: Ints
    seq: Ints
    mantissa: Ints
    exponent: Exponents
    quality: NDArray[np.int8]
    item: Ints
    untimed: Flags | None = None
    corrects: dict[int, tuple[bytes, str]] = field(default_factory=dict[int, tuple[bytes, str]])
    metadata: dict[int, Metadata] = field(default_factory=dict[int, Metadata])
    places: dict[Owner, tuple[int, Location | str]] = field(default_factory=dict[Owner, tuple[int, "Location | str"]])

    def __len__(self) -> int:
        return len(self.measured_at)

    def picked(self, rows: Ints) -> "Rows":
        """Return *rows* of these, ascending."""
        place = {row: number for number, row in enumerate(rows.tolist())}
        return Rows(
            sources=self.sources,
            source_of=self.source_of[rows],
            measured_at=self.measured_at[rows],
            seq=self.seq[rows],
            mantissa=self.mantissa[rows],
            exponent=self.exponent[rows],
            quality=self.quality[rows],
            item=self.item[rows],
            untimed=None if self.untimed is None else self.untimed[rows],
            corrects={place[row]: value for row, value in self.corrects.items() if row in place},
            metadata={place[row]: value for row, value in self.metadata.items() if row in place},
            places={owner: (place[row], told) for owner, (row, told) in self.places.items() if row in place},
        )

    def shifts(self) -> Ints:
        """Return the power of ten of each row that turns its unit into the canonical one."""
        return np.array([source.shift for source in self.sources], np.int64)[self.source_of]


def joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of *parts*, one behind the other."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
    source_starts = np.cumsum([0, *(len(part.sources) for part in parts)]).tolist()
    none = np.zeros(0, np.int64)
    untimed = [np.zeros(len(part), np.bool_) if part.untimed is None else part.untimed for part in parts]
    result = Rows(
        sources=[source for part in parts for source in part.sources],
        source_of=np.concatenate([none, *(p.source_of + s for p, s in zip(parts, source_starts, strict=False))]),
        measured_at=np.concatenate([none, *(part.measured_at for part in parts)]),
        seq=np.concatenate([none, *(part.seq for part in parts)]),
        mantissa=np.concatenate([none, *(part.mantissa for part in parts)]),
        exponent=np.concatenate([none.astype(np.int16), *(part.exponent for part in parts)]),
        quality=np.concatenate([none.astype(np.int8), *(part.quality for part in parts)]),
        item=np.concatenate([none, *(part.item for part in parts)]),
        untimed=np.concatenate(untimed) if any(flags.any() for flags in untimed) else None,
    )
    for part, start in zip(parts, starts, strict=False):
        result.corrects.update({row + start: value for row, value in part.corrects.items()})
        result.metadata.update({row + start: value for row, value in part.metadata.items()})
        for owner, (row, told) in part.places.items():
            result.places.setdefault(owner, (row + start, told))
    return result


Bad = dict[int, list[Finding]]
"""Item → what is wrong with it."""

_sources: dict[tuple[object, ...], Source | None] = {}


def sensor_source(sensor_id: str, sensor_type: str, phase: object, unit: object) -> Source | None:
    """Return the source of good items with these fields; None when they are no such item's."""
    key = (sensor_id, sensor_type, phase, unit)
    source = _sources.get(key, UNSET)
    if source is not UNSET:
        return source
    probe = SensorReading(sensor_id=sensor_id, sensor_type=sensor_type, value=0.0, phase=phase, unit=unit)  # type: ignore[arg-type]  # as decoded
    if sensor_findings(probe, 0):
        return _remember(key, None)
    measurand = MEASURANDS[sensor_type]
    shift = measurand.units[unit] if isinstance(unit, str) else 0
    return _remember(
        key,
        _source(
            "sensor",
            sensor_id,
            sensor_type,
            phase if isinstance(phase, str) else NO_PHASE,
            unit=unit if isinstance(unit, str) else measurand.unit,
            shift=shift,
            bounds=(measurand.low, measurand.high),
        ),
    )


def meter_source(meter_id: str, register: object, unit: object) -> Source | None:
    """Return the source of good items with these fields; None when they are no such item's."""
    key = (meter_id, register, unit)
    source = _sources.get(key, UNSET)
    if source is not UNSET:
        return source
    probe = MeterReading(meter_id=meter_id, reading=0.0, register=register, unit=unit)  # type: ignore[arg-type]  # as decoded
    if meter_findings(probe, 0):
        return _remember(key, None)
    sent = unit if isinstance(unit, str) else DEFAULT_METER_UNIT
    name = register if isinstance(register, str) else DEFAULT_REGISTER
    return _remember(
        key, _source("meter", meter_id, name, NO_PHASE, unit=sent, shift=METER_UNITS[sent], bounds=(0, METER_HIGH))
    )


def _remember(key: tuple[object, ...], source: Source | None) -> Source | None:
    if len(_sources) >= _MOST_SOURCES:
        _sources.clear()
    _sources[key] = source
    return source


def _source(  # noqa: PLR0913  # one argument a field
    subject: Subject, key: str, measurand: str, phase: str, *, unit: str, shift: int, bounds: tuple[int, int]
) -> Source:
    middle = f"{measurand}|{phase}" if subject == "sensor" else measurand
    # A meter's bounds are in the unit sent, a sensor's in the canonical one; each is a float64 in every unit.
    scale: int = 10 ** abs(shift)
    low, high = bounds
    if subject == "sensor":
        low, high = (low / scale, high / scale) if shift >= 0 else (low * scale, high * scale)  # type: ignore[assignment]  # floats
    return Source(
        subject=subject,
        subject_id=key,
        measurand=measurand,
        phase=phase,
        unit=unit,
        shift=shift,
        shard=zlib.crc32(key.encode()) % SHARDS,
        prefix=_NAMESPACE + f"{subject}|{key}|{middle}|".encode(),
        low=float(low),
        high=float(high),
    )


def reading_ids(sources: Sequence[Source], source_of: Ints, measured_at: Ints, seq: Ints) -> Ids:
    """
    Return the event ids of first readings: UUIDv5 of their natural keys.

    Example:
        >>> source = sensor_source("s1", "voltage", None, None)
        >>> UUID(bytes=reading_ids([source], np.array([0]), np.array([5]), np.array([-1]))[0].tobytes()) == uuid5(
        ...     READING_NAMESPACE, "sensor|s1|voltage|-|5|-"
        ... )
        True
    """
    prefixes = [source.prefix for source in sources]
    owners, times = source_of.tolist(), measured_at.tolist()
    if bool((seq == NO_SEQ).all()):
        digests = [sha1(prefixes[s] + b"%d|-" % t).digest() for s, t in zip(owners, times, strict=True)]  # noqa: S324  # RFC 9562 wants SHA-1
    else:
        digests = [
            sha1(prefixes[s] + (b"%d|-" % t if q < 0 else b"%d|%d" % (t, q))).digest()  # noqa: S324  # RFC 9562 wants SHA-1
            for s, t, q in zip(owners, times, seq.tolist(), strict=True)
        ]
    ids: Ids = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 20)[:, :16].copy()
    ids[:, 6] = ids[:, 6] & 0x0F | 0x50
    ids[:, 8] = ids[:, 8] & 0x3F | 0x80
    return ids


def correction_id(source: Source, measured_at: int, seq: int, replaced: bytes) -> bytes:
    """Return the event id of a correction: UUIDv5 of natural key and the id it replaces."""
    name = b"%d|%s|%s" % (measured_at, b"-" if seq == NO_SEQ else b"%d" % seq, str(UUID(bytes=replaced)).encode())
    digest = bytearray(sha1(source.prefix + name).digest()[:16])  # noqa: S324  # RFC 9562 wants SHA-1
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return bytes(digest)


def rows_of_one(item: Item, now_us: int, latest_us: int) -> Rows | list[Finding]:
    """Return the single row of *item*, or what is wrong with it; as :func:`rows_of_items` but quicker for one."""
    if isinstance(item, SensorReading):
        found = sensor_findings(item, latest_us)
        source = None if found else sensor_source(item.sensor_id, item.sensor_type, item.phase, item.unit)
        value = item.value
    else:
        found = meter_findings(item, latest_us)
        source = None if found else meter_source(item.meter_id, item.register, item.unit)
        value = item.reading
    if source is None:
        return found
    mantissa, exponent = decimal_of(value)
    timed = bool(item.timestamp)
    rows = Rows(
        sources=(source,),
        source_of=np.zeros(1, np.int64),
        measured_at=np.array([time_of(item.timestamp, latest_us) if item.timestamp else now_us], np.int64),
        seq=np.array([item.seq if isinstance(item.seq, int) else NO_SEQ], np.int64),
        mantissa=np.array([mantissa], np.int64),
        exponent=np.array([exponent], np.int16),
        quality=np.array([quality_of(item)], np.int8),
        item=np.zeros(1, np.int64),
        untimed=None if timed else np.ones(1, np.bool_),
    )
    _extras([item], rows)
    return rows


def rows_of_items(
    items: Sequence[SensorReading] | Sequence[MeterReading], numbers: Ints, now_us: int, latest_us: int
) -> tuple[Rows, Bad]:
    """
    Return the rows of the good ones of *items* and what is wrong with the others.

    Args:
        items: All of sensors or all of meters.
        numbers: Index of each in its request.
        now_us: Time of receipt [µs since 1970].
        latest_us: The latest time that is not ahead of ours [µs since 1970].

    Guarantees:
        Each item is judged as :func:`rows_of_one` judges it.
    """
    of_sensors = isinstance(items[0], SensorReading)
    keys: list[tuple[Any, ...]] = (
        [(i.sensor_id, i.sensor_type, i.phase, i.unit) for i in items]  # type: ignore[union-attr]  # of one kind
        if of_sensors
        else [(i.meter_id, i.register, i.unit) for i in items]  # type: ignore[union-attr]
    )
    values = np.array([i.value for i in items] if of_sensors else [i.reading for i in items], np.float64)  # type: ignore[union-attr]
    make: Callable[..., Source | None] = sensor_source if of_sensors else meter_source
    index, sources = _distinct(keys, make)
    source_of = np.array([index[key] for key in keys], np.int64)
    low = np.array([source.low if source else np.inf for source in sources])  # a bad source has no value in range
    high = np.array([source.high if source else -np.inf for source in sources])
    good = (values >= low[source_of]) & (values <= high[source_of])
    times = times_of([i.timestamp for i in items], latest_us)
    good &= times != BAD
    seq, fits = _seqs(items)
    good &= fits
    quality, fits = _qualities(items)
    good &= fits
    good &= _fine_extras(items, of_sensors=of_sensors)
    findings = sensor_findings if of_sensors else meter_findings
    bad: Bad = {int(numbers[row]): findings(items[row], latest_us) for row in np.flatnonzero(~good).tolist()}  # type: ignore[operator]
    # The columns only suspect; the findings decide.
    wrong = [row for row in np.flatnonzero(~good).tolist() if bad[int(numbers[row])]]
    if len(wrong) < len(bad):
        bad = {number: found for number, found in bad.items() if found}
    keep = np.ones(len(items), np.bool_)
    keep[wrong] = False
    if wrong:
        items = [item for item, kept in zip(items, keep.tolist(), strict=True) if kept]  # type: ignore[assignment]
        source_of, values, times, seq, quality, numbers = (
            column[keep] for column in (source_of, values, times, seq, quality, numbers)
        )
    mantissa, exponent = decimals_of(values)
    untimed = times == ABSENT
    rows = Rows(
        sources=[source or _UNUSED for source in sources],
        source_of=source_of,
        measured_at=np.where(untimed, now_us, times),
        seq=seq,
        mantissa=mantissa,
        exponent=exponent,
        quality=quality,
        item=numbers,
        untimed=untimed if untimed.any() else None,
    )
    _extras(items, rows)
    return rows, bad


_UNUSED: Final = _source("sensor", "unused", "voltage", NO_PHASE, unit="V", shift=0, bounds=(0, 0))


def _distinct(
    keys: Sequence[tuple[Any, ...]], make: Callable[..., Source | None]
) -> tuple[Mapping[tuple[Any, ...], int], list[Source | None]]:
    index = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return index, [make(*key) for key in index]


def _seqs(items: Sequence[Item]) -> tuple[Ints, Flags]:
    sent = [i.seq for i in items]
    fits = np.ones(len(items), np.bool_)
    if not any(isinstance(seq, int) for seq in sent):
        return np.full(len(items), NO_SEQ, np.int64), fits
    values = [seq if isinstance(seq, int) else NO_SEQ for seq in sent]
    for row, (seq, raw) in enumerate(zip(values, sent, strict=True)):
        if not 0 <= seq <= HIGHEST_SEQ and isinstance(raw, int):
            values[row] = NO_SEQ
            fits[row] = False
    return np.array(values, np.int64), fits


def _qualities(items: Sequence[Item]) -> tuple[NDArray[np.int8], Flags]:
    sent = [i.quality for i in items]
    codes = {None: 0, UNSET: 0, **{name: code for name, code in QUALITIES.items() if name != "corrected"}}
    kinds = set(sent)
    if kinds <= {None, UNSET, "measured"} and not any(i.corrects for i in items):
        return np.zeros(len(items), np.int8), np.ones(len(items), np.bool_)
    corrected = QUALITIES["corrected"]
    codes_of = [corrected if i.corrects else codes.get(i.quality, -1) for i in items]
    result = np.array(codes_of, np.int8)
    return result, result >= 0


def _fine_extras(items: Sequence[Item], *, of_sensors: bool) -> Flags:
    """Return which rows have nothing that only the findings can judge."""
    fine = np.ones(len(items), np.bool_)
    for name in _SUSPICIOUS:
        values = [getattr(i, name) for i in items]
        if set(map(type, values)) - _NOTHING:
            fine &= np.array([type(value) in _NOTHING for value in values], np.bool_)
    if of_sensors:
        places = [i.location for i in items]  # type: ignore[union-attr]  # a sensor's
        rows = [row for row, place in enumerate(places) if place]
        if rows:
            lat = np.array([places[row].lat for row in rows], np.float64)  # type: ignore[union-attr]  # rows with one
            lon = np.array([places[row].lon for row in rows], np.float64)  # type: ignore[union-attr]
            fine[rows] &= (np.abs(lat) <= 90) & (np.abs(lon) <= 180)  # noqa: PLR2004  # degrees
    else:
        customers = [i.customer_id for i in items]  # type: ignore[union-attr]  # a meter's
        good = {customer for customer in set(customers) if not isinstance(customer, str) or ID.match(customer)}
        fine &= np.array([customer in good for customer in customers], np.bool_)
    return fine


def _extras(items: Sequence[Item], rows: Rows) -> None:
    """Fill in what few rows have, and the first place of each sensor and customer of each meter."""
    for name, column in (("metadata", rows.metadata), ("corrects", rows.corrects)):
        sent = [getattr(i, name) for i in items]
        if any(sent):
            for row, value in enumerate(sent):
                if value:
                    column[row] = value if name == "metadata" else correction_of(items[row])  # type: ignore[index, assignment]
    sources, places = rows.sources, rows.places
    told = [i.location if isinstance(i, SensorReading) else i.customer_id for i in items]
    if not any(told):
        return
    seen: set[int] = set()
    for row, (source, place) in enumerate(zip(rows.source_of.tolist(), told, strict=True)):
        if place and source not in seen:
            seen.add(source)
            owner = sources[source].owner
            if owner not in places:
                places[owner] = (row, place if isinstance(place, str) else Location(lat=place.lat, lon=place.lon))
