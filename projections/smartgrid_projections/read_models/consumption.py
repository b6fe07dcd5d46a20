"""
What meters and customers consumed: register differences, spread over UTC hours in whole Wh.

Most readings follow the last one of their register and are not lower: their differences are added, many registers at
once. Whatever else happens (late, lower, corrected, retracted, an exchange, a reset, another rollover or customer)
folds the register again around it, as of before the batch and as of after, and adds the difference.
Energy is positive when delivered to the customer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from smartgrid_domain.maths.columns import unpack
from smartgrid_domain.maths.quantities import METER_UNITS, Ints, quanta
from smartgrid_domain.maths.registers import Break
from smartgrid_projections.projection import Projection
from smartgrid_projections.read_models.consumption_tables import (
    FIRST_US,
    FOREVER,
    LAST_US,
    ConsumptionTables,
    MeterState,
    Tail,
)
from smartgrid_projections.read_models.energy import HOUR_US, Parts, counts, joint_parts, parts_of
from smartgrid_projections.read_models.meter_states import BreakKey, break_of, linked, settings_of, us_of
from smartgrid_projections.read_models.windows import (
    CONTEXT,
    first_anchor,
    fold_between,
    joined,
    last_anchor,
    of_series,
    register_readings,
)
from smartgrid_projections.register import NO_PHASE, Readings, SeriesName
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.metering import (
    MeterConfigured,
    MeterExchanged,
    MeterReadingRetracted,
    MeterReadingsRecorded,
    MeterRegistered,
    MeterReset,
)


@dataclass
class _Touched:
    """What a batch does to one register."""

    first_us: int = LAST_US
    last_us: int = FIRST_US
    plain: bool = True
    at_us: list[Ints] = field(default_factory=list[Ints])
    wh: list[Ints] = field(default_factory=list[Ints])

    def cover(self, first_us: int, last_us: int) -> None:
        self.first_us, self.last_us = min(self.first_us, first_us), max(self.last_us, last_us)

    def change(self, first_us: int, last_us: int) -> None:
        self.cover(first_us, last_us)
        self.plain = False


async def project(batch: Sequence[Recorded[Event]], tables: ConsumptionTables) -> None:
    """Fold *batch* into *tables*."""
    work = _Work(tables, batch[0].position - 1, batch[-1].position)
    await work.take(batch)
    await work.finish()


CONSUMPTION: Projection[ConsumptionTables] = Projection(
    name="consumption", version=1, logs=("telemetry",), project=project
)


class _Work:
    """One batch."""

    def __init__(self, tables: ConsumptionTables, before: int, after: int) -> None:
        self.tables = tables
        self.before = before
        self.after = after
        self.names: dict[int, SeriesName] = {}
        self.touched: dict[int, _Touched] = {}
        self.old: dict[str, MeterState] = {}
        self.new: dict[str, MeterState] = {}
        self.customers: dict[tuple[bytes, int], list[int]] = {}
        self.parts: list[Parts] = []
        self.tails: dict[int, Tail | None] = {}

    async def take(self, batch: Sequence[Recorded[Event]]) -> None:
        """Note what the batch touches, and what it tells of meters."""
        told = [(r, meter) for r in batch if (meter := _meter_of(r.event)) is not None]
        recorded = [r.event for r in batch if isinstance(r.event, MeterReadingsRecorded)]
        named = sorted({meter for _, meter in told})
        meters = {key.meter_id for event in recorded for key in event.series} | {*named}
        if not meters:
            return
        self.old = {meter: state.copy() for meter, state in (await self.tables.states(sorted(meters))).items()}
        self.new = {meter: state.copy() for meter, state in self.old.items()}
        if told:
            self.names.update(await self.tables.register.series_of("meter", named))
        await self._read(recorded)
        for one, _ in told:
            await self._told(one)
        changed = {meter: state for meter, state in self.new.items() if state != self.old[meter]}
        if changed:
            await self.tables.save_states(changed)

    async def _read(self, events: Sequence[MeterReadingsRecorded]) -> None:
        names = {SeriesName(key.meter_id, key.register, NO_PHASE) for event in events for key in event.series}
        if not names:
            return
        ids = await self.tables.register.series("meter", sorted(names))
        self.names.update({series_id: name for name, series_id in ids.items()})
        for event in events:
            rows = unpack(event, normal=False)
            shifts = np.array([METER_UNITS[key.unit] for key in event.series], np.int16)
            wh = quanta(rows.mantissa, rows.exponent + shifts[rows.series_index], 0)
            corrected = {int(rows.series_index[correction.row]) for correction in rows.corrects}
            end = 0
            for index, (key, run) in enumerate(zip(event.series, event.runs, strict=True)):
                start, end = end, end + run
                touched = self._touched(ids[SeriesName(key.meter_id, key.register, NO_PHASE)])
                at_us = rows.measured_at_us[start:end]
                touched.at_us.append(at_us)
                touched.wh.append(wh[start:end])
                touched.cover(int(at_us.min()), int(at_us.max()))
                touched.plain &= index not in corrected

    def _touched(self, series_id: int) -> _Touched:
        return self.touched.setdefault(series_id, _Touched())

    async def _told(self, recorded: Recorded[Event]) -> None:
        match recorded.event:
            case MeterReadingRetracted(kind="reading") as event:
                at_us = us_of(event.measured_at)
                for series_id in self._series(event.meter_id, event.register):
                    self._touched(series_id).change(at_us, at_us)
            case MeterReadingRetracted() | MeterExchanged() | MeterReset() as event:
                if (told := break_of(event)) is not None:
                    self._break(event.meter_id, *told)
            case MeterConfigured() as event:
                meter = settings_of(event)
                if meter.rollover_at_wh != self.new[event.meter_id].meter.rollover_at_wh:
                    for series_id in self._series(event.meter_id):
                        self._touched(series_id).change(FIRST_US, LAST_US)
                self.new[event.meter_id].meter = meter
                await self._link(recorded, event.meter_id)
            case MeterRegistered() as event:
                await self._link(recorded, event.meter_id)
            case _:
                pass

    def _series(self, meter_id: str, register: str | None = None) -> list[int]:
        return [
            series_id
            for series_id, name in self.names.items()
            if name.subject_id == meter_id and register in (None, name.measurand)
        ]

    def _break(self, meter_id: str, key: BreakKey, item: Break | None) -> None:
        breaks = self.new[meter_id].breaks
        register, at_us, _ = key
        if item is None:
            breaks.pop(key, None)
        else:
            breaks[key] = item
        for series_id in self._series(meter_id, register):
            self._touched(series_id).change(at_us, at_us)

    async def _link(self, recorded: Recorded[Event], meter_id: str) -> None:
        """The customer of a meter applies from its recorded time on."""
        at_us = us_of(recorded.recorded_at)
        state = self.new[meter_id]
        links = linked(state.links, at_us, await self.tables.customer_of(recorded))
        if links is state.links:
            return
        state.links = links
        for series_id in self._series(meter_id):
            self._touched(series_id).change(at_us, LAST_US)

    async def finish(self) -> None:
        """Add what the batch changes."""
        if not self.touched:
            return
        tails = await self.tables.tails(sorted(self.touched))
        fast = [series for series in sorted(self.touched) if self._follows(series, tails.get(series))]
        self._add_following(fast, tails)
        await self._fold_again([series for series in sorted(self.touched) if series not in set(fast)])
        if self.parts:
            customers = {key: (wh, estimated, n) for key, (wh, estimated, n) in self.customers.items()}
            await self.tables.add(Parts.summed(self.parts), customers)
        await self.tables.save_tails(self.tails)

    def _follows(self, series: int, tail: Tail | None) -> bool:
        """Tell whether readings only go on where the register stands."""
        touched = self.touched[series]
        if tail is None or not touched.plain or touched.first_us <= tail.at_us:
            return False
        state = self.new[self.names[series].subject_id]
        hour_us = tail.at_us - tail.at_us % HOUR_US
        if any(link.since_us > hour_us or hour_us < link.until_us < FOREVER for link in state.links):
            return False
        at_us, wh = np.concatenate(touched.at_us), np.concatenate(touched.wh)
        order = np.argsort(at_us, kind="stable")
        touched.at_us, touched.wh = [at_us[order]], [wh[order]]
        steps = np.diff(touched.wh[0], prepend=tail.wh)
        return bool((steps >= 0).all()) and bool((np.diff(touched.at_us[0]) > 0).all())

    def _add_following(self, series: Sequence[int], tails: Mapping[int, Tail]) -> None:
        if not series:
            return
        at_us = [self.touched[one].at_us[0] for one in series]
        wh = [self.touched[one].wh[0] for one in series]
        parts = joint_parts(series, at_us, wh, [tails[one] for one in series])
        self.parts.append(parts)
        for one, own_at, own_wh in zip(series, at_us, wh, strict=True):
            self.tails[one] = Tail(int(own_at[-1]), int(own_wh[-1]))
        holders = {one: self._holder(one) for one in series}
        for one, start, *numbers in parts.rows():
            if (customer := holders[one]) is not None:
                self._count(customer, start, numbers, 1)

    def _holder(self, series: int) -> bytes | None:
        name = self.names[series]
        links = self.new[name.subject_id].links if counts(name.measurand) else ()
        return links[-1].customer if links and links[-1].until_us == FOREVER else None

    def _count(self, customer: bytes, start_us: int, numbers: Sequence[int], sign: int) -> None:
        sums = self.customers.setdefault((customer, start_us - start_us % HOUR_US), [0, 0, 0])
        for i, number in enumerate(numbers):
            sums[i] += sign * number

    async def _fold_again(self, series: Sequence[int]) -> None:
        if not series:
            return
        register, before, after = self.tables.register, self.before, self.after
        ends = {one: (self.touched[one].first_us, self.touched[one].last_us) for one in series}
        earlier = await register.neighbours([(s, first) for s, (first, _) in ends.items()], CONTEXT, after, before=True)
        later = await register.neighbours([(s, last) for s, (_, last) in ends.items()], CONTEXT, after, before=False)
        spans = [(s, first, last + 1) for s, (first, last) in ends.items()]
        then, now = await register.stretches(spans, before), await register.stretches(spans, after)
        wide: list[int] = []
        for one in series:
            context = of_series(earlier, one), of_series(later, one)
            if not self._fold_window(one, *context, of_series(then, one), of_series(now, one)):
                wide.append(one)
        if wide:
            spans = [(one, FIRST_US, LAST_US) for one in wide]
            then, now = await register.stretches(spans, before), await register.stretches(spans, after)
            nothing = of_series(then, 0)
            for one in wide:
                self._fold_window(one, nothing, nothing, of_series(then, one), of_series(now, one), whole=True)

    def _fold_window(  # noqa: PLR0913  # four stretches of one register
        self, series: int, earlier: Readings, later: Readings, then: Readings, now: Readings, *, whole: bool = False
    ) -> bool:
        """Add the difference of two folds; return whether that could be told from these readings."""
        name = self.names[series]
        old, new = self.old[name.subject_id], self.new[name.subject_id]
        before, behind = register_readings(earlier), register_readings(later)
        start = last_anchor(before, new.breaks_of(name.measurand))
        end = first_anchor(behind, new.breaks_of(name.measurand))
        if not whole and ((start is None and len(before)) or (end is None and len(behind) >= CONTEXT)):
            return False
        for readings, state, sign in ((then, old, -1), (now, new, 1)):
            all_readings = joined(before, register_readings(readings), behind)
            folded = fold_between(all_readings, state.breaks_of(name.measurand), start, end, state.meter.rollover_at_wh)
            parts = parts_of(series, folded, state.links)
            self.parts.append(parts if sign > 0 else parts.negative())
            for _, at_us, *numbers in parts.rows() if counts(name.measurand) else ():
                for link in state.links:
                    if link.since_us <= at_us < link.until_us:
                        self._count(link.customer, at_us, numbers, sign)
            if sign > 0 and end is None:
                tail = folded.tail
                decided = tail.base is not None and not len(tail.readings) and not tail.breaks
                self.tails[series] = Tail(tail.base[0], tail.base[2]) if tail.base is not None and decided else None
        return True


def _meter_of(event: Event) -> str | None:
    match event:
        case MeterReadingRetracted() | MeterExchanged() | MeterReset() | MeterConfigured() | MeterRegistered():
            return event.meter_id
        case _:
            return None
