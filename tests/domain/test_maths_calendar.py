"""Local buckets are those of the clock on the wall."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartgrid_domain.maths.calendar import (
    HOUR_US,
    INTERVALS,
    Interval,
    UnknownZone,
    bounds,
    buckets,
    instant,
    microseconds,
    splits_hours,
    starts_of,
    zone_of,
)

NAMES = [
    "UTC",
    "Europe/Tirane",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/Havana",  # skips midnight in spring
    "America/Goose_Bay",  # changed at 00:01
    "Pacific/Apia",  # left out 30 December 2011
    "America/St_Johns",
]
ZONES = st.sampled_from(NAMES).map(zone_of)
INSTANTS = st.integers(0, 4_102_444_800).map(lambda second: second * 1_000_000)
LONGEST: dict[str, int] = {"1m": 1, "15m": 12, "1h": 60, "1d": 3000, "1w": 9000, "1mo": 30000}


def _at(text: str) -> int:
    return microseconds(datetime.fromisoformat(text))


@given(INSTANTS, st.integers(0, 30), st.sampled_from(INTERVALS), ZONES)
def test_bounds_enclose_their_range_and_no_more(first: int, length: int, interval: Interval, zone: object) -> None:
    last = first + length * LONGEST[interval] * HOUR_US // 24
    edges = bounds(first, last, interval, zone).tolist()  # type: ignore[arg-type]  # zones of the list above

    assert all(low < high for low, high in pairwise(edges))
    assert edges[0] <= first < edges[1]
    assert edges[-2] < max(last, first + 1) <= edges[-1]


@given(INSTANTS, ZONES)
def test_finer_bounds_are_there_where_coarser_ones_are(at: int, zone: object) -> None:
    def of(interval: Interval, low: int, high: int) -> set[int]:
        return set(bounds(low, high, interval, zone).tolist())  # type: ignore[arg-type]  # as above

    month = sorted(of("1mo", at, at + 1))
    days = of("1d", month[0], month[1])
    week = sorted(of("1w", at, at + 1))
    day = sorted(of("1d", at, at + 1))
    hours = of("1h", day[0], day[1])

    assert set(month) <= days
    assert set(week) <= of("1d", week[0], week[1])
    assert set(day) <= hours
    assert hours <= of("15m", day[0], day[1])


@given(INSTANTS, st.sampled_from(["1h", "1d", "1w", "1mo"]), ZONES)
def test_a_bucket_begins_where_the_local_clock_says(at: int, interval: Interval, zone: object) -> None:
    start = bounds(at, at + 1, interval, zone).tolist()[0]  # type: ignore[arg-type]  # as above

    local, before = (instant(us, zone) for us in (start, start - 1))  # type: ignore[arg-type]  # as above
    if before.utcoffset() == local.utcoffset():
        assert (local.minute, local.second, local.microsecond) == (0, 0, 0)
        assert interval == "1h" or local.hour == 0
    if interval == "1w":
        assert local.weekday() == 0
    if interval == "1mo":
        assert local.day == 1


@given(st.lists(INSTANTS, max_size=8), st.sampled_from(INTERVALS), ZONES)
def test_start_of_an_instant_is_the_begin_of_its_bucket(at: list[int], interval: Interval, zone: object) -> None:
    starts = starts_of(np.array(at, np.int64), interval, zone).tolist()  # type: ignore[arg-type]  # as above

    assert starts == [bounds(us, us + 1, interval, zone).tolist()[0] for us in at]  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("name", "year", "short", "long"),
    [
        ("Europe/Tirane", 2026, "2026-03-29", "2026-10-25"),
        ("Europe/Tirane", 2024, "2024-03-31", "2024-10-27"),
        ("America/New_York", 2026, "2026-03-08", "2026-11-01"),
    ],
)
def test_days_have_23_hours_in_spring_and_25_in_autumn(name: str, year: int, short: str, long: str) -> None:
    zone = zone_of(name)
    first, last = (microseconds(datetime(y, 1, 1, tzinfo=zone)) for y in (year, year + 1))

    hours = {
        instant(day.start_us, zone).date().isoformat(): (
            day.hours,
            len(buckets(day.start_us, day.end_us, "1h", zone)),
            len(buckets(day.start_us, day.end_us, "15m", zone)),
        )
        for day in buckets(first, last, "1d", zone)
    }

    assert {day: found for day, found in hours.items() if found != (24.0, 24, 96)} == {
        short: (23.0, 23, 92),
        long: (25.0, 25, 100),
    }
    assert len(hours) == (366 if year % 4 == 0 else 365)


def test_local_midnight_is_written_with_its_offset() -> None:
    zone = zone_of("Europe/Tirane")

    days = [
        instant(us, zone).isoformat() for us in bounds(_at("2026-03-28T23:00Z"), _at("2026-03-30T22:00Z"), "1d", zone)
    ]

    assert days == ["2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00", "2026-03-31T00:00:00+02:00"]


def test_a_half_hour_change_makes_a_short_hour() -> None:
    zone = zone_of("Australia/Lord_Howe")

    hours = [bucket.hours for bucket in buckets(_at("2026-04-04T13:00Z"), _at("2026-04-04T17:00Z"), "1h", zone)]

    assert hours == [1.0, 1.0, 0.5, 1.0, 1.0]


def test_a_day_that_a_zone_left_out_has_no_bucket() -> None:
    zone = zone_of("Pacific/Apia")

    days = buckets(_at("2011-12-29T12:00Z"), _at("2011-12-31T12:00Z"), "1d", zone)

    assert [instant(day.start_us, zone).date().isoformat() for day in days] == [
        "2011-12-29",
        "2011-12-31",
        "2012-01-01",
    ]
    assert [day.hours for day in days] == [24.0, 24.0, 24.0]


def test_a_skipped_midnight_begins_the_day_at_the_change() -> None:
    zone = zone_of("America/Havana")

    day = buckets(_at("2026-03-08T12:00Z"), _at("2026-03-08T12:00Z"), "1d", zone)[0]

    assert instant(day.start_us, zone).isoformat() == "2026-03-08T01:00:00-04:00"
    assert day.hours == 23.0


@pytest.mark.parametrize(
    ("name", "splits"), [("Asia/Kolkata", True), ("Asia/Kathmandu", True), ("Europe/Tirane", False)]
)
def test_part_hour_zones_need_quarters(name: str, *, splits: bool) -> None:
    assert splits_hours(zone_of(name), 0, 48 * HOUR_US) == splits


@pytest.mark.parametrize(
    "name", ["Mars/Olympus", "../etc/passwd", "", "Europe", "/etc/localtime", "\x00", "Europe/Tirane\n"]
)
def test_a_name_that_is_no_zone_is_told(name: str) -> None:
    with pytest.raises(UnknownZone):
        zone_of(name)


@pytest.mark.parametrize("year", [1, 9999])
def test_the_calendar_has_an_end(year: int) -> None:
    at = microseconds(datetime(year, 1 if year == 1 else 12, 31 if year != 1 else 1, tzinfo=UTC))

    with pytest.raises(OverflowError):
        bounds(at, at + HOUR_US, "1d", zone_of("UTC"))


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.integers(-14, 14))  # noqa: DTZ001  # Hypothesis wants naive bounds
def test_microseconds_and_instants_are_inverse(local: datetime, offset: int) -> None:
    at = (local - timedelta(hours=offset)).replace(tzinfo=UTC)

    assert instant(microseconds(at), zone_of("UTC")) == at
