"""
Rollups of sensor readings: exact buckets of a quarter of an hour, an hour and a day (UTC) for each series.

A bucket's ``revision`` is the number of facts folded into it. Corrections and retractions take the old value away and
add the new one; a bucket that lost an extreme reads its readings again, as of the batch's last position. So the rows
depend on the set of facts alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from smartgrid_domain.maths.columns import Rows, unpack
from smartgrid_domain.maths.histograms import WIDTHS, bins_of
from smartgrid_domain.maths.quantities import MEASURANDS, Ints, quanta
from smartgrid_domain.maths.rollups import QUARTER_US, Rollups, fold, merge, quarters, regroup, subtract
from smartgrid_projections.projection import Projection
from smartgrid_projections.register import NO_PHASE, NO_SEQ, Key, Naming, Readings, Register, SeriesName
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.telemetry import ReadingRetracted, ReadingsRecorded, SensorConfigured, SeriesKey

LEVELS_US: Final = (QUARTER_US, 4 * QUARTER_US, 96 * QUARTER_US)
"""Length of the buckets of each level [µs]."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RollupTables(Protocol):
    """Where rollups are kept, in an open transaction."""

    @property
    def register(self) -> Register:
        """The readings themselves."""
        ...

    async def load(self, levels: Sequence["Keys"]) -> Sequence[tuple[Rollups, Ints]]:
        """Return, of each level, the buckets that hold readings, and the revision of each bucket, 0 of a new one."""
        ...

    async def save(self, levels: Sequence["Level"]) -> None:
        """Keep the buckets of some levels; one of the keys that is not among the rollups has no readings."""
        ...

    async def extremes(self, level: int, series: Ints, start_us: Ints) -> tuple[Ints, Ints]:
        """Return least and greatest reading of buckets of *level* from the quarters of an hour in each."""
        ...

    async def configure(self, sensor_id: str, expected_interval_s: float | None) -> None:
        """Keep the time between two readings of a sensor [s]."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """
    Buckets of one level, sorted by series and start, and how many facts each got.

    Attributes:
        series: Series of each (int64).
        start_us: Its start [µs since 1970] (int64).
        facts: Readings, corrections and retractions (int64).
    """

    series: Ints
    start_us: Ints
    facts: Ints


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """
    The buckets of one level that a batch touched, as they are after it.

    Attributes:
        level: Index into :data:`LEVELS_US`.
        keys: Which they are.
        revisions: Facts folded into each so far (int64).
        rollups: Those that hold readings.
    """

    level: int
    keys: Keys
    revisions: Ints
    rollups: Rollups


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """
    The readings of a batch, and the natural keys that it changes.

    Attributes:
        series: Series of each reading (int64).
        measured_at_us: When it was measured [µs since 1970] (int64).
        seq: Its sequence number, -1 for none (int64).
        values: What it says, in whole quanta (int64): physical ranges keep them in 64 bits.
        bins: Bins of the histogram.
        changed: Keys corrected or retracted, sorted.
        extra: One for each fact that brings no reading of its own: retractions.
        measurand_of: Measurand of each series.
    """

    series: Ints
    measured_at_us: Ints
    seq: Ints
    values: NDArray[np.int64]
    bins: Ints
    changed: list[Key]
    extra: list[Key]
    measurand_of: dict[int, str]


async def project(batch: Sequence[Recorded[Event]], tables: RollupTables) -> None:
    """Fold *batch* into *tables*."""
    for recorded in batch:
        if isinstance(recorded.event, SensorConfigured):
            await tables.configure(recorded.event.sensor_id, recorded.event.expected_interval_s)
    facts = await facts_of([recorded.event for recorded in batch], tables.register)
    if facts is None:
        return
    before, after = batch[0].position - 1, batch[-1].position
    plus, minus = await _changes(facts, tables.register, before, after)
    touched_series = np.concatenate((facts.series, np.array([key.series_id for key in facts.extra], np.int64)))
    touched_us = np.concatenate((facts.measured_at_us, np.array([key.measured_at_us for key in facts.extra], np.int64)))
    keys = [keys_of(touched_series, touched_us - touched_us % length_us) for length_us in LEVELS_US]
    known = await tables.load(keys)
    levels: list[Level] = []
    for level, (own, (had, revisions), length_us) in enumerate(zip(keys, known, LEVELS_US, strict=True)):
        rollups, stale = subtract(
            merge(had, regroup(plus, start_us=plus.start_us - plus.start_us % length_us)),
            regroup(minus, start_us=minus.start_us - minus.start_us % length_us),
        )
        if stale.any():
            rows = np.flatnonzero(stale)
            if level == 0:
                low, high = await _read_again(rollups, rows, tables.register, after, facts.measurand_of)
            else:
                await tables.save(levels)
                levels.clear()
                low, high = await tables.extremes(level, rollups.series[rows], rollups.start_us[rows])
            rollups = _with_extremes(rollups, rows, low, high)
        levels.append(Level(level=level, keys=own, revisions=revisions + own.facts, rollups=rollups))
    await tables.save(levels)


AGGREGATES: Projection[RollupTables] = Projection(name="aggregates", version=1, logs=("telemetry",), project=project)


async def facts_of(events: Sequence[Event], register: Naming) -> Facts | None:
    """Return what *events* say of readings; None if nothing."""
    recorded = [(event, unpack(event, normal=False)) for event in events if isinstance(event, ReadingsRecorded)]
    retracted = [event for event in events if isinstance(event, ReadingRetracted)]
    keys = list({key: None for event, _ in recorded for key in event.series})
    names = [_name(key.sensor_id, key.sensor_type, key.phase) for key in keys]
    gone = [_name(event.sensor_id, event.sensor_type, event.phase) for event in retracted]
    if not names and not gone:
        return None
    ids = await register.series("sensor", sorted({*names, *gone}))
    index = _joined_index(recorded, keys)
    series = np.array([ids[name] for name in names], np.int64)[index]
    measured_at_us, seq = _column(recorded, "measured_at_us"), _column(recorded, "seq")
    measurands = [MEASURANDS[key.sensor_type] for key in keys]
    shifts = [m.units[key.unit] - m.quantum_exponent for m, key in zip(measurands, keys, strict=True)]
    exponents = _column(recorded, "exponent") + np.array(shifts, np.int64)[index]
    values = quanta(_column(recorded, "mantissa"), exponents, 0)
    retractions = [
        Key(ids[name], (event.measured_at - _EPOCH) // _MICROSECOND, NO_SEQ if event.seq is None else event.seq)
        for event, name in zip(retracted, gone, strict=True)
    ]
    corrected = [Key(int(series[row]), int(measured_at_us[row]), int(seq[row])) for row in _corrections(recorded)]
    return Facts(
        series=series,
        measured_at_us=measured_at_us,
        seq=seq,
        values=values,
        bins=bins_of(values, np.array([WIDTHS[m.name] for m in measurands], np.int64)[index]),
        changed=sorted({*corrected, *retractions}),
        extra=retractions,
        measurand_of={series_id: name.measurand for name, series_id in ids.items()},
    )


_MICROSECOND = timedelta(microseconds=1)
_Recorded = Sequence[tuple[ReadingsRecorded, Rows]]


def _name(sensor_id: str, sensor_type: str, phase: str | None) -> SeriesName:
    return SeriesName(sensor_id, sensor_type, phase or NO_PHASE)


def _column(recorded: _Recorded, name: str) -> Ints:
    return np.concatenate([np.zeros(0, np.int64), *(getattr(rows, name) for _, rows in recorded)], dtype=np.int64)


def _joined_index(recorded: _Recorded, keys: Sequence[SeriesKey]) -> Ints:
    """Return the place among *keys* of each reading's own."""
    place_of = {key: place for place, key in enumerate(keys)}
    places = [place_of[key] for event, _ in recorded for key in event.series]
    return np.repeat(np.array(places, np.int64), [run for event, _ in recorded for run in event.runs])


def _corrections(recorded: _Recorded) -> Iterator[int]:
    """Yield the corrections among the readings of all events."""
    first = 0
    for event, rows in recorded:
        for correction in rows.corrects:
            yield first + correction.row
        first += event.count


async def _changes(facts: Facts, register: Register, before: int, after: int) -> tuple[Rollups, Rollups]:
    """Return what the batch adds to the quarters of an hour, and what it takes away."""
    series, at_us, values, bins = facts.series, facts.measured_at_us, facts.values, facts.bins
    if not facts.changed:
        return fold(series, quarters(at_us), values, bins), fold(series[:0], at_us[:0], values[:0], bins[:0])
    # A key that the batch corrects or retracts counts as it stood before and as it stands after, whatever came between.
    plain = ~_among(facts, facts.changed)
    gained = fold_current(await register.current(facts.changed, after), facts.measurand_of)
    lost = fold_current(await register.current(facts.changed, before), facts.measurand_of)
    return merge(fold(series[plain], quarters(at_us[plain]), values[plain], bins[plain]), gained), lost


def _among(facts: Facts, keys: Sequence[Key]) -> NDArray[np.bool_]:
    """Tell which readings have one of *keys*."""
    own = mixed(facts.series, facts.measured_at_us, facts.seq)
    wanted = np.array(keys, np.int64).reshape(-1, 3)
    found = np.isin(own, mixed(wanted[:, 0], wanted[:, 1], wanted[:, 2]))
    known = set(keys)
    for row in np.flatnonzero(found).tolist():
        found[row] = (int(facts.series[row]), int(facts.measured_at_us[row]), int(facts.seq[row])) in known
    return found


def mixed(series: Ints, at_us: Ints, seq: Ints) -> Ints:
    """Return a number that is equal for equal keys, and seldom for others."""
    return series * 0x1E3779B97F4A7C15 ^ at_us * 0x3F58476D1CE4E5B9 ^ seq


def fold_current(current: Mapping[Key, tuple[int, int]], measurand_of: Mapping[int, str]) -> Rollups:
    """Return the quarters of an hour of readings (mantissa, exponent) by key."""
    keys = sorted(current)
    measurands = [MEASURANDS[measurand_of[key.series_id]] for key in keys]
    mantissas = np.array([current[key][0] for key in keys], np.int64)
    exponents = np.array([current[key][1] for key in keys], np.int16)
    values = quanta(mantissas, exponents, np.array([m.quantum_exponent for m in measurands], np.int64))
    at_us = np.array([key.measured_at_us for key in keys], np.int64)
    return fold(
        np.array([key.series_id for key in keys], np.int64),
        quarters(at_us),
        values,
        bins_of(values, np.array([WIDTHS[m.name] for m in measurands], np.int64)),
    )


def keys_of(series: Ints, start_us: Ints) -> Keys:
    """Return the buckets that facts fall into, sorted, each with how many."""
    order = np.lexsort((start_us, series))
    series, start_us = series[order], start_us[order]
    new = np.concatenate(([True], (np.diff(series) != 0) | (np.diff(start_us) != 0)))
    firsts = np.flatnonzero(new)
    return Keys(series=series[firsts], start_us=start_us[firsts], facts=np.diff(firsts, append=len(series)))


def _with_extremes(rollups: Rollups, rows: Ints, low: Ints, high: Ints) -> Rollups:
    lows, highs = rollups.low.copy(), rollups.high.copy()
    lows[rows], highs[rows] = low, high
    return replace(rollups, low=lows, high=highs)


async def _read_again(
    rollups: Rollups, rows: Ints, register: Register, position: int, measurand_of: dict[int, str]
) -> tuple[Ints, Ints]:
    stretches = [
        (int(rollups.series[row]), int(rollups.start_us[row]), int(rollups.start_us[row]) + QUARTER_US)
        for row in rows.tolist()
    ]
    again = fold_readings(await register.stretches(stretches, position), measurand_of)
    if len(again) != len(rows) or np.any(again.n != rollups.n[rows]):
        raise RegisterDiffers(f"the register and the log differ at position {position}")
    return again.low, again.high


class RegisterDiffers(Exception):
    """The reading register does not hold the readings of the log: verify it before anything else is folded."""


def fold_readings(readings: Readings, measurand_of: dict[int, str], start_us: Ints | None = None) -> Rollups:
    """
    Return the buckets of *readings*.

    Args:
        readings: In canonical units.
        measurand_of: Measurand of each series.
        start_us: Start of the bucket of each reading [µs since 1970]; absent: its quarter of an hour.
    """
    if not len(readings):
        return fold(readings.series_id, readings.series_id, readings.series_id, readings.series_id)
    names, index = np.unique(readings.series_id, return_inverse=True)
    measurands = [MEASURANDS[measurand_of[series_id]] for series_id in names.tolist()]
    exponents = np.array([m.quantum_exponent for m in measurands], np.int64)
    widths = np.array([WIDTHS[m.name] for m in measurands], np.int64)
    values = quanta(readings.mantissa, readings.exponent, exponents[index])
    starts = quarters(readings.measured_at_us) if start_us is None else start_us
    return fold(readings.series_id, starts, values, bins_of(values, widths[index]))
