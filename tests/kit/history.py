"""What clients sent and were told, and the same facts as a log holds them."""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import NamedTuple

from msgspec import Struct, field

from smartgrid_domain.maths.columns import unpack
from smartgrid_domain.maths.quantities import MEASURANDS, METER_UNITS, convert, decimal_of
from smartgrid_domain.readings import DEFAULT_METER_UNIT, DEFAULT_REGISTER, Item, SensorReading, correction_of, time_of
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.metering import MeterReadingRetracted, MeterReadingsRecorded
from smartgrid_schemas.telemetry import ReadingRetracted, ReadingsRecorded, SensorConfigured

LATEST_US = 2**62
STORED = ("accepted", "duplicate")
"""States of a fact that say it is stored."""


class Fact(NamedTuple):
    """
    One thing that a client says.

    Attributes:
        key: The natural key: kind, whose, and what else makes it the same.
        value: Mantissa and exponent in the canonical unit; None where there is no number.
        replaces: Id of the reading that it corrects.
    """

    key: tuple[str | int, ...]
    value: tuple[int, int] | None = None
    replaces: bytes | None = None

    @property
    def number(self) -> Decimal:
        """The value, exactly."""
        assert self.value is not None
        return Decimal(self.value[0]).scaleb(self.value[1])


class Answer(Struct, frozen=True, kw_only=True):
    """
    A 2xx.

    Attributes:
        states: What became of each fact: ``accepted``, ``duplicate`` or an error code.
        first: Position of the first event that it tells; 0 for none.
        last: And of the last.
    """

    states: tuple[str, ...]
    first: int = 0
    last: int = 0


class Request(Struct, kw_only=True):
    """
    A command of a client, with all its repeats.

    Attributes:
        number: Which.
        facts: What it says.
        atomic: All or nothing.
        key: Its ``Idempotency-Key``.
        answers: The answers that came, of whatever repeat.
    """

    number: int
    facts: tuple[Fact, ...]
    atomic: bool = False
    key: str | None = None
    answers: list[Answer] = field(default_factory=list[Answer])


class History(Struct):
    """All that clients did, in the order in which they began."""

    requests: list[Request] = field(default_factory=list[Request])

    def send(self, facts: Iterable[Fact], *, atomic: bool = False, key: str | None = None) -> Request:
        """Note a request before it goes out."""
        request = Request(number=len(self.requests), facts=tuple(facts), atomic=atomic, key=key)
        self.requests.append(request)
        return request


def fact_of(item: Item) -> Fact:
    """Return what *item* says; it has a time."""
    at = time_of(str(item.timestamp), LATEST_US)
    seq = item.seq if isinstance(item.seq, int) else -1
    correction = correction_of(item)
    replaces = None if correction is None else correction[0]
    if isinstance(item, SensorReading):
        measurand = MEASURANDS[item.sensor_type]
        shift = measurand.units[item.unit] if isinstance(item.unit, str) else 0
        key = ("sensor", item.sensor_id, item.sensor_type, item.phase if isinstance(item.phase, str) else "-", at, seq)
        return Fact(key, convert(*decimal_of(item.value), shift), replaces)
    unit = item.unit if isinstance(item.unit, str) else DEFAULT_METER_UNIT
    register = item.register if isinstance(item.register, str) else DEFAULT_REGISTER
    value = convert(*decimal_of(item.reading), METER_UNITS[unit])
    return Fact(("meter", item.meter_id, register, "-", at, seq), value, replaces)


def facts_of(event: Event) -> Iterator[Fact]:
    """Yield the facts that *event* holds and that only a client can have said."""
    match event:
        case ReadingsRecorded() | MeterReadingsRecorded():
            yield from _readings(event)
        case ReadingRetracted() | MeterReadingRetracted():
            yield Fact(("retraction", event.event_id))
        case SensorConfigured(sensor_id=sensor_id, name=str(name)):
            yield Fact(("name", sensor_id, name))
        case _:
            pass


def _readings(event: ReadingsRecorded | MeterReadingsRecorded) -> Iterator[Fact]:
    rows = unpack(event)
    replaces = {correction.row: correction.event_id for correction in rows.corrects}
    indices: list[int] = rows.series_index.tolist()
    for row, which in enumerate(indices):
        at, seq = int(rows.measured_at_us[row]), int(rows.seq[row])
        number = int(rows.mantissa[row]), int(rows.exponent[row])
        if isinstance(event, ReadingsRecorded):
            series = event.series[which]
            key = ("sensor", series.sensor_id, series.sensor_type, series.phase or "-", at, seq)
            value = convert(*number, MEASURANDS[series.sensor_type].units[series.unit])
        else:
            register = event.series[which]
            key = ("meter", register.meter_id, register.register, "-", at, seq)
            value = convert(*number, METER_UNITS[register.unit])
        yield Fact(key, value, replaces.get(row))


def stored_facts(events: Iterable[Recorded[Event]]) -> list[Fact]:
    """Return all facts of a log, in order."""
    return [fact for recorded in events for fact in facts_of(recorded.event)]
