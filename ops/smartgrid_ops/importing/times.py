"""Times as files write them, turned into UTC."""

from collections.abc import Hashable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct, field

from smartgrid_ops.importing.mapping import TimeMapping

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNIX = {"unix-s": 1_000_000, "unix-ms": 1_000, "unix-us": 1}


class BadTime(ValueError):
    """A time that cannot be read, or that never was."""


class Moment(Struct, frozen=True, gc=False):
    """
    A point in time.

    Attributes:
        micros: Microseconds since 1970 [µs].
        text: RFC 3339, UTC.
    """

    micros: int
    text: str


def moment_of(at: datetime) -> Moment:
    """Return *at*, which must carry an offset, as a moment."""
    utc = at.astimezone(UTC)
    return Moment((utc - EPOCH) // _MICROSECOND, utc.isoformat().removesuffix("+00:00") + "Z")


class TimeReader(Struct):
    """
    Reads the times of one file.

    Where clocks go back, one hour of local times occurs twice. *By order*, the first time that a local time is
    seen in its series counts as the earlier one, and the next as the later one.

    Attributes:
        mapping: How the file writes times.
        zone: Zone of times without offset.
        seen: The repeated local times seen so far, by series.
    """

    mapping: TimeMapping
    zone: ZoneInfo
    seen: set[tuple[Hashable, datetime]] = field(default_factory=set[tuple[Hashable, datetime]])

    def read(self, cells: list[str], series: Hashable = None) -> Moment:
        """
        Return the moment that *cells*, the time columns of one row, name.

        Raises:
            BadTime: No format fits, or the local time was skipped when clocks went forward.
        """
        at = self._parse(" ".join(cell.strip() for cell in cells))
        if self.mapping.midnight == "ends-day" and at.time() == datetime.min.time():
            at += timedelta(days=1)
        if at.tzinfo is None:
            at = self._placed(at, series)
        return moment_of(at)

    def _parse(self, text: str) -> datetime:
        for form in self.mapping.formats:
            try:
                if form == "iso8601":
                    return datetime.fromisoformat(text)
                if form in _UNIX:
                    return EPOCH + _MICROSECOND * (int(text) * _UNIX[form])
                return datetime.strptime(text, form)  # noqa: DTZ007  # the zone follows in _placed
            except (ValueError, OverflowError):
                continue
        raise BadTime(f"{text!r} does not fit {' or '.join(self.mapping.formats)}")

    def _placed(self, local: datetime, series: Hashable) -> datetime:
        earlier = local.replace(tzinfo=self.zone, fold=0)
        later = local.replace(tzinfo=self.zone, fold=1)
        before, after = earlier.utcoffset(), later.utcoffset()
        if before == after:
            return earlier
        if before is None or after is None or before < after:
            raise BadTime(f"{local.isoformat()} does not exist in {self.zone.key}: clocks went forward")
        if self.mapping.repeated_hour != "by-order":
            return earlier if self.mapping.repeated_hour == "first" else later
        if (series, local) in self.seen:
            return later
        self.seen.add((series, local))
        return earlier
