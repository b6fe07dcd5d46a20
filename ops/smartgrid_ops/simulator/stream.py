"""What the simulated feeder sends, in the order in which it arrives."""

import heapq
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import Struct

from smartgrid_ops.importing.items import Reading, Series, meter_series, sensor_series
from smartgrid_ops.importing.mapping import MeterMapping, Place, SensorMapping
from smartgrid_ops.importing.times import EPOCH, Moment
from smartgrid_ops.simulator.feeder import (
    MINUTES,
    PHASES,
    Feeder,
    Floats,
    currents,
    feeder,
    frequencies,
    loads,
    source_voltages,
    voltages,
)

SUBSTATION = Place(41.3275, 19.8187)
_ARRIVALS = 9  # stream of random numbers
_LATEST_S = 6 * 3600
_REPEAT_S = 3600
_METER_MIN = 15


class Plan(Struct, frozen=True, kw_only=True):
    """
    What to simulate.

    Attributes:
        seed: Everything random follows from it.
        start: First UTC day.
        days: How many.
        houses: How many.
        step_s: Time between two readings of a sensor [s]; divides a minute or is whole minutes that divide a day.
        late: Share of readings that arrive up to six hours late.
        duplicates: Share of readings that arrive a second time.
        zone: Zone of the people who live there; times are written with its offset.
        prefix: Ids begin with it.
    """

    seed: int
    start: date
    days: int
    houses: int = 12
    step_s: int = 60
    late: float = 0.01
    duplicates: float = 0.005
    zone: str = "Europe/Tirane"
    prefix: str = "sim"


def readings(plan: Plan) -> Iterator[Reading]:
    """
    Yield what arrives, in order of arrival.

    Guarantees:
        * The same plan yields the same readings.
        * Without late and repeated ones, times never go back.
        * A repeated reading is an exact copy.
    """
    it = feeder(plan.seed, plan.houses, ZoneInfo(plan.zone))
    names = _Names(plan, it)
    energy_wh = np.round(1e6 + 9e6 * _arrivals(plan, 0).random(plan.houses))
    waiting: list[tuple[float, int, Reading]] = []
    number = 0
    for offset in range(plan.days):
        day = plan.start + timedelta(days=offset)
        day_start_s = (datetime(day.year, day.month, day.day, tzinfo=UTC) - EPOCH).total_seconds()
        draw = _arrivals(plan, day.toordinal())
        today, energy_wh = _day(plan, it, names, day, energy_wh)
        lots = draw.random((len(today), 3))
        for reading, (late, repeated, how) in zip(today, lots.tolist(), strict=True):
            number += 1
            at_s = reading.at.micros / 1e6
            arrival = at_s + (how * _LATEST_S if late < plan.late else 0)
            heapq.heappush(waiting, (arrival, number, reading))
            if repeated < plan.duplicates:
                number += 1
                heapq.heappush(waiting, (arrival + how * _REPEAT_S, number, reading))
        end_s = day_start_s + 86_400
        while waiting and waiting[0][0] < end_s:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


class _Names:
    """The series of a feeder."""

    def __init__(self, plan: Plan, it: Feeder) -> None:
        def sensor(name: str, sensor_type: str, unit: str, phase: str | None, place: Place) -> Series:
            sensor_id = f"{plan.prefix}-{name}"
            mapping = SensorMapping(
                column=sensor_type, sensor_type=sensor_type, sensor_id=sensor_id, unit=unit, phase=phase
            )
            return sensor_series(mapping, sensor_id, place)

        self.frequency = sensor("substation", "frequency", "Hz", None, SUBSTATION)
        self.feeder = [sensor("substation", "power", "W", phase, SUBSTATION) for phase in PHASES]
        self.voltage: list[Series] = []
        self.current: list[Series] = []
        self.power: list[Series] = []
        self.meter: list[Series] = []
        for house in range(it.houses):
            name, phase = f"house-{house + 1:03}", it.phase(house)
            place = Place(SUBSTATION.lat, round(SUBSTATION.lon + 0.0004 * (house + 1), 4))
            self.voltage.append(sensor(name, "voltage", "V", phase, place))
            self.current.append(sensor(name, "current", "A", phase, place))
            self.power.append(sensor(name, "power", "W", phase, place))
            meter_id, customer_id = f"{plan.prefix}-meter-{house + 1:03}", f"{plan.prefix}-customer-{house + 1:03}"
            mapping = MeterMapping(column="register", meter_id=meter_id, customer_id=customer_id, unit="kWh")
            self.meter.append(meter_series(mapping))


def _day(plan: Plan, it: Feeder, names: _Names, day: date, energy_wh: Floats) -> tuple[list[Reading], Floats]:
    load = loads(it, day)
    volts = voltages(it, load, source_voltages(it, day))
    amps = currents(it, load, volts)
    hertz = frequencies(it, day, plan.step_s)
    registers = energy_wh + np.cumsum(np.round(load / 60), axis=0)  # whole Wh a minute: a register that adds up
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    found: list[Reading] = []
    for step in range(86_400 // plan.step_s):
        second = step * plan.step_s
        at = _moment(midnight + timedelta(seconds=second), it.zone)
        minute = second // 60
        if second % (_METER_MIN * 60) == 0:
            standing = energy_wh if minute == 0 else registers[minute - 1]
            found += [Reading(0, names.meter[i], at, _thousandths(standing[i])) for i in range(it.houses)]
        found.append(Reading(0, names.frequency, at, f"{hertz[step]:.3f}"))
        for index, series in enumerate(names.feeder):
            found.append(Reading(0, series, at, f"{load[minute, index :: len(PHASES)].sum():.0f}"))
        for i in range(it.houses):
            found.append(Reading(0, names.voltage[i], at, f"{volts[minute, i]:.2f}"))
            found.append(Reading(0, names.current[i], at, f"{amps[minute, i]:.2f}"))
            found.append(Reading(0, names.power[i], at, f"{load[minute, i]:.0f}"))
    return found, registers[MINUTES - 1]


def _thousandths(value: float) -> str:
    return f"{Decimal(round(value)).scaleb(-3):f}"


def _moment(at: datetime, zone: ZoneInfo) -> Moment:
    return Moment(round((at - EPOCH).total_seconds()) * 1_000_000, at.astimezone(zone).isoformat())


def _arrivals(plan: Plan, day: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([plan.seed, day, _ARRIVALS])))
