"""Values stay exact from the float that was sent to the quantum."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from smartgrid_domain.maths.quantities import (
    MEASURANDS,
    METER_UNITS,
    QUALITIES,
    QUALITY_NAMES,
    convert,
    converts,
    decimal_of,
    decimals_of,
    float_of,
    floats_of,
    normal,
    normals,
    quanta,
    quantum_of,
    same,
    wh_of,
    within,
    withins,
)

SENT = st.floats(allow_nan=False, allow_infinity=False) | st.decimals(-(10**9), 10**9, places=3).map(float)
MANTISSAS = st.integers(-(2**63), 2**63 - 1) | st.integers(-999, 999) | st.sampled_from([5, 15, 25, -5, 5 * 10**18])
EXPONENTS = st.integers(-330, 310) | st.integers(-20, 6)
PAIRS = st.lists(st.tuples(MANTISSAS, EXPONENTS), max_size=12)
Columns = tuple[NDArray[np.int64], NDArray[np.int16]]


def _columns(pairs: list[tuple[int, int]]) -> Columns:
    return np.array([m for m, _ in pairs], np.int64), np.array([e for _, e in pairs], np.int16)


def _pairs(columns: tuple[NDArray[Any], NDArray[Any]]) -> list[tuple[int, int]]:
    return list(zip(columns[0].tolist(), columns[1].tolist(), strict=True))


def _fraction(mantissa: int, exponent: int) -> Fraction:
    return Fraction(mantissa) * Fraction(10) ** exponent


@given(SENT)
@example(5e-324)
@example(1.7976931348623157e308)
@example(1e16)
@example(123456789012345680.0)
def test_decimal_is_the_one_that_repr_prints(value: float) -> None:
    mantissa, exponent = decimal_of(value)

    assert _fraction(mantissa, exponent) == Fraction(Decimal(repr(value)))
    assert (mantissa, exponent) == normal(mantissa, exponent)
    assert float_of(mantissa, exponent) == value
    assert abs(mantissa) < 10**17


@given(st.lists(SENT, max_size=30))
@example([0.1 + 0.2, 1e22, 1e23, 999999999999999.0, 9007199254740993.0, 5e-324, -0.0])
def test_decimals_of_an_array_are_those_of_each_value(values: list[float]) -> None:
    assert _pairs(decimals_of(np.array(values, np.float64))) == [decimal_of(value) for value in values]


def test_decimals_of_a_million_times_two_places_agree_with_repr() -> None:
    values = np.round(np.random.default_rng(7).normal(240, 30, 20_000), 2)

    assert _pairs(decimals_of(values)) == [decimal_of(value) for value in values.tolist()]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_what_is_not_finite_has_no_decimal(value: float) -> None:
    with pytest.raises(ValueError, match=r"finite|beyond"):
        decimal_of(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_array_that_is_not_finite_has_no_decimals(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        decimals_of(np.array([1.0, value]))


@given(PAIRS)
def test_normal_arrays_agree_with_single_values(pairs: list[tuple[int, int]]) -> None:
    columns = _columns(pairs)

    assert _pairs(normals(*columns)) == [normal(m, e) for m, e in pairs]
    assert _pairs(columns) == pairs


@given(PAIRS, st.integers(-25, 25))
def test_quanta_are_half_even_of_the_exact_value(pairs: list[tuple[int, int]], quantum: int) -> None:
    expected = [round(_fraction(m, e - quantum)) for m, e in pairs]

    assert [quantum_of(m, e, quantum) for m, e in pairs] == expected
    assert quanta(*_columns(pairs), quantum).tolist() == expected


@given(st.lists(st.tuples(MANTISSAS, st.integers(-6, 3), st.integers(-4, 2)), max_size=12))
def test_quanta_may_differ_by_value(rows: list[tuple[int, int, int]]) -> None:
    mantissas, exponents = _columns([(m, e) for m, e, _ in rows])

    actual = quanta(mantissas, exponents, np.array([q for _, _, q in rows], np.int64)).tolist()

    assert actual == [quantum_of(m, e, q) for m, e, q in rows]


def test_quanta_of_possible_values_are_int64() -> None:
    for measurand in MEASURANDS.values():
        bounds = np.array([measurand.low, measurand.high], np.int64)

        assert quanta(bounds, np.zeros(2, np.int16), measurand.quantum_exponent).dtype == np.int64


@given(PAIRS)
@example([(2**53 + 1, 0), (1, 23), (9, -324), (-(2**63), 3)])
def test_floats_are_correctly_rounded(pairs: list[tuple[int, int]]) -> None:
    assert floats_of(*_columns(pairs)).tolist() == [float(f"{m}e{e}") for m, e in pairs]


@given(SENT, st.sampled_from([-3, 0, 3, 6]))
def test_conversion_shifts_the_exact_value(value: float, shift: int) -> None:
    sent = decimal_of(value)

    converted = convert(*sent, shift)

    assert _fraction(*converted) == _fraction(*sent) * Fraction(10) ** shift
    assert _pairs(converts(*_columns([sent]), shift)) == [converted]


@given(SENT, SENT)
def test_same_compares_exact_values(one: float, other: float) -> None:
    assert same(*decimal_of(one), *decimal_of(other)) == (one == other)
    mantissa, exponent = decimal_of(one)
    assert same(mantissa, exponent, mantissa * 1000, exponent - 3)


@given(PAIRS, st.sampled_from(list(MEASURANDS.values())))
@example([(1_500_000, 0), (15000000000000001, -10), (14999999999999999, -10)], MEASURANDS["voltage"])
def test_range_is_checked_on_the_exact_value(pairs: list[tuple[int, int]], measurand: Any) -> None:  # noqa: ANN401  # pytest shows it
    expected = [measurand.low <= _fraction(m, e) <= measurand.high for m, e in pairs]

    assert [within(m, e, measurand.low, measurand.high) for m, e in pairs] == expected
    assert withins(*_columns(pairs), measurand.low, measurand.high).tolist() == expected


def test_units_are_those_of_the_contract() -> None:
    expected = {
        "voltage": ["V", "mV", "kV"],
        "current": ["A", "mA", "kA"],
        "power": ["W", "kW", "MW"],
        "reactive_power": ["var", "kvar", "Mvar"],
        "energy": ["Wh", "kWh", "MWh"],
        "frequency": ["Hz", "mHz"],
        "power_factor": ["1"],
        "temperature": ["Cel"],
    }

    assert {name: list(m.units) for name, m in MEASURANDS.items()} == expected
    assert all(m.units[m.unit] == 0 for m in MEASURANDS.values())
    assert {name: m.scale for name, m in MEASURANDS.items()} == {
        "voltage": 1000,
        "current": 1000,
        "power": 1,
        "reactive_power": 1,
        "energy": 1,
        "frequency": 1000,
        "power_factor": 10000,
        "temperature": 100,
    }
    assert [QUALITIES[name] for name in QUALITY_NAMES] == [0, 1, 2, 3, 4]


@given(st.decimals(0, 10**6, places=4).map(float), st.sampled_from(list(METER_UNITS)))
def test_register_in_watt_hours_is_half_even(reading: float, unit: str) -> None:
    assert wh_of(reading, unit) == round(Fraction(Decimal(repr(reading))) * 10 ** METER_UNITS[unit])
