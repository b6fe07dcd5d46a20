"""
What the answers must be, computed from the file with fractions and whole numbers.

It imports nothing of the product and shares no code with it, so that both cannot be wrong in the same way.
"""

import csv
import gzip
import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

Series = list[tuple[datetime, Fraction]]

QUANTA = {"voltage": 1000, "current": 1000, "power": 1}
"""Steps of the rollups in one canonical unit."""


@dataclass
class Bucket:
    """Whole numbers of quanta that fell into one bucket."""

    values: list[int] = field(default_factory=list[int])

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def total(self) -> int:
        return sum(self.values)

    @property
    def squares(self) -> int:
        return sum(value * value for value in self.values)

    @property
    def low(self) -> int:
        return min(self.values)

    @property
    def high(self) -> int:
        return max(self.values)

    def mean(self, per_unit: int) -> float:
        return float(Fraction(self.total, self.n * per_unit))  # float() of a fraction rounds once, correctly

    def deviation(self, per_unit: int) -> float | None:
        if self.n < 2:
            return None
        variance = Fraction(self.n * self.squares - self.total**2, self.n * (self.n - 1) * per_unit**2)
        return math.sqrt(float(variance))

    def percentile(self, percent: int, measurand: str) -> float:
        """Midpoint of the bin that holds the value of rank ceil(percent * n / 100)."""
        bins = Counter(bin_of(value, measurand) for value in self.values)
        rank = max(1, math.ceil(Fraction(percent * self.n, 100)))
        for number in sorted(bins):
            rank -= bins[number]
            if rank <= 0:
                return float(middle_of(number, measurand))
        raise AssertionError("an empty bucket has no percentile")


def half_even(value: Fraction) -> int:
    return round(value)  # round() of a fraction goes half to even


def _edges(up_to: int) -> list[int]:
    edges = [1]
    while edges[-1] <= up_to:
        edges.append(edges[-1] + max(1, edges[-1] // 50))
    return edges


EDGES = _edges(10**12)


def bin_of(value: int, measurand: str) -> int:
    if measurand == "voltage":
        return value // 100
    if value == 0:
        return 0
    number = bisect_right(EDGES, abs(value))  # 1 is the bin that begins at the first edge
    return number if value > 0 else -number


def middle_of(number: int, measurand: str) -> Fraction:
    per_unit = QUANTA[measurand]
    if measurand == "voltage":
        return Fraction(number * 100 + 50, per_unit)
    if number == 0:
        return Fraction(0)
    index = abs(number) - 1
    middle = Fraction(EDGES[index] + EDGES[index + 1] - 1, 2 * per_unit)
    return middle if number > 0 else -middle


def buckets(series: Series, measurand: str, start_of: Callable[[datetime], datetime]) -> dict[datetime, Bucket]:
    found: dict[datetime, Bucket] = defaultdict(Bucket)
    for at, value in series:
        found[start_of(at)].values.append(half_even(value * QUANTA[measurand]))
    return dict(sorted(found.items()))


def quarter_start(at: datetime) -> datetime:
    return at.replace(minute=at.minute - at.minute % 15, second=0, microsecond=0)


def hour_start(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def day_start(zone: str) -> Callable[[datetime], datetime]:
    """Return the function from an instant to the local midnight before it, in UTC."""
    place = ZoneInfo(zone)

    def start(at: datetime) -> datetime:
        return midnight(at.astimezone(place).date(), place)

    return start


def midnight(day: date, place: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), place).astimezone(UTC)


def _open(path: Path, encoding: str) -> Iterator[str]:
    with gzip.open(path, "rt", encoding=encoding, newline="") as file:
        yield from file


def household(path: Path) -> dict[str, Series]:
    """Return voltage [V], current [A] and power [W] of the household recording."""
    place = ZoneInfo("Europe/Paris")
    found: dict[str, Series] = {"voltage": [], "current": [], "power": []}
    for row in csv.DictReader(_open(path, "ascii"), delimiter=";"):
        if row["Voltage"] == "?":
            continue
        day, month, year = (int(part) for part in row["Date"].split("/"))
        hour, minute, second = (int(part) for part in row["Time"].split(":"))
        at = datetime(year, month, day, hour, minute, second, tzinfo=place).astimezone(UTC)  # December: no clock change
        found["voltage"].append((at, Fraction(row["Voltage"])))
        found["current"].append((at, Fraction(row["Global_intensity"])))
        found["power"].append((at, Fraction(row["Global_active_power"]) * 1000))
    return found


def steel(path: Path) -> list[tuple[datetime, Fraction]]:
    """Return (end of the quarter hour, energy [Wh]) of the steel plant's meter, in order."""
    place = ZoneInfo("Asia/Seoul")
    found: list[tuple[datetime, Fraction]] = []
    for row in csv.DictReader(_open(path, "utf-8-sig")):
        day_text, clock = row["date"].split(" ")
        day, month, year = (int(part) for part in day_text.split("/"))
        hour, minute = (int(part) for part in clock.split(":"))
        at = datetime(year, month, day, hour, minute, tzinfo=place)
        if hour == minute == 0:
            at += timedelta(days=1)
        found.append((at.astimezone(UTC), Fraction(row["Usage_kWh"]) * 1000))
    if any(after[0] - before[0] != timedelta(minutes=15) for before, after in pairwise(found)):
        raise AssertionError("the quarter hours are not in a row")
    return found


def registers(intervals: Iterable[tuple[datetime, Fraction]]) -> list[tuple[datetime, int]]:
    """Return (instant, register [Wh]), the opening reading of 0 included."""
    total = Fraction(0)
    found: list[tuple[datetime, int]] = []
    for end, energy in intervals:
        if not found:
            found.append((end - timedelta(minutes=15), 0))
        total += energy
        if total.denominator != 1:
            raise AssertionError("the file has whole watt-hours")
        found.append((end, total.numerator))
    return found


def consumption(readings: list[tuple[datetime, int]], start_of: Callable[[datetime], datetime]) -> dict[datetime, int]:
    """Return energy [Wh] by bucket with a reading or energy; no interval of the file crosses an hour."""
    found: dict[datetime, int] = defaultdict(int, {start_of(at): 0 for at, _ in readings})
    for (start, before), (_, after) in pairwise(readings):
        found[start_of(start)] += after - before
    return dict(sorted(found.items()))
