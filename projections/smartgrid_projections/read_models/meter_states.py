"""What the events of a meter's stream do to what is known of it: exchanges, resets, customers, settings."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from smartgrid_domain.maths.registers import NOTHING, Break
from smartgrid_projections.read_models.consumption_tables import FOREVER, Link, Meter, MeterState
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.metering import (
    MeterConfigured,
    MeterExchanged,
    MeterReadingRetracted,
    MeterRegistered,
    MeterReset,
)

BreakKey = tuple[str, int, str]
"""Register, time [µs since 1970] and kind."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def us_of(at: datetime) -> int:
    """Return a time [µs since 1970]."""
    return (at - _EPOCH) // _MICROSECOND


def break_of(event: Event) -> tuple[BreakKey, Break | None] | None:
    """Return the exchange or reset that an event tells of, None for what it takes back; None when it tells of none."""
    match event:
        case MeterReadingRetracted(kind="exchange" | "reset"):
            return (event.register, us_of(event.measured_at), event.kind), None
        case MeterExchanged():
            item = Break(us_of(event.at), event.new_initial_wh, event.old_final_wh)
            return (event.register, item.at_us, "exchange"), item
        case MeterReset():
            return (event.register, us_of(event.at), "reset"), Break(us_of(event.at), 0, NOTHING)
        case _:
            return None


def settings_of(event: MeterConfigured) -> Meter:
    """Return the settings that count for consumption."""
    return Meter(event.rollover_at_wh, event.expected_interval_s)


def linked(links: tuple[Link, ...], at_us: int, customer: bytes | None) -> tuple[Link, ...]:
    """
    Return the links of a meter whose customer is *customer* from *at_us* on; the same object when nothing changes.

    A link that began at that very instant never held.
    """
    holding = links[-1] if links and links[-1].until_us == FOREVER else None
    if customer == (holding.customer if holding else None):
        return links
    if holding is not None:
        links = links[:-1] if holding.since_us == at_us else (*links[:-1], holding._replace(until_us=at_us))
    return links if customer is None else (*links, Link(at_us, FOREVER, customer))


async def state_of(
    history: Iterable[Recorded[Event]], customer_of: Callable[[Recorded[Event]], Awaitable[bytes | None]]
) -> MeterState:
    """
    Return what a meter's stream tells of it.

    Args:
        history: The stream, or its begin.
        customer_of: Returns the blind index of the customer that settings name.
    """
    state = MeterState()
    for recorded in history:
        event = recorded.event
        if (told := break_of(event)) is not None:
            key, item = told
            if item is None:
                state.breaks.pop(key, None)
            else:
                state.breaks[key] = item
        if isinstance(event, MeterConfigured):
            state.meter = settings_of(event)
        if isinstance(event, MeterConfigured | MeterRegistered):
            state.links = linked(state.links, us_of(recorded.recorded_at), await customer_of(recorded))
    return state
