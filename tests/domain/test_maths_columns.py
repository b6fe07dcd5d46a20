"""Columns give back what went in, and never anything else."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from smartgrid_domain.maths.columns import (
    MOST_VALUES,
    DamagedColumn,
    Rows,
    decode_ints,
    encode_ints,
    pack_meter_readings,
    pack_readings,
    rows_of,
    unpack,
)
from smartgrid_domain.maths.quantities import decimals_of
from smartgrid_domain.maths.zstd import NotAFrame, squeeze, unsqueeze
from smartgrid_schemas.metering import RegisterKey
from smartgrid_schemas.telemetry import Corrects, SeriesKey

INT64 = st.integers(-(2**63), 2**63 - 1)
SMALL = st.integers(-300, 300)


@st.composite
def columns(draw: st.DrawFn) -> NDArray[np.int64]:
    kind = draw(st.sampled_from(["any", "small", "walk", "stride", "grid"]))
    if kind == "any":
        return np.array(draw(st.lists(INT64, max_size=40)), np.int64)
    if kind == "small":
        return np.array(draw(st.lists(SMALL, max_size=300)), np.int64)
    if kind == "walk":
        return np.cumsum(np.array(draw(st.lists(SMALL, min_size=1, max_size=300)), np.int64)) + draw(SMALL)
    first, step, count = draw(INT64), draw(INT64), draw(st.integers(0, 200))
    if kind == "stride":
        return np.array([(first + step * row + 2**63) % 2**64 - 2**63 for row in range(count)], np.int64)
    step = draw(st.integers(1, 10**9))
    return np.array(draw(st.lists(SMALL, max_size=200)), np.int64) * step


@given(columns())
@example(np.array([-(2**63), 2**63 - 1, -(2**63), 0], np.int64))
@example(np.array([2**63 - 1] * 3 + [-(2**63)], np.int64))
def test_a_column_gives_back_its_values(values: NDArray[np.int64]) -> None:
    data = encode_ints(values)

    assert decode_ints(data, len(values)).tolist() == values.tolist()
    assert len(data) <= 8 * len(values) + 32


@given(columns(), st.data())
def test_flipped_bytes_are_noticed(values: NDArray[np.int64], data: st.DataObject) -> None:
    damaged = bytearray(encode_ints(values))
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises(DamagedColumn):
        decode_ints(bytes(damaged), len(values))


@given(columns(), st.data())
def test_truncated_or_longer_bytes_are_noticed(values: NDArray[np.int64], data: st.DataObject) -> None:
    whole = encode_ints(values)
    cut = data.draw(st.integers(0, len(whole) - 1))

    with pytest.raises(DamagedColumn):
        decode_ints(whole[:cut], len(values))
    with pytest.raises(DamagedColumn):
        decode_ints(whole + whole[cut:], len(values))


@given(columns(), st.integers(-2, MOST_VALUES + 2))
def test_another_count_is_noticed(values: NDArray[np.int64], count: int) -> None:
    data = encode_ints(values)
    if count == len(values):
        count += 1

    with pytest.raises(DamagedColumn):
        decode_ints(data, count)


@given(st.binary(max_size=60), st.integers(0, 5000))
def test_whatever_has_a_right_check_sum_is_bounded_or_damaged(body: bytes, count: int) -> None:
    try:
        values = decode_ints(_closed(body, count), count)
    except DamagedColumn:
        return

    assert len(values) == count


@pytest.mark.parametrize("size", [1 << 30, 401])
def test_a_decompression_bomb_is_damage(size: int) -> None:
    bomb = squeeze(bytes(size)) if size < 1 << 20 else b"\xa0" + size.to_bytes(4, "little") + b"\x01\x00\x00"

    with pytest.raises(DamagedColumn):
        decode_ints(_closed(bytes((0b1000, 0, 1)) + bomb, 400), 400)
    with pytest.raises(NotAFrame):
        unsqueeze(bomb, 400)


def _closed(body: bytes, count: int) -> bytes:
    import zlib  # noqa: PLC0415  # only a forger needs it

    return body + zlib.crc32(body, count).to_bytes(4, "little")


def test_too_many_values_are_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        encode_ints(np.zeros(MOST_VALUES + 1, np.int64))


@st.composite
def packed(draw: st.DrawFn) -> tuple[list[SeriesKey], Rows]:
    runs = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    count = sum(runs)

    def some(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    sent = st.floats(allow_nan=False, allow_infinity=False) | st.decimals(-999, 999, places=2).map(float)
    mantissas, exponents = decimals_of(np.array(some(sent)))
    rows = st.lists(st.integers(0, count - 1), unique=True, max_size=3).map(sorted)
    requests = draw(st.lists(st.text(max_size=5), max_size=3))
    return [SeriesKey(f"s{n}", "voltage", None, "V") for n in range(len(runs))], rows_of(
        np.repeat(np.arange(len(runs)), runs),
        some(st.integers(0, 4 * 10**15)),
        mantissas,
        exponents,
        quality=draw(st.none() | st.just(some(st.integers(0, 4)))),
        seq=draw(st.none() | st.just(some(st.integers(-1, 2**53 - 1)))),
        corrects=[Corrects(row, bytes(16), "why") for row in draw(rows)],
        metadata=[(row, {"fw": "1.2", "n": 3}) for row in draw(rows)],
        requests=requests,
        request_of=some(st.integers(0, len(requests) - 1)) if requests else None,
    )


def _listed(rows: Rows) -> list[list[Any]]:
    arrays: list[NDArray[Any]] = [
        rows.series_index,
        rows.measured_at_us,
        rows.mantissa,
        rows.exponent,
        rows.quality,
        rows.seq,
        rows.request_of,
    ]
    return [*(array.tolist() for array in arrays), list(rows.corrects), list(rows.metadata), list(rows.requests)]


@given(packed())
def test_an_event_gives_back_its_rows(case: tuple[list[SeriesKey], Rows]) -> None:
    series, rows = case

    event = pack_readings(3, series, rows)
    meters = pack_meter_readings(3, [RegisterKey("m", "1.8.0", "kWh")] * len(series), rows)

    assert _listed(unpack(event)) == _listed(rows)
    assert _listed(unpack(meters)) == _listed(rows)
    assert event.count == len(rows) == sum(event.runs)


@given(packed())
def test_values_that_are_not_made_normal_are_the_same(case: tuple[list[SeriesKey], Rows]) -> None:
    series, rows = case

    loose = unpack(pack_readings(0, series, rows), normal=False)

    for m, e, other_m, other_e in zip(
        rows.mantissa.tolist(), rows.exponent.tolist(), loose.mantissa.tolist(), loose.exponent.tolist(), strict=True
    ):
        assert m * 10 ** (e + 400) == other_m * 10 ** (other_e + 400)


@given(packed(), st.data())
def test_damage_anywhere_in_an_event_is_typed(case: tuple[list[SeriesKey], Rows], data: st.DataObject) -> None:
    event = pack_readings(3, *case)
    raw = bytearray(msgspec.msgpack.encode(event))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))

    try:
        damaged = msgspec.msgpack.decode(bytes(raw), type=type(event))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    try:
        rows = unpack(damaged)
    except DamagedColumn:
        return

    assert rows.measured_at_us.tolist() == case[1].measured_at_us.tolist()
    assert rows.mantissa.tolist() == case[1].mantissa.tolist()


SERIES = [SeriesKey("a", "voltage", None, "V"), SeriesKey("b", "voltage", None, "V")]
EVENT = pack_readings(0, SERIES, rows_of([0, 0, 1], [0, 1, 0], [1, 2, 3], [0, 0, 0]))


CONTRADICTIONS: list[dict[str, Any]] = [
    {"count": 4},
    {"count": 0, "runs": [], "series": []},
    {"runs": [2, 1, 0]},
    {"runs": [4, -1]},
    {"series": SERIES[:1]},
    {"qualities": encode_ints(np.array([0, 5, 0]))},
    {"seqs": encode_ints(np.array([0, -2, 0]))},
    {"exponents": encode_ints(np.array([0, 500, 0]))},
    {"requests": ["x"]},
    {"requests": ["x"], "request_of": encode_ints(np.array([0, 0, 1]))},
    {"request_of": encode_ints(np.array([0, 0, 0]))},
    {"corrects": [Corrects(3, bytes(16), "why")]},
    {"corrects": [Corrects(1, bytes(16), "why"), Corrects(1, bytes(16), "why")]},
    {"metadata": [(-1, {"fw": 1})]},
]


@pytest.mark.parametrize("changes", CONTRADICTIONS)
def test_an_event_that_contradicts_itself_is_damaged(changes: dict[str, Any]) -> None:
    with pytest.raises(DamagedColumn):
        unpack(msgspec.structs.replace(EVENT, **changes))


@pytest.mark.parametrize("index", [[1, 1, 0], [0, 0, 0], [0, 0, 2], [1, 1, 1], []])
def test_rows_are_sorted_by_series(index: list[int]) -> None:
    count = len(index)

    with pytest.raises(ValueError, match=r"sorted|holds"):
        pack_readings(0, SERIES, rows_of(index, [0] * count, [1] * count, [0] * count))


def test_a_hundred_minutes_of_voltage_take_less_than_three_bytes_each() -> None:
    values = np.round(240 + np.cumsum(np.random.default_rng(1).normal(0, 0.3, 100)), 2)
    times = 1_700_000_000_000_000 + np.arange(100) * 60_000_000

    event = pack_readings(3, SERIES[:1], rows_of(np.zeros(100, np.int64), times, *decimals_of(values)))

    assert len(msgspec.msgpack.encode(event)) < 300
