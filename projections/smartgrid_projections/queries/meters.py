"""Meters as they are set now, with what they have sent."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from msgspec import Struct

from smartgrid_domain.maths.quantities import float_of
from smartgrid_schemas.metering import MeterConfigured, MeterRegistered

KILO = 3
"""Power of ten between a unit and its thousandfold."""


class Meter(Struct, frozen=True, kw_only=True, gc=False):
    """
    A meter, as answered.

    Attributes:
        meter_id: The meter.
        customer_id: Whose consumption it counts; null when unknown or erased.
        registers: Its registers, in order.
        rollover_at: Its registers restart at 0 there [kWh].
        nominal: Power of the connection [kW].
        expected_interval_s: Time between two readings [s].
        name: For people.
        first_seen: Time of its earliest reading.
        last_seen: Time of its newest reading.
        version: Version of the meter: of its settings, exchanges and resets.
    """

    meter_id: str
    customer_id: str | None
    registers: list[str]
    rollover_at: float | None
    nominal: float | None
    expected_interval_s: float | None
    name: str | None
    first_seen: datetime
    last_seen: datetime
    version: int


class MeterFilter(Struct, frozen=True, kw_only=True):
    """
    Which meters are wanted, ordered by id.

    Attributes:
        customer_id: Only those that count this customer's consumption now.
        register: Only those with this register.
        prefix: Only ids that begin so.
        after: Only ids behind this one.
        limit: Most of them.
    """

    customer_id: str | None = None
    register: str | None = None
    prefix: str = ""
    after: str = ""
    limit: int


class Link(Struct, frozen=True, kw_only=True):
    """
    Whose consumption a meter counts.

    Attributes:
        customer_id: The customer; null for nobody.
        since: From when on [recorded time]; nothing before it is theirs.
    """

    customer_id: str | None
    since: datetime


@runtime_checkable
class Meters(Protocol):
    """All meters that ever sent a reading."""

    async def meter(self, meter_id: str) -> Meter | None:
        """Return one of them."""
        ...

    async def meters(self, wanted: MeterFilter) -> Sequence[Meter]:
        """Return the first of those wanted."""
        ...

    async def link(self, meter_id: str, *, up_to: int | None = None) -> Link | None:
        """Return whose it is, or was at position *up_to*; None for a meter that nobody had seen."""
        ...


def meter_of(  # noqa: PLR0913, PLR0917  # the columns, in order
    settings: MeterRegistered | MeterConfigured,
    customer_id: str | None,
    name: str | None,
    version: int,
    registers: list[str],
    first_seen: datetime,
    last_seen: datetime,
) -> Meter:
    """Return a meter whose newest settings are *settings*, with its personal fields opened."""
    now = settings
    if isinstance(now, MeterRegistered):
        now = MeterConfigured(meter_id=now.meter_id)
    return Meter(
        meter_id=now.meter_id,
        customer_id=customer_id,
        registers=registers,
        rollover_at=None if now.rollover_at_wh is None else float_of(now.rollover_at_wh, -KILO),
        nominal=None if now.nominal_w is None else now.nominal_w / 10**KILO,
        expected_interval_s=now.expected_interval_s,
        name=name,
        first_seen=first_seen,
        last_seen=last_seen,
        version=version,
    )


def link_of(history: Sequence[tuple[datetime, str | None]]) -> Link | None:
    """
    Return the last link of a meter.

    Args:
        history: (recorded time, customer) of each of its settings, in order; settings repeat the customer that stays.
    """
    link: Link | None = None
    for recorded_at, customer_id in history:
        if link is None or link.customer_id != customer_id:
            link = Link(customer_id=customer_id, since=recorded_at)
    return link
