"""Items of requests become rows: one by one, or many at once, judged alike."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from msgspec import UNSET, Struct, UnsetType

from smartgrid_commands.reading_calls import One
from smartgrid_commands.reading_rows import NO_PHASE, NO_SEQ, READING_NAMESPACE, Codes, Rows, Source, Subject
from smartgrid_commands.reading_times import ABSENT, BAD, times_of
from smartgrid_domain.errors import Finding
from smartgrid_domain.maths.quantities import (
    MEASURANDS,
    METER_HIGH,
    METER_UNITS,
    QUALITIES,
    Flags,
    Floats,
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
    MeterReading,
    SensorReading,
    correction_of,
    meter_findings,
    quality_of,
    sensor_findings,
    time_of,
)
from smartgrid_schemas.telemetry import Location

SHARDS: Final = 16
_NAMESPACE: Final = READING_NAMESPACE.bytes
_MOST_SOURCES: Final = 100_000
_NOTHING: Final = {type(None), UnsetType}
_CORRECTED: Final = QUALITIES["corrected"]
_CODES: Final[dict[object, int]] = {
    None: 0,
    UNSET: 0,
    **{name: code for name, code in QUALITIES.items() if code != _CORRECTED},
}
_MEASURED: Final = {None, UNSET, "measured"}
_LAT, _LON = 90, 180

Bad = dict[int, list[Finding]]
"""Item → what is wrong with it."""

_sources: dict[tuple[object, ...], Source | None] = {}


def sensor_source(sensor_id: str, sensor_type: str, phase: object, unit: object) -> Source | None:
    """Return the source of good items with these fields; None when they are no such item's."""
    key = (sensor_id, sensor_type, phase, unit)
    known = _sources.get(key, UNSET)
    if not isinstance(known, UnsetType):
        return known
    probe: Any = {"sensor_id": sensor_id, "sensor_type": sensor_type, "value": 0.0, "phase": phase, "unit": unit}
    if sensor_findings(SensorReading(**probe), 0):
        return _remember(key, None)
    measurand = MEASURANDS[sensor_type]
    sent = unit if isinstance(unit, str) else measurand.unit
    shift = measurand.units[sent]
    # The bounds are in the canonical unit; each is a float64 in every unit.
    scale: int = 10 ** abs(shift)
    low, high = (float(n / scale if shift >= 0 else n * scale) for n in (measurand.low, measurand.high))
    named = phase if isinstance(phase, str) else NO_PHASE
    return _remember(key, _source(("sensor", sensor_id, sensor_type, named), sent, shift, low, high))


def meter_source(meter_id: str, register: object, unit: object) -> Source | None:
    """Return the source of good items with these fields; None when they are no such item's."""
    key = (meter_id, register, unit)
    known = _sources.get(key, UNSET)
    if not isinstance(known, UnsetType):
        return known
    probe: Any = {"meter_id": meter_id, "reading": 0.0, "register": register, "unit": unit}
    if meter_findings(MeterReading(**probe), 0):
        return _remember(key, None)
    sent = unit if isinstance(unit, str) else DEFAULT_METER_UNIT
    name = register if isinstance(register, str) else DEFAULT_REGISTER
    return _remember(key, _source(("meter", meter_id, name, NO_PHASE), sent, METER_UNITS[sent], 0.0, float(METER_HIGH)))


def _remember(key: tuple[object, ...], source: Source | None) -> Source | None:
    if len(_sources) >= _MOST_SOURCES:
        _sources.clear()
    _sources[key] = source
    return source


def _source(series: tuple[Subject, str, str, str], unit: str, shift: int, low: float, high: float) -> Source:
    subject, key, measurand, phase = series
    middle = f"{measurand}|{phase}" if subject == "sensor" else measurand
    shard = zlib.crc32(key.encode()) % SHARDS
    return Source(
        subject=subject,
        subject_id=key,
        measurand=measurand,
        phase=phase,
        unit=unit,
        shift=shift,
        shard=shard,
        kind=shard + (SHARDS if subject == "meter" else 0),
        prefix=_NAMESPACE + f"{subject}|{key}|{middle}|".encode(),
        low=low,
        high=high,
        owner=(subject, key),
        series=series,
    )


UNUSED: Final = _source(("sensor", "unused", "voltage", NO_PHASE), "V", 0, 0.0, 0.0)
"""Stands where no good item has a source, so that indices stay."""


class Sender(Struct, frozen=True, kw_only=True):
    """
    Who sends readings.

    Attributes:
        actor: Name in the metadata of events.
        correlation_id: Id of the request.
        operator: Whether it may correct readings.
        may_write: Whether a sensor or meter is its own; None for all.
    """

    actor: str
    correlation_id: str
    operator: bool
    may_write: Callable[[tuple[Subject, str]], bool] | None = None


def one_of(item: Item, now_us: int, latest_us: int) -> One | list[Finding]:
    """
    Return the call of the single *item*, or what is wrong with it.

    Args:
        item: As decoded.
        now_us: Time of receipt [µs since 1970].
        latest_us: The latest time that is not ahead of ours [µs since 1970].
    """
    if isinstance(item, SensorReading):
        found = sensor_findings(item, latest_us)
        source = None if found else sensor_source(item.sensor_id, item.sensor_type, item.phase, item.unit)
        value = item.value
        place: Location | str | None = _place(item)
    else:
        found = meter_findings(item, latest_us)
        source = None if found else meter_source(item.meter_id, item.register, item.unit)
        value = item.reading
        place = item.customer_id or None
    if source is None:
        return found
    mantissa, exponent = decimal_of(value)
    return One(
        source=source,
        measured_at=time_of(item.timestamp, latest_us) if item.timestamp else now_us,
        seq=item.seq if isinstance(item.seq, int) else NO_SEQ,
        mantissa=mantissa,
        exponent=exponent,
        quality=quality_of(item),
        untimed=not item.timestamp,
        corrects=correction_of(item),
        metadata=item.metadata or None,
        place=place,
    )


def _place(item: SensorReading) -> Location | None:
    return Location(lat=item.location.lat, lon=item.location.lon) if item.location else None


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
        Each item is judged as :func:`one_of` judges it.
    """
    columns = _columns_of(items)
    values = columns.values
    low = np.array([source.low if source else np.inf for source in columns.sources])  # a bad one: nothing in range
    high = np.array([source.high if source else -np.inf for source in columns.sources])
    times = times_of([item.timestamp for item in items], latest_us)
    seq, good_seq = _seqs(items)
    quality, good_quality = _qualities(items)
    good = good_seq & good_quality & columns.fine & (times != BAD)
    good &= (values >= low[columns.source_of]) & (values <= high[columns.source_of])
    source_of = columns.source_of
    bad: Bad = {}
    if not good.all():
        keep = np.ones(len(items), np.bool_)
        for row in np.flatnonzero(~good).tolist():
            # The columns only suspect; the findings decide.
            if found := _findings(items[row], latest_us):
                bad[int(numbers[row])] = found
                keep[row] = False
        kept: Any = [item for item, wanted in zip(items, keep.tolist(), strict=True) if wanted]
        items, values, times, numbers = kept, values[keep], times[keep], numbers[keep]
        source_of, seq, quality = source_of[keep], seq[keep], quality[keep]
    mantissa, exponent = decimals_of(values)
    untimed = times == ABSENT
    rows = Rows(
        sources=[source or UNUSED for source in columns.sources],
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


def _findings(item: Item, latest_us: int) -> list[Finding]:
    return sensor_findings(item, latest_us) if isinstance(item, SensorReading) else meter_findings(item, latest_us)


class _Columns(NamedTuple):
    """
    What differs between sensors and meters.

    Attributes:
        sources: Distinct sources; None for one that no good item has.
        source_of: Index of each row.
        values: As sent.
        fine: Which rows have nothing else that only the findings can judge.
    """

    sources: list[Source | None]
    source_of: Ints
    values: Floats
    fine: Flags


def _columns_of(items: Sequence[SensorReading] | Sequence[MeterReading]) -> _Columns:
    fine = np.ones(len(items), np.bool_)
    for values in ([i.metadata for i in items], [i.corrects for i in items], [i.reason for i in items]):
        if set(map(type, values)) - _NOTHING:
            fine &= np.array([type(value) in _NOTHING for value in values], np.bool_)
    sensors = [item for item in items if isinstance(item, SensorReading)]
    if len(sensors) == len(items):
        keys = [(i.sensor_id, i.sensor_type, i.phase, i.unit) for i in sensors]
        index = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        return _Columns(
            [sensor_source(*key) for key in index],
            np.array([index[key] for key in keys], np.int64),
            np.array([i.value for i in sensors], np.float64),
            fine & _fine_places(sensors),
        )
    meters = [item for item in items if isinstance(item, MeterReading)]
    names = [(i.meter_id, i.register, i.unit) for i in meters]
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    customers = [i.customer_id for i in meters]
    good = {customer for customer in set(customers) if not isinstance(customer, str) or ID.match(customer)}
    return _Columns(
        [meter_source(*name) for name in place],
        np.array([place[name] for name in names], np.int64),
        np.array([i.reading for i in meters], np.float64),
        fine & np.array([customer in good for customer in customers], np.bool_),
    )


def _fine_places(items: Sequence[SensorReading]) -> Flags:
    fine = np.ones(len(items), np.bool_)
    placed = [(row, place) for row, item in enumerate(items) if (place := item.location)]
    if placed:
        rows = np.array([row for row, _ in placed], np.int64)
        lat = np.array([place.lat for _, place in placed], np.float64)
        lon = np.array([place.lon for _, place in placed], np.float64)
        fine[rows] = (np.abs(lat) <= _LAT) & (np.abs(lon) <= _LON)
    return fine


def _seqs(items: Sequence[Item]) -> tuple[Ints, Flags]:
    sent = [i.seq for i in items]
    fits = np.ones(len(items), np.bool_)
    if not set(map(type, sent)) - _NOTHING:
        return np.full(len(items), NO_SEQ, np.int64), fits
    values = [seq if isinstance(seq, int) else NO_SEQ for seq in sent]
    for row, (seq, raw) in enumerate(zip(values, sent, strict=True)):
        if not 0 <= seq <= HIGHEST_SEQ and isinstance(raw, int):
            values[row] = NO_SEQ
            fits[row] = False
    return np.array(values, np.int64), fits


def _qualities(items: Sequence[Item]) -> tuple[Codes, Flags]:
    sent = [i.quality for i in items]
    if set(sent) <= _MEASURED and all(not i.corrects for i in items):
        return np.zeros(len(items), np.int8), np.ones(len(items), np.bool_)
    codes = np.array([_CORRECTED if i.corrects else _CODES.get(i.quality, -1) for i in items], np.int8)
    return codes, codes >= 0


def _extras(items: Sequence[Item], rows: Rows) -> None:
    """Fill in what few rows have, and the first place of each sensor and customer of each meter."""
    if any(i.metadata for i in items):
        rows.metadata.update({row: item.metadata for row, item in enumerate(items) if item.metadata})
    if any(i.corrects for i in items):
        made = ((row, correction_of(item)) for row, item in enumerate(items))
        rows.corrects.update({row: correction for row, correction in made if correction is not None})
    seen: set[int] = set()
    owners: list[int] = rows.source_of.tolist()
    for row, (source, item) in enumerate(zip(owners, items, strict=True)):
        if source in seen:
            continue
        place = _place(item) if isinstance(item, SensorReading) else item.customer_id or None
        if place is not None:
            seen.add(source)
            rows.places.setdefault(rows.sources[source].owner, (row, place))
