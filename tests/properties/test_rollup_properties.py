"""Rollups against an oracle that adds fractions and sorts lists."""

from collections import defaultdict
from fractions import Fraction
from math import ceil
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smartgrid_domain.maths.histograms import WIDTHS, bins_of, decoded, doubled_percentile, edges_to, encoded, grouped
from smartgrid_domain.maths.rollups import QUARTER_US, Rollups, fold, merge, quarters, regroup, subtract
from smartgrid_domain.maths.rollups import statistics as statistics_of

Reading = tuple[int, int, int]  # series, µs since 1970, quanta
SMALL = st.integers(-(10**6), 10**6)
VALUES = SMALL | st.integers(-(2**63), 2**63 - 1) | st.integers(10**15, 10**15 + 9) | st.integers(-(2**70), 2**70)
ROWS = st.one_of(
    [
        st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 3 * QUARTER_US), values), max_size=25)
        for values in (SMALL, VALUES, st.integers(10**15, 10**15 + 10**6))
    ]
)
WIDTH = st.sampled_from([0, 1, 100])


def _array(values: list[int]) -> Any:  # noqa: ANN401  # int64 or objects
    fits = all(-(2**63) <= value < 2**63 for value in values)
    result = np.empty(len(values), np.int64 if fits else object)
    result[:] = values
    return result


def _possible(values: list[int], width: int) -> list[int]:
    """Linear bins are of 64 bits; the 2 % table has no end."""
    return [max(-(2**63), min(value, 2**63 - 1)) for value in values] if width else values


def _fold(rows: list[Reading], width: int = 100) -> Rollups:
    values = _array(_possible([value for _, _, value in rows], width))
    return fold(
        np.array([series for series, _, _ in rows], np.int64),
        quarters(np.array([at for _, at, _ in rows], np.int64)),
        values,
        bins_of(values, width),
    )


def _listed(rollups: Rollups, *, extremes: bool = True) -> list[tuple[Any, ...]]:
    columns = [rollups.series, rollups.start_us, rollups.n, rollups.s, rollups.q]
    if extremes:
        columns += [rollups.low, rollups.high]
    return list(zip(*(column.tolist() for column in columns), encoded(rollups.histograms), strict=True))


def _bytes(rollups: Rollups) -> tuple[list[tuple[Any, ...]], list[str]]:
    return _listed(rollups), [str(column.dtype) for column in (rollups.s, rollups.q, rollups.low, rollups.high)]


def _oracle(rows: list[Reading], width: int) -> list[tuple[Any, ...]]:
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for series, at, value in rows:
        buckets[series, at // QUARTER_US * QUARTER_US] += _possible([value], width)
    return [
        (
            *key,
            len(values),
            sum(values),
            sum(value * value for value in values),
            min(values),
            max(values),
            sorted(int(bin_) for bin_ in bins_of(_array(values), width)),
        )
        for key, values in sorted(buckets.items())
    ]


@given(ROWS, WIDTH)
@example([(0, 0, -(2**63)), (0, 1, 2**63 - 1)], 0)
@example([(0, 0, 4 * 10**18), (0, 1, 4 * 10**18), (0, 2, 4 * 10**18)], 1)
def test_fold_equals_sums_of_whole_numbers(rows: list[Reading], width: int) -> None:
    rollups = _fold(rows, width)

    bins = [np.repeat(*rollups.histograms.of(row)).tolist() for row in range(len(rollups))]
    actual = [(*listed[:-1], own) for listed, own in zip(_listed(rollups), bins, strict=True)]
    assert actual == _oracle(rows, width)


@given(ROWS, WIDTH, st.randoms(use_true_random=False), st.integers(0, 25), st.integers(0, 25))
def test_any_order_and_any_split_give_the_same_bytes(
    rows: list[Reading],
    width: int,
    random: Random,
    one: int,
    other: int,
) -> None:
    expected = _bytes(_fold(rows, width))
    random.shuffle(rows)
    first, second = sorted((one, other))
    a, b, c = (_fold(part, width) for part in (rows[:first], rows[first:second], rows[second:]))

    assert _bytes(_fold(rows, width)) == expected
    assert _bytes(merge(a, b, c)) == expected
    assert _bytes(merge(merge(a, b), c)) == expected
    assert _bytes(merge(c, merge(b, a))) == expected


@given(ROWS, ROWS, WIDTH)
def test_what_is_taken_away_is_as_if_it_had_never_been(kept: list[Reading], gone: list[Reading], width: int) -> None:
    whole, part = merge(_fold(kept, width), _fold(gone, width)), _fold(gone, width)

    left, stale = subtract(whole, part)

    expected = _fold(kept, width)
    assert _listed(left, extremes=False) == _listed(expected, extremes=False)
    assert _listed(left.only(~stale)) == _listed(expected.only(~stale))


@given(ROWS, ROWS)
def test_more_than_was_added_cannot_be_taken_away(some: list[Reading], others: list[Reading]) -> None:
    whole, part = _fold(some), _fold([*some, *others, (7, 0, 1)])

    with pytest.raises(ValueError, match="never added"):
        subtract(whole, part)


@given(ROWS, WIDTH, st.sampled_from([4 * QUARTER_US, QUARTER_US + 7]))
def test_coarser_buckets_are_those_of_their_readings(rows: list[Reading], width: int, hour: int) -> None:
    rows = [(series, at // QUARTER_US * QUARTER_US, value) for series, at, value in rows]
    fine = _fold(rows, width)

    coarse = regroup(fine, series=fine.series // 2, start_us=fine.start_us // hour * hour)

    values = _array(_possible([value for _, _, value in rows], width))
    series = np.array([series // 2 for series, _, _ in rows], np.int64)
    start = np.array([at // hour * hour for _, at, _ in rows], np.int64)
    assert _bytes(coarse) == _bytes(fold(series, start, values, bins_of(values, width)))


@given(st.lists(SMALL | st.integers(240_000, 240_100), min_size=1, max_size=40), st.sampled_from([1, 100, 1000]))
@example([10**9 + 1, 10**9 + 8, 10**9 + 4], 1)
@example([240000000000001, 240000000000002, 240000000000004], 1000)
def test_statistics_are_the_nearest_floats_of_the_exact_fractions(values: list[int], scale: int) -> None:
    statistics = statistics_of(_fold([(0, 0, value) for value in values]), 0, scale=scale, width=100)

    exact = [Fraction(value, scale) for value in values]
    average = sum(exact) / len(exact)
    assert statistics.mean == float(average)
    assert (statistics.low, statistics.high) == (float(min(exact)), float(max(exact)))
    if len(values) == 1:
        assert (statistics.variance, statistics.stddev) == (None, None)
    else:
        assert statistics.variance == float(sum((x - average) ** 2 for x in exact) / (len(exact) - 1))


@given(st.lists(VALUES | st.integers(-300, 300), min_size=1, max_size=40), st.integers(0, 100), WIDTH)
def test_percentiles_are_within_half_a_bin(values: list[int], percent: int, width: int) -> None:
    values = _possible(values, width)
    histogram = grouped(np.zeros(len(values), np.int64), bins_of(_array(values), width), None, 1)

    doubled = doubled_percentile(*histogram.of(0), width, percent)

    truth = sorted(values)[max(1, ceil(Fraction(percent * len(values), 100))) - 1]
    half_bin = Fraction(width, 2) if width else Fraction(abs(truth), 100)
    assert abs(Fraction(doubled, 2) - truth) <= half_bin
    if width == 1 or (width == 0 and abs(truth) < 100):
        assert doubled == 2 * truth


@given(st.lists(VALUES, max_size=30), WIDTH)
def test_greater_values_never_have_a_lesser_bin(values: list[int], width: int) -> None:
    values = sorted(_possible(values, width))

    bins = bins_of(_array(values), width).tolist()

    assert bins == sorted(bins)
    assert bins == [int(bins_of(_array([value]), width)[0]) for value in values]


def test_bins_of_arrays_are_those_of_a_search_at_every_edge() -> None:
    near = [edge + step for edge in edges_to(2**63)[:-1] for step in (-1, 0, 1) if edge + step < 2**63]
    values = sorted({-(2**63), 2**63 - 1, 2**62, *near, *(-value for value in near), *range(-3000, 3000)})

    actual = bins_of(np.array(values, np.int64), 0).tolist()

    assert actual == bins_of(np.array(values, object), 0).tolist()


@given(st.lists(SMALL, max_size=30), st.lists(st.sampled_from(sorted(set(WIDTHS.values()))), min_size=30, max_size=30))
def test_each_value_may_have_its_own_width(values: list[int], widths: list[int]) -> None:
    actual = bins_of(_array(values), np.array(widths[: len(values)], np.int64)).tolist()

    assert actual == [int(bins_of(_array([v]), w)[0]) for v, w in zip(values, widths, strict=False)]


HISTOGRAM = st.dictionaries(st.integers(-(2**62), 2**62) | st.integers(-9, 9), st.integers(1, 2**40), max_size=9)


@given(st.lists(HISTOGRAM, max_size=5))
def test_histograms_at_rest_give_back_their_counts(each: list[dict[int, int]]) -> None:
    rows = [(owner, bin_, count) for owner, one in enumerate(each) for bin_, count in one.items()]
    columns = np.array(rows, np.int64).reshape(-1, 3)

    data = encoded(grouped(columns[:, 0], columns[:, 1], columns[:, 2], len(each)))

    actual = decoded(data)
    assert [dict(zip(*(c.tolist() for c in actual.of(i)), strict=True)) for i in range(len(each))] == [
        dict(sorted(one.items())) for one in each
    ]
    assert encoded(actual) == data


@given(st.lists(st.binary(max_size=12), max_size=4))
def test_bytes_that_are_no_histogram_are_refused_or_the_only_ones_of_theirs(each: list[bytes]) -> None:
    try:
        histograms = decoded(each)
    except ValueError:
        return

    assert encoded(histograms) == each


def test_a_histogram_cannot_hold_less_than_nothing() -> None:
    with pytest.raises(ValueError, match="less than nothing"):
        encoded(grouped(np.array([0]), np.array([3]), np.array([-1]), 1))


def test_edges_are_those_of_the_integer_recurrence() -> None:
    edge, edges = 1, [1]
    while edge < 10**15:
        edge += max(1, edge // 50)
        edges.append(edge)

    starts = bins_of(_array(edges), 0).tolist()
    before = bins_of(_array([edge - 1 for edge in edges]), 0).tolist()

    assert starts == list(range(1, len(edges) + 1))
    assert before == list(range(len(edges)))
