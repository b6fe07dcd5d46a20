"""Each checker finds what it is for, and is silent about a sound history."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from msgspec.structs import replace
from tests.kit import checkers
from tests.kit.checkers import Trace, Violated
from tests.kit.history import Answer, Fact, History, fact_of

from smartgrid_domain.maths.columns import pack_readings, rows_of
from smartgrid_domain.maths.quantities import decimal_of
from smartgrid_domain.readings import SensorReading
from smartgrid_schemas.envelope import Metadata, Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.telemetry import Corrects, ReadingRetracted, SeriesKey

pytestmark = pytest.mark.faults

START = datetime(2026, 1, 15, tzinfo=UTC)
START_US = int(START.timestamp()) * 1_000_000
SERIES = [SeriesKey("s1", "voltage", None, "V")]
BUCKET = ("s1", "voltage", "-", START_US)


def reading(second: int, value: float = 230.5) -> SensorReading:
    at = (START + timedelta(seconds=second)).isoformat()
    return SensorReading(sensor_id="s1", sensor_type="voltage", value=value, timestamp=at)


def event(seconds: Sequence[int], value: float = 230.5, replaces: bytes | None = None) -> Event:
    mantissa, exponent = decimal_of(value)
    n = len(seconds)
    rows = rows_of(
        [0] * n,
        [START_US + second * 1_000_000 for second in seconds],
        [mantissa] * n,
        [exponent] * n,
        corrects=[] if replaces is None else [Corrects(0, replaces, "why")],
    )
    return pack_readings(0, SERIES, rows)


def log_of(*events: Event) -> list[Recorded[Event]]:
    return [
        Recorded(
            log="telemetry",
            position=number,
            stream="readings:0",
            version=number,
            event_id=UUID(int=number),
            recorded_at=START + timedelta(seconds=number),
            metadata=Metadata(),
            event=one,
        )
        for number, one in enumerate(events, 1)
    ]


def sent(*seconds: int, states: Sequence[str] | None = None, atomic: bool = False) -> History:
    history = History()
    request = history.send([fact_of(reading(second)) for second in seconds], atomic=atomic)
    if states is not None:
        request.answers.append(Answer(states=tuple(states)))
    return history


def violated(invariant: str) -> "pytest.RaisesExc[Violated]":
    return pytest.raises(Violated, match=f"^{invariant}:")


def test_a_sound_history_passes() -> None:
    history, log = sent(1, 2, states=["accepted", "duplicate"]), log_of(event([1, 2]))

    checkers.no_lost_ack(history, log)
    checkers.no_phantom(history, log)
    checkers.one_effect(history, log, {BUCKET: (2, 461_000)})
    checkers.in_order(log)


def test_what_was_answered_and_is_not_there_is_lost() -> None:
    with violated("I1"):
        checkers.no_lost_ack(sent(1, 2, states=["accepted", "accepted"]), log_of(event([1])))


def test_what_was_answered_and_is_there_with_another_value_is_lost() -> None:
    with violated("I1"):
        checkers.no_lost_ack(sent(1, states=["accepted"]), log_of(event([1], 231.0)))


def test_what_was_refused_need_not_be_there() -> None:
    checkers.no_lost_ack(sent(1, states=["reading_conflict"]), log_of(event([1], 231.0)))


def test_what_nobody_sent_is_a_phantom() -> None:
    with violated("I2"):
        checkers.no_phantom(sent(1), log_of(event([1]), event([2])))


def test_what_is_stored_twice_is_a_phantom() -> None:
    with violated("I2"):
        checkers.no_phantom(sent(1), log_of(event([1]), event([1])))


def test_half_of_an_atomic_request_is_a_phantom() -> None:
    checkers.no_phantom(sent(1, 2), log_of(event([1])))
    with violated("I2"):
        checkers.no_phantom(sent(1, 2, atomic=True), log_of(event([1])))


def test_two_answers_of_one_key_are_two_effects() -> None:
    history = History()
    request = history.send([Fact(("name", "s1", "a"))], key="k")
    request.answers += [Answer(states=("accepted",), first=1, last=1), Answer(states=("accepted",), first=2, last=2)]

    with violated("I3"):
        checkers.one_effect(history, [], None)


@pytest.mark.parametrize("counted", [{BUCKET: (3, 691_500)}, {BUCKET: (2, 461_001)}, {}])
def test_a_bucket_that_counts_otherwise_than_the_log_is_found(
    counted: dict[tuple[str, str, str, int], tuple[int, int]],
) -> None:
    with violated("I3"):
        checkers.one_effect(sent(1, 2), log_of(event([1, 2])), counted)


def test_corrected_and_retracted_readings_count_as_the_book_says() -> None:
    retracted = ReadingRetracted(
        event_id="x", sensor_id="s1", sensor_type="voltage", measured_at=START + timedelta(seconds=2), reason="r"
    )
    log = log_of(event([1, 2]), event([1], 231.0, b"1" * 16), retracted)

    assert checkers.count_readings(log) == {BUCKET: (1, 231_000)}
    assert checkers.count_readings(log_of(*(r.event for r in log), event([2], 1.0, b"2" * 16))) == {
        BUCKET: (2, 232_000)
    }


def test_gaps_and_repeats_are_out_of_order() -> None:
    log = log_of(event([1]), event([2]), event([3]))
    broken = [
        [log[0], log[2]],
        [log[0], log[0]],
        [log[0], replace(log[1], version=1)],
        [log[0], replace(log[1], version=3)],
        [log[0], replace(log[1], recorded_at=START)],
    ]

    checkers.in_order(log)
    for one in broken:
        with violated("I4"):
            checkers.in_order(one)


def test_a_checkpoint_that_goes_back_is_found() -> None:
    claims = [Trace("a", 1, {"t": 0}, claimed=True), Trace("a", 1, {"t": 5}), Trace("a", 2, {"t": 5}, claimed=True)]

    checkers.never_back(claims)
    with violated("I5"):
        checkers.never_back([*claims, Trace("a", 2, {"t": 4})])
    with violated("I5"):
        checkers.never_back([*claims, Trace("a", 2, {"t": 5}, claimed=True)])


def test_rows_that_differ_are_found() -> None:
    checkers.is_fold("a", 1, {"t": b"1"}, {"t": b"1"})
    with violated("I6"):
        checkers.is_fold("a", 1, {"t": b"1"}, {"t": b"2"})
    checkers.converged("a", 3, 3, {"t": b"1"}, {"t": b"1"})
    with violated("I7"):
        checkers.converged("a", 2, 3, {"t": b"1"}, {"t": b"1"})
    with violated("I7"):
        checkers.converged("a", 3, 3, {"t": b"1"}, {})
