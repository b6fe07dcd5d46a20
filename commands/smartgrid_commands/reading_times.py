"""Many RFC 3339 times at once; every text in another than the usual forms is read one by one."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from smartgrid_domain.instants import BadInstant
from smartgrid_domain.maths.quantities import Flags, Ints
from smartgrid_domain.readings import time_of

Bytes = NDArray[np.uint8]

ABSENT: Final = -(2**63)
"""Stands where a reading has no time [µs]."""

BAD: Final = ABSENT + 1
"""Stands where a text is no time that can be kept [µs]."""

_SECONDS = 19  # characters of 2026-01-15T10:30:00
_MOST_DECIMALS = 6
_OFFSET = 6  # characters of +01:00
_MARKS: Final = ((4, b"-"), (7, b"-"), (10, b"T"), (13, b":"), (16, b":"))
_DIGITS: Final = (0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18)
_DAYS: Final = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)
_MICROS: Final = 1_000_000


def times_of(texts: Sequence[str | UnsetType | None], latest_us: int) -> Ints:
    """
    Return *texts* as µs since 1970, :data:`ABSENT` for none and :data:`BAD` for one that cannot be kept.

    Guarantees:
        Equal to :func:`smartgrid_domain.readings.time_of` of each text.
    """
    lengths = {len(text) if text else 0 for text in texts}
    if len(lengths) == 1:
        (length,) = lengths
        if length >= _SECONDS:
            return _of_one_length(texts, length, latest_us)  # type: ignore[arg-type]  # none is absent
    result = np.full(len(texts), ABSENT, np.int64)
    by_length: dict[int, list[int]] = {}
    for row, text in enumerate(texts):
        if text is not None and text is not UNSET:
            by_length.setdefault(len(text), []).append(row)
    for length, rows in by_length.items():
        result[rows] = _of_one_length([texts[row] for row in rows], length, latest_us)  # type: ignore[misc]
    return result


def _of_one_length(texts: Sequence[str], length: int, latest_us: int) -> Ints:
    joined = "".join(texts)
    if length <= _SECONDS or not joined.isascii():
        return _one_by_one(texts, latest_us)
    chars: Bytes = np.frombuffer(joined.encode(), np.uint8).reshape(-1, length)
    micros, usual = _usual(chars, length)
    usual &= micros <= latest_us
    if usual.all():
        return micros
    for row in np.flatnonzero(~usual).tolist():
        micros[row] = _one_by_one([texts[row]], latest_us)[0]
    return micros


def _one_by_one(texts: Sequence[str], latest_us: int) -> Ints:
    result = np.full(len(texts), BAD, np.int64)
    for row, text in enumerate(texts):
        try:
            result[row] = time_of(text, latest_us)
        except BadInstant:
            continue
    return result


def _usual(chars: Bytes, length: int) -> tuple[Ints, Flags]:
    """Return the µs of each row and which of the rows have the form that the first one seems to have."""
    count = len(chars)
    usual = np.ones(count, np.bool_)
    for at, mark in _MARKS:
        usual &= chars[:, at] == mark[0]
    zoned = chars[0, length - 1] != ord("Z") and length > _SECONDS + _OFFSET - 1
    end = length - _OFFSET if zoned else length - 1
    decimals = end - _SECONDS - 1 if end > _SECONDS else 0
    if decimals > _MOST_DECIMALS or end == _SECONDS + 1:
        return np.zeros(count, np.int64), np.zeros(count, np.bool_)
    numbers = chars.astype(np.int64) - ord("0")
    places = [*_DIGITS, *range(_SECONDS + 1, end)]
    sign = np.ones(count, np.int64)
    if zoned:
        places += [end + 1, end + 2, end + 4, end + 5]
        sign[chars[:, end] == ord("-")] = -1
        usual &= (chars[:, end] == ord("+")) | (chars[:, end] == ord("-"))
        usual &= chars[:, end + 3] == ord(":")
    else:
        usual &= chars[:, end] == ord("Z")
    if decimals:
        usual &= chars[:, _SECONDS] == ord(".")
    digits = numbers[:, places]
    usual &= ((digits >= 0) & (digits <= 9)).all(axis=1)  # noqa: PLR2004  # a digit
    year = numbers[:, 0] * 1000 + numbers[:, 1] * 100 + numbers[:, 2] * 10 + numbers[:, 3]
    month, day = _pair(numbers, 5), _pair(numbers, 8)
    hour, minute, second = _pair(numbers, 11), _pair(numbers, 14), _pair(numbers, 17)
    usual &= (year >= 1970) & (year <= 2100) & (month >= 1) & (month <= 12) & (day >= 1)  # noqa: PLR2004  # 1970 to 2100
    month = np.where(usual, month, 1)
    leap = (month == 2) & (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))  # noqa: PLR2004  # the calendar
    usual &= (day <= _DAYS[month - 1] + leap) & (hour <= 23) & (minute <= 59) & (second <= 59)  # noqa: PLR2004  # a clock
    total = ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
    if zoned:
        zone_hours, zone_minutes = _pair(numbers, end + 1), _pair(numbers, end + 4)
        usual &= (zone_hours <= 23) & (zone_minutes <= 59)  # noqa: PLR2004  # a clock
        total -= sign * (zone_hours * 60 + zone_minutes) * 60
    micros = total * _MICROS
    for index in range(decimals):
        micros += numbers[:, _SECONDS + 1 + index] * 10 ** (_MOST_DECIMALS - 1 - index)
    usual &= micros >= 0
    return micros, usual


def _pair(numbers: Ints, at: int) -> Ints:
    return numbers[:, at] * 10 + numbers[:, at + 1]


def _days(year: Ints, month: Ints, day: Ints) -> Ints:
    """Return the days since 1970-01-01 of proleptic Gregorian dates, by Howard Hinnant's *days_from_civil*."""
    year = year - (month <= 2)  # noqa: PLR2004  # the year begins in March here
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days: Ints = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    return days
