"""Two things measured in turns, so that a busy machine is busy for both."""

import statistics
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct, field

Measure = Callable[[], float]
AsyncMeasure = Callable[[], Awaitable[float]]


class Figure(Struct, kw_only=True):
    """
    One line of the figures.

    Attributes:
        number: Row of the plan of figures: ``1``, ``2 n=100``, ``6 gunicorn``.
        what: What is divided by what, or what is measured.
        value: The ratio, or the measured value.
        unit: Unit of *value*; a ratio has ``x``.
        better: Whether ``more`` or ``less`` is.
        floor: Beyond it the work is not done.
        goal: What we are after.
        sides: Median of each side with its unit.
        rounds: What each round gave, oldest first.
        note: What one has to know to read it.
        date: Day of the run.
    """

    number: str
    what: str
    value: float
    unit: str
    better: str = "more"
    floor: float | None = None
    goal: float | None = None
    sides: dict[str, str] = field(default_factory=dict[str, str])
    rounds: list[list[float]] = field(default_factory=list[list[float]])
    note: str = ""
    date: str = ""

    @property
    def verdict(self) -> str:
        """Whether the goal, the floor, or neither is reached."""
        if self.goal is not None and self._reaches(self.goal):
            return "goal"
        if self.floor is not None:
            return "floor" if self._reaches(self.floor) else "below"
        return "-"

    def _reaches(self, mark: float) -> bool:
        return self.value >= mark if self.better == "more" else self.value <= mark


async def in_turns(a: AsyncMeasure, b: AsyncMeasure, rounds: int) -> list[list[float]]:
    """Measure *a* and *b* in turns, beginning with the other one each round, after one round that does not count."""
    found: list[list[float]] = []
    for number in range(rounds + 1):
        if number % 2:
            second = await b()
            first = await a()
        else:
            first = await a()
            second = await b()
        if number:
            found.append([first, second])
    return found


def ratio(rounds: Sequence[Sequence[float]]) -> float:
    """Return the median of the ratios of the rounds."""
    return statistics.median(a / b for a, b in rounds)


def medians(rounds: Sequence[Sequence[float]]) -> list[float]:
    """Return the median of each side."""
    return [statistics.median(side) for side in zip(*rounds, strict=True)]


def compared(  # noqa: PLR0913  # the columns of the table
    number: str,
    what: str,
    rounds: Sequence[Sequence[float]],
    names: tuple[str, str],
    unit: str,
    *,
    floor: float,
    goal: float,
    note: str = "",
) -> Figure:
    """Return the figure of two sides measured in turns."""
    a, b = medians(rounds)
    return Figure(
        number=number,
        what=what,
        value=round(ratio(rounds), 3),
        unit="x",
        floor=floor,
        goal=goal,
        sides={names[0]: f"{amount(a)} {unit}", names[1]: f"{amount(b)} {unit}"},
        rounds=[[float(f"{value:.5g}") for value in pair] for pair in rounds],
        note=note,
    )


def quantile(values: Sequence[float], q: float) -> float:
    """Return the value of rank ceil(q * n)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-q * len(ordered) // 1) - 1))]


def amount(value: float) -> str:
    """Return *value* for a table: three digits, or whole with blanks between thousands."""
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 100 else f"{value:.3g}"  # digits


Row = Callable[["Any"], Awaitable[list[Figure]]]
