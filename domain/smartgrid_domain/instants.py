"""Times as text: RFC 3339 with an offset, whole microseconds, 1970 to 2100."""

import re
from datetime import UTC, datetime, timedelta, timezone

FORM = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?\Z",
    re.ASCII,
)
MAX_CHARS = 64
FIRST = datetime(1970, 1, 1, tzinfo=UTC)
END = datetime(2101, 1, 1, tzinfo=UTC)


class BadInstant(ValueError):
    """
    A text is not a time that can be kept.

    Attributes:
        code: ``bad_format``, ``timestamp_without_offset``, ``timestamp_too_precise`` or ``timestamp_out_of_range``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def instant(text: str) -> datetime:
    """
    Return the time that *text* tells, in UTC.

    Raises:
        BadInstant: With the code of the API and a message.

    Example:
        >>> instant("2026-01-15T11:30:00.5+01:00")
        datetime.datetime(2026, 1, 15, 10, 30, 0, 500000, tzinfo=datetime.timezone.utc)
    """
    match = FORM.match(text) if len(text) <= MAX_CHARS else None
    if match is None:
        raise BadInstant("bad_format", "Write a time as 2026-01-15T10:30:00Z")
    year, month, day, hour, minute, second = map(int, match.group(1, 2, 3, 4, 5, 6))
    fraction, offset = match.group(7, 8)
    if offset is None:
        raise BadInstant("timestamp_without_offset", "The time needs an offset, such as Z or +01:00")
    if fraction is not None and len(fraction) > 6:  # noqa: PLR2004  # digits of a microsecond
        raise BadInstant("timestamp_too_precise", "A time has at most 6 decimals")
    try:
        zone = UTC if offset in "Zz" else _zone(offset)
        moment = datetime(year, month, day, hour, minute, second, int((fraction or "").ljust(6, "0")), tzinfo=zone)
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInstant("bad_format", "There is no such time") from None
    if not FIRST <= moment < END:
        raise BadInstant("timestamp_out_of_range", "Times are from 1970 to 2100")
    return moment


def _zone(offset: str) -> timezone:
    hours, minutes = int(offset[1:3]), int(offset[4:6])
    if hours > 23 or minutes > 59:  # noqa: PLR2004  # of a clock
        raise ValueError(offset)
    span = timedelta(hours=hours, minutes=minutes)
    return timezone(-span if offset[0] == "-" else span)


def rfc3339(moment: datetime) -> str:
    """
    Return *moment* in UTC with ``Z``, with 0 or 6 decimals.

    Example:
        >>> rfc3339(instant("2026-01-15T10:30:00.25Z"))
        '2026-01-15T10:30:00.250000Z'
    """
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
