"""What consumption keeps beside the rows that are asked for, and the tables it is kept in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from smartgrid_domain.maths.registers import Break
from smartgrid_projections.read_models.energy import Parts
from smartgrid_projections.register import Register
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event

FOREVER: Final = 2**63 - 1
"""End of a link that holds [µs since 1970]."""

FIRST_US: Final = -1
"""Before all readings [µs since 1970]."""

LAST_US: Final = 7_258_118_400_000_000
"""After all readings: the year 2200 [µs since 1970]."""


class Link(NamedTuple):
    """
    When a meter counted for a customer.

    Attributes:
        since_us: From [µs since 1970].
        until_us: Up to, not included [µs since 1970].
        customer: Blind index of the customer's id.
    """

    since_us: int
    until_us: int
    customer: bytes


class Tail(NamedTuple):
    """
    The last reading of a register of which nothing is undecided.

    Attributes:
        at_us: When it was read [µs since 1970].
        wh: Where the register stood [Wh].
    """

    at_us: int
    wh: int


class Meter(NamedTuple):
    """
    Settings of a meter.

    Attributes:
        rollover_at_wh: Its registers restart at 0 there [Wh].
        expected_interval_s: Time between two readings [s].
    """

    rollover_at_wh: int | None = None
    expected_interval_s: float | None = None


@dataclass
class MeterState:
    """
    What is known of one meter beside its readings.

    Attributes:
        meter: Settings.
        links: Customers, by time.
        breaks: Exchanges and resets that count, by register, time and kind.
    """

    meter: Meter = field(default_factory=Meter)
    links: tuple[Link, ...] = ()
    breaks: dict[tuple[str, int, str], Break] = field(default_factory=dict[tuple[str, int, str], Break])

    def breaks_of(self, register: str) -> list[Break]:
        """Return those of one register."""
        return [item for (name, _, _), item in self.breaks.items() if name == register]

    def copy(self) -> "MeterState":
        """Return a copy that may change."""
        return MeterState(self.meter, self.links, dict(self.breaks))


class ConsumptionTables(Protocol):
    """Where consumption is kept, in an open transaction."""

    @property
    def register(self) -> Register:
        """The readings themselves."""
        ...

    async def customer_of(self, recorded: Recorded[Event]) -> bytes | None:
        """Return the blind index of the customer that an event names; None without one, or when it was erased."""
        ...

    async def states(self, meter_ids: Sequence[str]) -> Mapping[str, MeterState]:
        """Return what is known of each meter, an empty state for an unknown one."""
        ...

    async def save_states(self, states: Mapping[str, MeterState]) -> None:
        """Keep the states of some meters."""
        ...

    async def tails(self, series: Sequence[int]) -> Mapping[int, Tail]:
        """Return the tails of those of *series* that have one."""
        ...

    async def save_tails(self, tails: Mapping[int, Tail | None]) -> None:
        """Keep tails; None forgets one."""
        ...

    async def add(self, parts: Parts, customers: Mapping[tuple[bytes, int], tuple[int, int, int]]) -> None:
        """
        Add to what is there.

        Args:
            parts: Of series, unique by series and start; numbers may be negative. Rows of zeros are dropped.
            customers: (Wh, estimated Wh, readings) by customer and UTC hour [µs since 1970].
        """
        ...
