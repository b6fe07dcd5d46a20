"""Registers: nothing negative, nothing invented, and one result for any way the readings came."""

from fractions import Fraction
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from smartgrid_domain.maths.calendar import bounds, zone_of
from smartgrid_domain.maths.registers import (
    NOTHING,
    RESET_SUSPECTED,
    ROLLOVER,
    BeforeTheTail,
    Break,
    Folded,
    Readings,
    extend,
    fold,
    late,
)
from smartgrid_domain.maths.spreading import ESTIMATED_FROM_US, Intervals, bounds_around, spread

Row = tuple[int, int, int]  # µs since 1970, sequence number, Wh
MINUTE, HOUR = 60_000_000, 3_600_000_000
ROLLOVER_AT = 100
WH = st.integers(0, 100) | st.sampled_from([0, 1, 5, 9, 10, 11, 89, 90, 91, 99, 100])
# Small values behind a great one: held drops, and drops within them.
LOW = st.integers(0, 6) | st.sampled_from([0, 1, 2, 3, 30, 100])
ROWS = st.one_of(
    [
        st.lists(st.tuples(st.integers(0, 40), st.integers(-1, 1), wh), max_size=25, unique_by=lambda row: row[:2])
        for wh in (WH, LOW)
    ]
    + [st.lists(LOW, max_size=25).map(lambda values: [(2 * n, -1, wh) for n, wh in enumerate(values)])]
)
BREAKS = st.lists(
    st.builds(Break, at_us=st.integers(-1, 41), initial_wh=st.integers(0, 60), final_wh=st.integers(-1, 100)),
    max_size=3,
)
SETTINGS = st.fixed_dictionaries(
    {"rollover_at_wh": st.none() | st.just(ROLLOVER_AT), "nominal_w": st.none() | st.just(10.0 * HOUR)}
)


def _readings(rows: list[Row]) -> Readings:
    columns = np.array(rows, np.int64).reshape(-1, 3)
    return Readings(at_us=columns[:, 0], seq=columns[:, 1], wh=columns[:, 2], quality=np.zeros(len(rows), np.int8))


def _rows(folded: Folded) -> list[tuple[int, ...]]:
    readings = folded.readings
    columns = (readings.at_us, readings.seq, folded.delta_wh, folded.state, folded.quality, folded.too_fast)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _intervals(folded: Folded) -> list[tuple[int, ...]]:
    i = folded.intervals
    at = [*folded.readings.at_us.tolist(), -1]
    return list(
        zip(i.start_us.tolist(), i.end_us.tolist(), i.wh.tolist(), [at[r] for r in i.row.tolist()], strict=True)
    )


def _counted(good: int, wh: int, rollover: int | None) -> int | None:
    if wh >= good:
        return wh - good
    if rollover and Fraction(9, 10) * rollover <= good <= rollover and wh <= Fraction(1, 10) * rollover:
        return rollover - good + wh
    return None


def _segment(good: int, values: list[int], rollover: int | None) -> list[int | str]:
    """Δ of each value behind a good one, by looking ahead: ``held``, or ``restart`` where a new segment begins."""
    if not values:
        return []
    delta = _counted(good, values[0], rollover)
    if delta is not None:
        return [delta, *_segment(values[0], values[1:], rollover)]
    drop = 0
    for row in range(1, len(values)):
        if _counted(good, values[row], rollover) is not None:
            return ["held"] * row + _segment(good, values[row:], rollover)
        if values[row] < min(values[:row]):
            drop = row
        if row - drop == 3:
            return ["held"] * drop + ["restart", *_segment(values[drop], values[drop + 1 :], rollover)]
    return ["held"] * len(values)


def _oracle(rows: list[Row], breaks: list[Break], rollover: int | None) -> list[int]:
    """Return Δ of each reading in order."""
    rows = sorted(rows)
    result: list[int] = []
    good: int | None = None
    told = NOTHING
    for item in [*sorted(breaks), None]:
        values = [wh for at, _, wh in rows[len(result) :] if item is None or at < item.at_us]
        if good is None and values:
            good = values.pop(0)
            result.append(NOTHING)
        ends = [] if item is None or item.final_wh < 0 or good is None else [item.final_wh]
        outcome = [] if good is None else _segment(good, [*values, *ends], rollover)
        for step in outcome[: len(values)]:
            if step == "held":
                result.append(NOTHING)
                continue
            result.append(told if step == "restart" else int(step) + max(told, 0))
            told = NOTHING
        last = outcome[-1] if ends else NOTHING
        if item is not None:
            told = max(told, 0) + last if isinstance(last, int) and last != NOTHING else told
            good = item.initial_wh
    return result


@given(ROWS, BREAKS, st.sampled_from([None, ROLLOVER_AT]))
@example([(n, -1, wh) for n, wh in enumerate([100, 5, 7, 6, 8])], [], None)
@example([(n, -1, wh) for n, wh in enumerate([100, 5, 4, 6, 6, 8])], [], None)
@example([(n, -1, wh) for n, wh in enumerate([100, 5, 6, 4, 5, 6])], [], None)
@example([(n, -1, wh) for n, wh in enumerate([90, 50, 10])], [], ROLLOVER_AT)
def test_fold_follows_the_rules_reading_by_reading(rows: list[Row], breaks: list[Break], rollover: int | None) -> None:
    assert fold(_readings(rows), breaks, rollover_at_wh=rollover).delta_wh.tolist() == _oracle(rows, breaks, rollover)


@given(ROWS, BREAKS, SETTINGS)
def test_energy_is_never_negative_and_intervals_never_overlap(
    rows: list[Row], breaks: list[Break], settings: dict[str, float | None]
) -> None:
    folded = fold(_readings(rows), breaks, **settings)  # type: ignore[arg-type]  # a dictionary of both settings

    intervals = folded.intervals
    spans = list(zip(intervals.start_us.tolist(), intervals.end_us.tolist(), strict=True))
    assert all(wh >= 0 for wh in intervals.wh.tolist())
    assert all(delta >= NOTHING for delta in folded.delta_wh.tolist())
    assert all(start <= end for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert sum(intervals.wh[intervals.row >= 0].tolist()) == sum(d for d in folded.delta_wh.tolist() if d > 0)


@given(ROWS, BREAKS, SETTINGS, st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same(
    rows: list[Row], breaks: list[Break], settings: dict[str, float | None], random: Random
) -> None:
    expected = fold(_readings(rows), breaks, **settings)  # type: ignore[arg-type]  # as above

    random.shuffle(rows)
    random.shuffle(breaks)
    actual = fold(_readings(rows), breaks, **settings)  # type: ignore[arg-type]  # as above

    assert _rows(actual) == _rows(expected)
    assert _intervals(actual) == _intervals(expected)


@given(ROWS, BREAKS, SETTINGS, st.lists(st.integers(0, 41), max_size=4).map(sorted))
@example([(0, -1, 5), (2, -1, 9), (4, -1, 12)], [Break(at_us=2, initial_wh=8, final_wh=7)], {}, [3])
@example(
    [(n, -1, wh) for n, wh in enumerate([50, 9, 9, 9, 9, 11, 12])],
    [Break(at_us=1, initial_wh=30, final_wh=60)],
    {},
    [6],
)
@example(
    [(n, -1, wh) for n, wh in enumerate([50, 9, 9, 9, 9])], [Break(at_us=1, initial_wh=30, final_wh=60)], {}, [3, 4]
)
def test_going_on_from_a_tail_is_as_folding_all(
    rows: list[Row], breaks: list[Break], settings: dict[str, float | None], cuts: list[int]
) -> None:
    whole = fold(_readings(rows), breaks, **settings)  # type: ignore[arg-type]  # as above
    known: dict[tuple[int, ...], tuple[int, ...]] = {}
    spans: list[tuple[int, ...]] = []

    tail = fold(_readings([]), **settings).tail  # type: ignore[arg-type]  # as above
    for low, high in pairwise([-2, *cuts, 60]):
        new = [row for row in rows if low <= row[0] < high]
        base_us = tail.base[0] if tail.base else -2
        folded = extend(tail, _readings(new), [item for item in breaks if low <= item.at_us < high])
        known |= {row[:2]: row for row in _rows(folded)}
        spans = [span for span in spans if span[1] <= base_us and span[3] != -1] + _intervals(folded)
        tail = folded.tail

    assert sorted(known.values()) == _rows(whole)
    assert sorted(spans) == sorted(_intervals(whole))


@given(ROWS, st.integers(0, 40), WH)
def test_what_is_not_later_than_the_tail_is_refused(rows: list[Row], at: int, wh: int) -> None:
    tail = fold(_readings(rows)).tail
    assume(tail.base is not None and at <= tail.base[0])

    with pytest.raises(BeforeTheTail):
        extend(tail, _readings([(at, -1, wh)]))
    with pytest.raises(BeforeTheTail):
        extend(tail, _readings([]), [Break(at_us=at)])


@given(ROWS, st.integers(0, 24))
def test_one_instant_and_number_is_one_reading(rows: list[Row], again: int) -> None:
    assume(again < len(rows))

    with pytest.raises(ValueError, match="share"):
        fold(_readings([*rows, rows[again]]))


@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=30).map(sorted))
def test_a_register_that_only_rises_counts_its_difference(values: list[int]) -> None:
    folded = fold(_readings([(n * HOUR, -1, wh) for n, wh in enumerate(values)]))

    assert sum(folded.intervals.wh.tolist()) == values[-1] - values[0]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_rollovers_are_counted_whole(steps: list[int]) -> None:
    counter = np.cumsum([0, *steps])

    folded = fold(_readings([(n, -1, wh % ROLLOVER_AT) for n, wh in enumerate(counter.tolist())]), rollover_at_wh=100)

    assert sum(folded.intervals.wh.tolist()) == int(counter[-1])
    assert np.count_nonzero(folded.state == ROLLOVER) == counter[-1] // ROLLOVER_AT


@given(ROWS, st.integers(0, 40), st.integers(-1, 1), WH)
def test_a_late_reading_leaves_the_register_difference(rows: list[Row], at: int, seq: int, wh: int) -> None:
    rows = [(at_us, number, index) for index, (at_us, number, _) in enumerate(sorted(rows))]
    assume(len(rows) > 1 and (at, seq) not in [row[:2] for row in rows] and rows[0][:2] < (at, seq) < rows[-1][:2])
    low = max(row for row in rows if row[:2] < (at, seq))[2]
    high = min(row for row in rows if row[:2] > (at, seq))[2]

    folded = fold(_readings([*rows, (at, seq, low + wh % (high - low + 1))]))

    assert sum(folded.intervals.wh.tolist()) == rows[-1][2] - rows[0][2]
    assert not (folded.state == RESET_SUSPECTED).any()


@given(st.lists(st.integers(0, 30), max_size=12, unique=True))
def test_late_is_what_came_after_something_later(arrival: list[int]) -> None:
    expected = [any(other < own for other in arrival[row + 1 :]) for row, own in enumerate(arrival)]

    assert late(np.array(arrival, np.int64)).tolist() == expected


@st.composite
def intervals(draw: st.DrawFn) -> Intervals:
    unit = draw(st.sampled_from([1, MINUTE, 900_000_000]))
    at = draw(st.integers(-50, 50)) * unit
    rows: list[tuple[int, int, int]] = []
    for _ in range(draw(st.integers(0, 12))):
        at += draw(st.just(0) | st.integers(0, 40)) * unit
        end = at + draw(st.just(0) | st.integers(0, 200)) * unit
        rows.append((at, end, draw(st.integers(0, 2000) | st.integers(0, 10**17))))
        at = end
    columns = np.array(rows, np.int64).reshape(-1, 3)
    return Intervals(
        start_us=columns[:, 0], end_us=columns[:, 1], wh=columns[:, 2], row=np.arange(len(rows), dtype=np.int64)
    )


def _share(start: int, end: int, wh: int, bound: int) -> int:
    if bound <= start:
        return 0
    return wh if bound >= end else int(Fraction(wh * (bound - start), end - start))


@given(intervals(), st.lists(st.integers(-60, 3000), max_size=12), st.sampled_from([1, MINUTE, 900_000_000]))
def test_spreading_is_the_formula_for_any_cuts(given_: Intervals, cuts: list[int], unit: int) -> None:
    edges = sorted(cut * unit for cut in cuts)

    actual = spread(given_, np.array(edges, np.int64))

    rows = list(zip(given_.start_us.tolist(), given_.end_us.tolist(), given_.wh.tolist(), strict=True))
    for bucket, (low, high) in enumerate(pairwise(edges)):
        shares = [(_share(*row, high) - _share(*row, low), row[1] - row[0] > ESTIMATED_FROM_US) for row in rows]
        assert actual.wh[bucket] == sum(share for share, _ in shares)
        assert actual.estimated_wh[bucket] == sum(share for share, estimated in shares if estimated)
        assert actual.covered_us[bucket] == sum(max(0, min(high, end) - max(low, start)) for start, end, _ in rows)


@given(
    intervals(),
    st.sampled_from(["Europe/Tirane", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    st.sampled_from([MINUTE, 900_000_000, HOUR]),
    st.integers(0, 1700) | st.just(1711839600 // 86400) | st.just(1729983600 // 86400),
)
def test_spreading_conserves_watt_hours_in_any_zone(given_: Intervals, name: str, step: int, day: int) -> None:
    shift = day * 24 * HOUR
    moved = Intervals(start_us=given_.start_us + shift, end_us=given_.end_us + shift, wh=given_.wh, row=given_.row)
    assume(len(moved) > 0)
    first, last = int(moved.start_us[0]), int(moved.end_us[-1]) + 1
    zone = zone_of(name)

    fine = spread(moved, bounds_around(moved, step))
    hours = bounds(first, last, "1h", zone)
    days = bounds(first, last, "1d", zone)
    hourly, daily = spread(moved, hours), spread(moved, days)

    assert sum(fine.wh.tolist()) == sum(hourly.wh.tolist()) == sum(daily.wh.tolist()) == sum(moved.wh.tolist())
    assert min(fine.wh.min(), hourly.wh.min(), daily.wh.min()) >= 0
    day_of = np.searchsorted(days, hours[:-1], side="right") - 1
    sums = np.zeros(len(daily.wh), np.int64)
    np.add.at(sums, day_of, hourly.wh)
    assert (sums == daily.wh)[1:-1].all()


@given(intervals())
def test_a_spread_without_bounds_or_intervals_is_empty(given_: Intervals) -> None:
    assert len(spread(given_, np.zeros(0, np.int64)).wh) == 0
    assert len(bounds_around(given_, HOUR)) == 0 or len(given_) > 0
