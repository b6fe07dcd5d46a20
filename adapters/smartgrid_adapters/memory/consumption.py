"""Consumption in memory: the model of the tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smartgrid_adapters.memory.register import MemoryRegister
from smartgrid_projections.read_models.consumption_tables import MeterState, Tail
from smartgrid_projections.read_models.energy import Parts
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event

Numbers = tuple[int, int, int]
"""Wh, estimated Wh, readings."""


def customer_named(recorded: Recorded[Event]) -> bytes | None:
    """Return the clear customer id of an event as if it were its blind index."""
    named = getattr(recorded.event, "customer_id", None)
    return named.encode() if isinstance(named, str) else None


@dataclass
class MemoryConsumption:
    """
    The tables of consumption.

    Attributes:
        register: The readings.
        index: Blind index of the customer that an event names.
        meters: State of each meter.
        last: Tail of each register that has one.
        rows: By series and start.
        customers: By customer and hour.
    """

    register: MemoryRegister
    index: Callable[[Recorded[Event]], bytes | None] = customer_named
    meters: dict[str, MeterState] = field(default_factory=dict[str, MeterState])
    last: dict[int, Tail] = field(default_factory=dict[int, Tail])
    rows: dict[tuple[int, int], Numbers] = field(default_factory=dict[tuple[int, int], Numbers])
    customers: dict[tuple[bytes, int], Numbers] = field(default_factory=dict[tuple[bytes, int], Numbers])

    def __deepcopy__(self, memo: dict[int, Any]) -> "MemoryConsumption":
        meters = {meter: state.copy() for meter, state in self.meters.items()}
        return MemoryConsumption(
            self.register, self.index, meters, dict(self.last), dict(self.rows), dict(self.customers)
        )

    async def customer_of(self, recorded: Recorded[Event]) -> bytes | None:
        return self.index(recorded)

    async def states(self, meter_ids: Sequence[str]) -> Mapping[str, MeterState]:
        return {meter: self.meters.get(meter, MeterState()) for meter in meter_ids}

    async def save_states(self, states: Mapping[str, MeterState]) -> None:
        self.meters.update({meter: state.copy() for meter, state in states.items()})

    async def tails(self, series: Sequence[int]) -> Mapping[int, Tail]:
        return {one: self.last[one] for one in series if one in self.last}

    async def save_tails(self, tails: Mapping[int, Tail | None]) -> None:
        for series, tail in tails.items():
            self.last.pop(series, None)
            if tail is not None:
                self.last[series] = tail

    async def add(self, parts: Parts, customers: Mapping[tuple[bytes, int], Numbers]) -> None:
        for series, start, *numbers in parts.rows():
            _add(self.rows, (series, start), (numbers[0], numbers[1], numbers[2]))
        for key, sums in customers.items():
            _add(self.customers, key, sums)


def _add(rows: dict[Any, Numbers], key: object, more: Numbers) -> None:
    had = rows.pop(key, (0, 0, 0))
    now = (had[0] + more[0], had[1] + more[1], had[2] + more[2])
    if any(now):
        rows[key] = now
