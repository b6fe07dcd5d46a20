"""The states of a register, one row of the rules at a time."""

import numpy as np
import pytest

from smartgrid_domain.maths.quantities import QUALITIES
from smartgrid_domain.maths.registers import NOTHING, STATES, Break, Folded, Readings, extend, fold, no_readings
from smartgrid_domain.maths.spreading import spread

HOUR = 3_600_000_000
Outcome = list[tuple[str, int | None]]


def _readings(*values: int, first: int = 0) -> Readings:
    count = len(values)
    return Readings(
        at_us=(first + np.arange(count, dtype=np.int64)) * HOUR,
        seq=np.full(count, -1, np.int64),
        wh=np.array(values, np.int64),
        quality=np.zeros(count, np.int8),
    )


def _outcome(folded: Folded) -> Outcome:
    return [
        (STATES[state], None if delta == NOTHING else delta)
        for state, delta in zip(folded.state.tolist(), folded.delta_wh.tolist(), strict=True)
    ]


def _spans(folded: Folded) -> list[tuple[float, float, int, int]]:
    i = folded.intervals
    columns = (i.start_us / HOUR, i.end_us / HOUR, i.wh, i.row)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([7], [("first", None)]),
        ([7, 7, 9], [("first", None), ("normal", 0), ("normal", 2)]),
        ([900, 100], [("first", None), ("rollover", 200)]),
        ([1000, 0], [("first", None), ("rollover", 0)]),
        ([899, 100], [("first", None), ("reset_suspected", None)]),
        ([900, 101], [("first", None), ("reset_suspected", None)]),
        ([1001, 5], [("first", None), ("reset_suspected", None)]),
        # back at or above the last good one: the drop was a bad reading
        ([50, 3, 50, 60], [("first", None), ("reset_suspected", None), ("normal", 0), ("normal", 10)]),
        ([50, 3, 4, 5, 55], [("first", None), *[("reset_suspected", None)] * 3, ("normal", 5)]),
        # three in a row at or above it: a new segment begins at the drop
        ([50, 3, 3, 5, 9], [("first", None), ("reset_suspected", None), ("normal", 0), ("normal", 2), ("normal", 4)]),
        # a lower one in between begins to count again
        ([50, 5, 6, 4, 5, 6], [("first", None), *[("reset_suspected", None)] * 5]),
        # a bad reading between a register that is nearly full and its rollover
        ([950, 500, 20], [("first", None), ("reset_suspected", None), ("rollover", 70)]),
        # within the new segment the rules begin anew
        (
            [50, 1, 9, 5, 7],
            [("first", None), ("reset_suspected", None), ("normal", 8), *[("reset_suspected", None)] * 2],
        ),
    ],
)
def test_a_register_is_counted_by_the_rules(values: list[int], expected: Outcome) -> None:
    assert _outcome(fold(_readings(*values), rollover_at_wh=1000)) == expected


def test_a_drop_without_a_known_rollover_is_suspected() -> None:
    assert _outcome(fold(_readings(950, 20)))[1] == ("reset_suspected", None)


def test_a_held_reading_is_suspect() -> None:
    folded = fold(_readings(50, 3, 60))

    assert folded.quality.tolist() == [0, QUALITIES["suspect"], 0]


def test_an_exchange_counts_up_to_the_old_device_and_from_the_new_one() -> None:
    folded = fold(_readings(100, 110, 7, 9), [Break(at_us=3 * HOUR // 2, initial_wh=5, final_wh=112)])

    assert _outcome(folded) == [("first", None), ("normal", 10), ("exchanged", 4), ("normal", 2)]
    assert _spans(folded) == [(0, 1, 10, 1), (1, 1.5, 2, 2), (1.5, 2, 2, 2), (2, 3, 2, 3)]


def test_at_the_instant_of_an_exchange_the_new_device_counts() -> None:
    folded = fold(_readings(100, 7), [Break(at_us=HOUR, initial_wh=7, final_wh=101)])

    assert _outcome(folded) == [("first", None), ("exchanged", 1)]
    assert _spans(folded) == [(0, 1, 1, 1), (1, 1, 0, 1)]


def test_what_an_exchange_tells_counts_before_the_next_reading() -> None:
    folded = fold(_readings(100), [Break(at_us=HOUR, initial_wh=0, final_wh=120)])

    assert _outcome(folded) == [("first", None)]
    assert _spans(folded) == [(0, 1, 20, -1)]
    assert _outcome(extend(folded.tail, _readings(5, first=2))) == [("exchanged", 25)]


def test_a_final_value_below_the_last_reading_is_held() -> None:
    folded = fold(_readings(100, 7), [Break(at_us=HOUR // 2, initial_wh=5, final_wh=90)])

    assert _outcome(folded) == [("first", None), ("exchanged", 2)]


def test_a_final_value_may_decide_a_drop() -> None:
    folded = fold(_readings(100, 3, 4, 5), [Break(at_us=4 * HOUR, initial_wh=0, final_wh=9)])

    assert _outcome(folded) == [("first", None), ("reset_suspected", None), ("normal", 1), ("normal", 1)]
    assert _spans(folded)[-1] == (3, 4, 4, -1)


def test_a_new_segment_behind_an_exchange_keeps_what_the_exchange_told() -> None:
    folded = fold(_readings(100, 3, 4, 5, 6), [Break(at_us=HOUR, initial_wh=10, final_wh=130)])

    assert _outcome(folded) == [
        ("first", None),
        ("reset_suspected", 30),
        ("normal", 1),
        ("normal", 1),
        ("normal", 1),
    ]


def test_a_recorded_reset_counts_from_nothing() -> None:
    folded = fold(_readings(100, 3, 4), [Break(at_us=HOUR // 2)])

    assert _outcome(folded) == [("first", None), ("exchanged", 3), ("normal", 1)]
    assert _spans(folded) == [(0.5, 1, 3, 1), (1, 2, 1, 2)]


def test_an_exchange_before_any_reading_gives_the_first_one_something_to_count_from() -> None:
    assert _outcome(fold(_readings(9), [Break(at_us=-HOUR, initial_wh=2, final_wh=50)])) == [("exchanged", 7)]


def test_more_than_the_connection_can_carry_is_counted_and_suspect() -> None:
    folded = fold(_readings(0, 5000, 10_001), nominal_w=5000.0)

    assert folded.too_fast.tolist() == [False, False, True]
    assert folded.quality.tolist() == [0, 0, QUALITIES["suspect"]]
    assert folded.delta_wh.tolist() == [NOTHING, 5000, 5001]


def test_two_readings_of_one_instant_count_in_the_bucket_that_begins_there() -> None:
    readings = Readings(
        at_us=np.array([0, HOUR, HOUR]),
        seq=np.array([0, 0, 1]),
        wh=np.array([0, 4, 10]),
        quality=np.zeros(3, np.int8),
    )

    assert spread(fold(readings).intervals, np.array([0, HOUR, 2 * HOUR])).wh.tolist() == [4, 6]


def test_no_readings_count_nothing() -> None:
    folded = fold(no_readings())

    assert len(folded.intervals) == 0
    assert folded.tail.base is None
