"""
Physics of the simulated feeder: loads, voltages, currents, frequency.

Twelve or so houses hang on a cable behind a transformer, each on one of three phases. Their load has a daily and a
weekly shape in local time and a season; voltage falls along the cable with the load (linearised DistFlow, the loop of
phase and neutral); the frequency wanders about 50 Hz with a standard deviation of 20 mHz. Losses are left out.

Every number is a function of the seed and its instant, so ranges that overlap agree.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PHASES = ("L1", "L2", "L3")
MINUTES = 1440
NOMINAL_V = 230.0
NOMINAL_HZ = 50.0
FREQUENCY_SD_HZ = 0.020
OHM_PER_KM = 0.320  # resistance of one conductor of a 95 mm² aluminium cable at 20 °C
REACTANCE_OHM_PER_KM = 0.082
SPAN_KM = 0.035
_LOAD_MEMORY_MIN = 20.0
_GRID_MEMORY_MIN = 90.0
_FREQUENCY_MEMORY_S = 60.0
_MEMORIES = 6  # noise older than so many time constants weighs less than 0.3 % and is left out

_LOAD, _GRID, _FREQUENCY, _HOUSES = range(4)  # streams of random numbers


class Feeder(Struct, frozen=True, kw_only=True):
    """
    What does not change with time.

    Attributes:
        seed: Everything random follows from it.
        zone: Zone of the people who live there.
        mean_w: Mean load of each house [W].
        tan_phi: Reactive by active power of each house.
        resistance: Common path of houses i and j on one phase [Ω]; 0 on different phases.
        reactance: The same [Ω].
    """

    seed: int
    zone: ZoneInfo
    mean_w: Floats
    tan_phi: Floats
    resistance: Floats
    reactance: Floats

    @property
    def houses(self) -> int:
        """How many houses there are."""
        return len(self.mean_w)

    def phase(self, house: int) -> str:
        """Return the phase that *house* hangs on."""
        return PHASES[house % len(PHASES)]


def feeder(seed: int, houses: int, zone: ZoneInfo) -> Feeder:
    """Return the feeder of *seed*."""
    draw = _random(seed, 0, _HOUSES)
    annual_kwh = 2500 + 3500 * draw.random(houses)
    power_factor = 0.92 + 0.06 * draw.random(houses)
    place = np.arange(houses)
    loop_km = 2 * SPAN_KM * (np.minimum(place[:, None], place[None, :]) + 1)
    same = (place[:, None] - place[None, :]) % len(PHASES) == 0
    return Feeder(
        seed=seed,
        zone=zone,
        mean_w=annual_kwh * 1000 / 8766,
        tan_phi=np.tan(np.arccos(power_factor)),
        resistance=np.where(same, loop_km * OHM_PER_KM, 0.0),
        reactance=np.where(same, loop_km * REACTANCE_OHM_PER_KM, 0.0),
    )


def load_shape(hour: Floats, *, weekend: NDArray[np.bool_]) -> Floats:
    """
    Return load by its mean at local *hour* (0…24): low at night, a morning and a higher evening peak.

    The morning peak is at 7:30 on working days and two hours later and broader at weekends.
    """
    morning = np.where(weekend, _bump(hour, 9.5, 2.0), _bump(hour, 7.5, 1.2))
    noon = np.where(weekend, 0.55, 0.30) * _bump(hour, 13.0, 2.0)
    shape: Floats = 0.48 + 0.65 * morning + noon + 1.45 * _bump(hour, 20.0, 2.4)
    return shape


def loads(it: Feeder, day: date) -> Floats:
    """Return active power [W], positive = delivered to the customer, by minute of the UTC *day* and house."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    local = [(midnight + timedelta(minutes=minute)).astimezone(it.zone) for minute in range(0, MINUTES, 15)]
    hour = np.repeat([at.hour + at.minute / 60 for at in local], 15) + np.tile(np.arange(15) / 60, MINUTES // 15)
    weekend = np.repeat([at.weekday() >= 5 for at in local], 15)  # noqa: PLR2004  # Saturday and Sunday
    season = 1 + 0.25 * np.cos(2 * np.pi * (day.timetuple().tm_yday - 15) / 365.25)
    spread = 0.35
    wander = _wandering(
        lambda d: _random(it.seed, d, _LOAD).standard_normal((MINUTES, it.houses)), day, _LOAD_MEMORY_MIN
    )
    noise = np.exp(spread * wander - spread**2 / 2)
    load: Floats = load_shape(hour, weekend=weekend)[:, None] * noise * it.mean_w * season
    return load


def voltages(it: Feeder, load_w: Floats, source_v: Floats) -> Floats:
    """
    Return the voltage [V] at each house, by time and house.

    Args:
        it: The feeder.
        load_w: Load [W] by time and house.
        source_v: Voltage behind the transformer [V] by time.

    Guarantees:
        More load anywhere on a phase never raises a voltage, and lowers that of every house on the phase.
    """
    drop = load_w @ it.resistance.T + (load_w * it.tan_phi) @ it.reactance.T
    volts: Floats = source_v[:, None] - drop / NOMINAL_V
    return volts


def source_voltages(it: Feeder, day: date) -> Floats:
    """Return the voltage [V] behind the transformer by minute: 2 % above nominal, wandering slowly."""
    wander = _wandering(lambda d: _random(it.seed, d, _GRID).standard_normal((MINUTES, 1)), day, _GRID_MEMORY_MIN)
    volts: Floats = NOMINAL_V * (1.02 + 0.004 * wander[:, 0])
    return volts


def currents(it: Feeder, load_w: Floats, volts: Floats) -> Floats:
    """Return the current [A] of each house."""
    amps: Floats = load_w * np.sqrt(1 + it.tan_phi**2) / volts
    return amps


def frequencies(it: Feeder, day: date, step_s: int) -> Floats:
    """Return the frequency [Hz] every *step_s* seconds of the UTC *day*."""
    count = 86_400 // step_s
    memory = _FREQUENCY_MEMORY_S / step_s
    wander = _wandering(lambda d: _random(it.seed, d, _FREQUENCY).standard_normal((count, 1)), day, memory)
    hertz: Floats = NOMINAL_HZ + FREQUENCY_SD_HZ * wander[:, 0]
    return hertz


def _bump(hour: Floats, centre: float, width: float) -> Floats:
    away = np.abs(hour - centre)
    away = np.minimum(away, 24 - away)
    bump: Floats = np.exp(-0.5 * (away / width) ** 2)
    return bump


def _random(seed: int, day: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, day, stream])))


def _wandering(white: Callable[[int], Floats], day: date, memory: float) -> Floats:
    """Filter white noise so that it remembers about *memory* steps; unit variance; a function of the day alone."""
    phi = float(np.exp(-1 / memory))
    reach = int(np.ceil(_MEMORIES * memory))
    today = white(day.toordinal())
    noise = today
    back = 0
    while len(noise) - len(today) < reach:
        back += 1
        noise = np.concatenate([white(day.toordinal() - back), noise])
    noise = noise[len(noise) - len(today) - reach :]
    weights = phi ** np.arange(reach + 1)
    weights /= np.sqrt(np.sum(weights**2))
    filtered = np.empty_like(today)
    for series in range(noise.shape[1]):
        filtered[:, series] = np.convolve(noise[:, series], weights, mode="valid")
    return filtered
