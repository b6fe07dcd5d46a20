"""
What is measured, in which units, and how a value stays exact.

A value is a decimal ``mantissa * 10**exponent``: the shortest one that reads back as the float64 that was sent,
which is what ``repr`` prints. It is *normal* when its mantissa has no trailing zero; zero is ``(0, 0)``.
A unit is a power of ten of the canonical one, so converting only shifts the exponent. Rollups and registers work on
integers in *quanta* (mV, mA, mHz, W, Wh …) that come from the decimal, half to even, never from a float.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Exponents = NDArray[np.int16]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_DIGITS = 15  # a decimal of up to 15 digits is the only one of its length that reads back as its float64
_EXACT_POWER = 22  # 10**22 is the largest power of ten that is a float64
_MOST_DECIMALS = 15
_INT64 = 2**63
_POWERS: Final[tuple[int, ...]] = tuple(10**k for k in range(19))
_FLOAT_POWERS: Final[Floats] = np.array([float(10**k) for k in range(_EXACT_POWER + 1)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurand:
    """
    Something that sensors measure.

    Attributes:
        name: The ``sensor_type`` of the API.
        unit: The canonical unit, in which values are answered.
        units: Power of ten that turns each unit that may be sent into the canonical one.
        low: Smallest value that is physically possible [*unit*].
        high: Largest [*unit*].
        quantum_exponent: Rollups are in whole ``10**quantum_exponent`` *unit*.
    """

    name: str
    unit: str
    units: Mapping[str, int]
    low: int
    high: int
    quantum_exponent: int

    @property
    def scale(self) -> int:
        """Quanta per canonical unit: 1,000 for volts that are counted in millivolts."""
        return _power(-self.quantum_exponent)


def _measurand(name: str, units: dict[str, int], low: int, high: int, quantum_exponent: int) -> Measurand:
    return Measurand(
        name=name,
        unit=next(iter(units)),
        units=MappingProxyType(units),
        low=low,
        high=high,
        quantum_exponent=quantum_exponent,
    )


MEASURANDS: Final[Mapping[str, Measurand]] = MappingProxyType(
    {
        m.name: m
        for m in (
            _measurand("voltage", {"V": 0, "mV": -3, "kV": 3}, 0, 1_500_000, -3),
            _measurand("current", {"A": 0, "mA": -3, "kA": 3}, -500_000, 500_000, -3),
            _measurand("power", {"W": 0, "kW": 3, "MW": 6}, -(10**11), 10**11, 0),
            _measurand("reactive_power", {"var": 0, "kvar": 3, "Mvar": 6}, -(10**11), 10**11, 0),
            _measurand("energy", {"Wh": 0, "kWh": 3, "MWh": 6}, 0, 10**15, 0),
            _measurand("frequency", {"Hz": 0, "mHz": -3}, 0, 1_000, -3),
            _measurand("power_factor", {"1": 0}, -1, 1, -4),
            _measurand("temperature", {"Cel": 0}, -100, 200, -2),
        )
    }
)
"""All measurands by their name in the API."""

METER_UNITS: Final[Mapping[str, int]] = MappingProxyType({"kWh": 3, "Wh": 0, "MWh": 6})
"""Power of ten that turns a unit of a meter's register into Wh; the first is the default."""

METER_HIGH: Final = 10**12
"""A register stands at 0…10¹² of the unit that was sent."""

QUALITIES: Final[Mapping[str, int]] = MappingProxyType(
    {"measured": 0, "estimated": 1, "substituted": 2, "suspect": 3, "corrected": 4}
)
"""Codes of the qualities at rest."""

QUALITY_NAMES: Final[tuple[str, ...]] = tuple(QUALITIES)
"""Names of the qualities by code."""


def decimal_of(value: float) -> tuple[int, int]:
    """
    Return the shortest decimal that reads back as *value*, as (mantissa, exponent), normal.

    Raises:
        ValueError: *value* is not finite, or an integer beyond float64.

    Guarantees:
        Equal to ``Decimal(repr(float(value)))``; |mantissa| < 10¹⁷.

    Example:
        >>> decimal_of(220.5), decimal_of(1500), decimal_of(0.1 + 0.2), decimal_of(-0.0)
        ((2205, -1), (15, 2), (30000000000000004, -17), (0, 0))
    """
    try:
        digits, _, power = repr(float(value)).partition("e")
    except OverflowError as error:
        raise ValueError("the number is beyond float64") from error
    whole, _, fraction = digits.partition(".")
    if not fraction and not power and not whole.lstrip("-").isdigit():
        raise ValueError("the number is not finite")
    return normal(int(whole + fraction), int(power or 0) - len(fraction))


def decimals_of(values: Floats) -> tuple[Ints, Exponents]:
    """
    Return the shortest decimals of *values*: mantissas (int64) and exponents (int16), normal, in the same order.

    Raises:
        ValueError: A value is not finite.

    Guarantees:
        Equal to :func:`decimal_of` of each value.

    Example:
        >>> decimals_of(np.array([220.5, 1500.0, 0.1 + 0.2]))
        (array([             2205,                15, 30000000000000004]), array([ -1,   2, -17], dtype=int16))
    """
    values = np.ascontiguousarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    mantissas = np.zeros(len(values), np.int64)
    exponents = np.zeros(len(values), np.int16)
    open_rows = np.arange(len(values))
    rest = values
    for decimals in range(_MOST_DECIMALS + 1):
        power = _FLOAT_POWERS[decimals]
        with np.errstate(over="ignore"):
            candidate = np.rint(rest * power)
        # Both are whole numbers that a float64 holds, so the quotient is rounded once, as reading a text is.
        hit = (np.abs(candidate) < _FLOAT_POWERS[_DIGITS]) & (candidate / power == rest)
        if hit.any():
            rows = open_rows[hit]
            mantissas[rows] = candidate[hit].astype(np.int64)
            exponents[rows] = -decimals
            open_rows = open_rows[~hit]
            rest = rest[~hit]
            if not len(rest):
                break
    for row, value in zip(open_rows.tolist(), rest.tolist(), strict=True):
        mantissas[row], exponents[row] = decimal_of(value)
    return normals(mantissas, exponents)


def normal(mantissa: int, exponent: int) -> tuple[int, int]:
    """
    Return the same value without trailing zeros in the mantissa; zero is ``(0, 0)``.

    Example:
        >>> normal(241000, -3), normal(0, 5)
        ((241, 0), (0, 0))
    """
    if mantissa == 0:
        return 0, 0
    while mantissa % 10 == 0:
        mantissa //= 10
        exponent += 1
    return mantissa, exponent


def normals(mantissas: Ints, exponents: NDArray[np.integer[Any]]) -> tuple[Ints, Exponents]:
    """
    Return the same values with normal mantissas and exponents (int64, int16).

    Guarantees:
        Equal to :func:`normal` of each value.
    """
    whole: Ints = np.array(mantissas, np.int64)
    powers: Exponents = np.array(exponents, np.int16)
    powers[whole == 0] = 0
    rows = np.flatnonzero((whole % 10 == 0) & (whole != 0))
    if not len(rows):
        return whole, powers
    part = whole[rows]
    added = np.zeros(len(rows), np.int16)
    for zeros in (16, 8, 4, 2, 1):
        quotient, remainder = np.divmod(part, _POWERS[zeros])
        hit = remainder == 0
        part = np.where(hit, quotient, part)
        added[hit] += zeros
    whole[rows] = part
    powers[rows] += added
    return whole, powers


def convert(mantissa: int, exponent: int, shift: int) -> tuple[int, int]:
    """
    Return a value in a unit that is ``10**-shift`` of the one it was sent in, normal.

    Example:
        >>> convert(*decimal_of(1.2), METER_UNITS["kWh"])
        (12, 2)
    """
    return normal(mantissa, exponent + shift)


def converts(
    mantissas: Ints, exponents: NDArray[np.integer[Any]], shifts: int | NDArray[np.integer[Any]]
) -> tuple[Ints, Exponents]:
    """
    Return normal values in another unit; *shifts* is one power of ten or one of each value.

    Example:
        >>> converts(*decimals_of(np.array([1.2, 0.0])), 3)
        (array([12,  0]), array([2, 0], dtype=int16))
    """
    return normals(mantissas, np.asarray(exponents + shifts, np.int16))


def same(mantissa: int, exponent: int, other_mantissa: int, other_exponent: int) -> bool:
    """
    Tell whether two decimals of one unit are the same value, before any quantum.

    Example:
        >>> same(2205, -1, 220500, -3), same(2205, -1, 22050000001, -8)
        (True, False)
    """
    return normal(mantissa, exponent) == normal(other_mantissa, other_exponent)


def within(mantissa: int, exponent: int, low: int, high: int) -> bool:
    """
    Tell whether *low* ≤ mantissa · 10**exponent ≤ *high*, exactly.

    Example:
        >>> within(15, 5, 0, 1_500_000), within(15000000000000001, -10, 0, 1_500_000)
        (True, False)
    """
    if exponent >= 0:
        return low <= mantissa * _power(exponent) <= high
    unit = _power(-exponent)
    return low * unit <= mantissa <= high * unit


def withins(mantissas: Ints, exponents: NDArray[np.integer[Any]], low: int, high: int) -> Flags:
    """
    Return of each decimal whether it lies in *low* … *high*, both included, exactly.

    Guarantees:
        Equal to :func:`within` of each value, for bounds that a float64 holds (all of :data:`MEASURANDS` are).
    """
    values = floats_of(mantissas, exponents)
    inside = (values > low) & (values < high)
    # Rounding keeps order, so only a value that rounds onto a bound can deceive.
    for row in np.flatnonzero((values == low) | (values == high)).tolist():
        inside[row] = within(int(mantissas[row]), int(exponents[row]), low, high)
    return inside


def quantum_of(mantissa: int, exponent: int, quantum_exponent: int) -> int:
    """
    Return the value in whole ``10**quantum_exponent``, half to even.

    Example:
        >>> quantum_of(*decimal_of(220.0005), -3), quantum_of(*decimal_of(220.0015), -3)
        (220000, 220002)
    """
    shift = exponent - quantum_exponent
    if shift >= 0:
        return mantissa * _power(shift)
    unit = _power(-shift)
    quotient, remainder = divmod(mantissa, unit)
    twice = 2 * remainder
    return quotient + int(twice > unit or (twice == unit and quotient % 2 == 1))


def _power(exponent: int) -> int:
    return int(10**exponent)


def quanta(
    mantissas: Ints, exponents: NDArray[np.integer[Any]], quantum_exponent: int | NDArray[np.integer[Any]]
) -> NDArray[Any]:
    """
    Return the values in whole ``10**quantum_exponent``, half to even.

    Args:
        mantissas: Of the values in their canonical unit; they need not be normal.
        exponents: Likewise.
        quantum_exponent: One for all, or one of each value.

    Returns:
        int64 in the same order; an array of Python integers (dtype object) when one of them needs more than 64 bits,
        which no value in its physical range does.

    Guarantees:
        Equal to :func:`quantum_of` of each value.

    Example:
        >>> quanta(*decimals_of(np.array([220.0005, 220.0015, -0.5])), -3)
        array([220000, 220002,   -500])
    """
    shifts = np.asarray(exponents, np.int64) - quantum_exponent
    if not len(shifts):
        return np.zeros(0, np.int64)
    first = int(shifts[0])
    if bool((shifts == first).all()):
        return _scaled(mantissas, first)
    parts = [(shifts == shift, int(shift)) for shift in np.unique(shifts)]
    scaled = [_scaled(mantissas[rows], shift) for rows, shift in parts]
    result = np.empty(len(shifts), np.int64 if all(part.dtype == np.int64 for part in scaled) else object)
    for (rows, _), part in zip(parts, scaled, strict=True):
        result[rows] = part
    return result


def _scaled(mantissas: Ints, shift: int) -> NDArray[Any]:
    if shift == 0:
        return np.array(mantissas, np.int64)
    if 0 < shift < len(_POWERS) and bool(_up_to(mantissas, (_INT64 - 1) // _POWERS[shift]).all()):
        return mantissas * _POWERS[shift]
    if -len(_POWERS) < shift < 0:
        unit = _POWERS[-shift]
        quotients, remainders = np.divmod(mantissas, unit)
        # Compared as rest against half: twice the rest may need more than 64 bits.
        half = unit // 2
        up = (remainders > half) | ((remainders == half) & (quotients % 2 == 1))
        return np.asarray(quotients + up, np.int64)
    exact = [quantum_of(mantissa, shift, 0) for mantissa in mantissas.tolist()]
    fits = all(-_INT64 <= value < _INT64 for value in exact)
    result = np.empty(len(exact), np.int64 if fits else object)
    result[:] = exact
    return result


def _up_to(values: Ints, high: int) -> Flags:
    return np.asarray((values <= high) & (values >= -high), np.bool_)  # abs() of the least int64 is negative


def float_of(mantissa: int, exponent: int) -> float:
    """
    Return the float64 nearest to the decimal; of a normal decimal that is the number that was sent.

    Example:
        >>> float_of(2205, -1)
        220.5
    """
    return float(f"{mantissa}e{exponent}")


def floats_of(mantissas: Ints, exponents: NDArray[np.integer[Any]]) -> Floats:
    """
    Return the float64 nearest to each decimal.

    Guarantees:
        Equal to :func:`float_of` of each value.

    Example:
        >>> floats_of(np.array([2205, 15]), np.array([-1, 2]))
        array([ 220.5, 1500. ])
    """
    powers = np.asarray(exponents, np.int64)
    exact = (np.abs(powers) <= _EXACT_POWER) & _up_to(mantissas, 2**53)
    unit = _FLOAT_POWERS[np.where(exact, np.abs(powers), 0)]
    whole = mantissas.astype(np.float64)
    result = np.asarray(np.where(powers < 0, whole / unit, whole * unit), np.float64)
    for row in np.flatnonzero(~exact).tolist():
        result[row] = float_of(int(mantissas[row]), int(exponents[row]))
    return result


def wh_of(reading: float, unit: str = "kWh") -> int:
    """
    Return a register value in whole watt-hours, half to even.

    Args:
        reading: As sent.
        unit: One of :data:`METER_UNITS`.

    Raises:
        KeyError: *unit* is none of them.
        ValueError: *reading* is not finite.

    Example:
        >>> wh_of(1250.7505), wh_of(1250.7515), wh_of(0.3, "MWh")
        (1250750, 1250752, 300000)
    """
    mantissa, exponent = decimal_of(reading)
    return quantum_of(mantissa, exponent + METER_UNITS[unit], 0)
