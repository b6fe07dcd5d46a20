"""Readings of meters with what they counted, computed from the register, exchanges and settings of one position."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol, runtime_checkable
from uuid import UUID

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from smartgrid_domain.maths.quantities import QUALITY_NAMES, Exponents, Ints, float_of, quanta
from smartgrid_domain.maths.registers import LATE, NORMAL, NOTHING, STATES, Break, Readings, fold, late
from smartgrid_projections.queries.meters import KILO
from smartgrid_projections.queries.readings import LOG, NO_SEQ, Row
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.metering import MeterConfigured, MeterExchanged, MeterReadingRetracted, MeterReset

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MeterReading(Struct, frozen=True, kw_only=True, gc=False):
    """
    A reading of a meter, as answered.

    Attributes:
        event_id: Its id.
        meter_id: The meter.
        register: Its register.
        timestamp: When it was read.
        reading: Where the register stood [kWh].
        unit: ``kWh``.
        consumption_wh: Consumed since the reading before that counts [Wh]; null when unknown or held.
        register_state: What the register did; null for a reading that does not count.
        quality: As sent, or ``suspect`` for a held drop and for more than the connection carries.
        seq: Sequence number; null for none.
        recorded_at: When it was stored.
        position: Its place in the log.
        superseded: A correction replaced it.
        corrects: Id of the reading that it replaced.
        retracted: It no longer counts.
    """

    event_id: UUID
    meter_id: str
    register: str
    timestamp: datetime
    reading: float
    unit: str = "kWh"
    consumption_wh: int | None
    register_state: str | None
    quality: str
    seq: int | None
    recorded_at: datetime
    position: str
    superseded: bool
    corrects: UUID | None
    retracted: bool


class Counting(Struct, frozen=True, kw_only=True):
    """
    The readings of one register that count at a position, as arrays of one length, ordered by time, then seq.

    Attributes:
        at_us: When [µs since 1970].
        seq: Sequence number, -1 for none.
        mantissa: The register stood at mantissa * 10**exponent [Wh].
        exponent: See *mantissa*.
        quality: Code.
        arrival: Position at which its natural key was first recorded.
    """

    at_us: Ints
    seq: Ints
    mantissa: Ints
    exponent: Exponents
    quality: NDArray[np.int8]
    arrival: Ints


@runtime_checkable
class Registers(Protocol):
    """The registers of meters."""

    async def counting(self, meter_id: str, register: str, *, start: datetime | None, up_to: int) -> Counting:
        """Return the readings of *register* that count at position *up_to*, from *start* on."""
        ...


class Circumstances(Struct, frozen=True, kw_only=True):
    """
    What is known of a meter beside its readings.

    Attributes:
        rollover_at_wh: Its registers restart at 0 there [Wh].
        nominal_w: Power of the connection [W].
        breaks: Exchanges and resets that count, by register.
    """

    rollover_at_wh: int | None
    nominal_w: float | None
    breaks: Mapping[str, Sequence[Break]]


def circumstances_of(history: Iterable[Recorded[Event]], *, up_to: int) -> Circumstances:
    """Return what the stream of a meter tells up to a position: the newest settings, and decisions not retracted."""
    settings: MeterConfigured | None = None
    decisions: dict[tuple[str, datetime], Break] = {}
    for recorded in history:
        event = recorded.event
        if recorded.position > up_to:
            break
        if isinstance(event, MeterConfigured):
            settings = event
        elif isinstance(event, MeterExchanged):
            change = Break(at_us=_us(event.at), initial_wh=event.new_initial_wh, final_wh=event.old_final_wh)
            decisions[event.register, event.at] = change
        elif isinstance(event, MeterReset):
            decisions[event.register, event.at] = Break(at_us=_us(event.at))
        elif isinstance(event, MeterReadingRetracted):
            decisions.pop((event.register, event.measured_at), None)
    breaks: dict[str, list[Break]] = {}
    for (register, _), change in decisions.items():
        breaks.setdefault(register, []).append(change)
    return Circumstances(
        rollover_at_wh=settings.rollover_at_wh if settings else None,
        nominal_w=settings.nominal_w if settings else None,
        breaks=breaks,
    )


def _us(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


class Counted(Struct, frozen=True, kw_only=True):
    """
    What one reading counted.

    Attributes:
        consumption_wh: Since the reading before that counts [Wh]; null when unknown or held.
        state: What the register did.
        quality: Code.
    """

    consumption_wh: int | None
    state: str
    quality: int


def counted(
    register: str, readings: Counting, known: Circumstances, *, start: datetime | None = None
) -> dict[tuple[int, int], Counted]:
    """
    Return what each reading of *register* counted, by time [µs] and sequence number.

    Args:
        register: Name of the register.
        readings: Those that count.
        known: What else is known of the meter.
        start: Nothing before it may show, neither readings nor exchanges.
    """
    since = None if start is None else _us(start)
    breaks = [one for one in known.breaks.get(register, ()) if since is None or one.at_us >= since]
    folded = fold(
        Readings(
            at_us=readings.at_us,
            seq=readings.seq,
            wh=quanta(readings.mantissa, readings.exponent, 0),
            quality=readings.quality,
        ),
        breaks,
        rollover_at_wh=known.rollover_at_wh,
        nominal_w=known.nominal_w,
    )
    was_late = late(readings.arrival)
    states: list[int] = np.where(was_late & (folded.state == NORMAL), LATE, folded.state).tolist()
    rows = zip(
        folded.readings.at_us.tolist(),
        folded.readings.seq.tolist(),
        folded.delta_wh.tolist(),
        states,
        folded.quality.tolist(),
        strict=True,
    )
    return {
        (at_us, seq): Counted(consumption_wh=None if wh == NOTHING else wh, state=STATES[state], quality=quality)
        for at_us, seq, wh, state, quality in rows
    }


def meter_reading_of(meter_id: str, row: Row, told: Counted | None) -> MeterReading:
    """Return *row* as answered; *told* is what it counted, None when it does not count."""
    return MeterReading(
        event_id=row.event_id,
        meter_id=meter_id,
        register=row.measurand,
        timestamp=row.measured_at,
        reading=float_of(row.mantissa, row.exponent - KILO),
        consumption_wh=told.consumption_wh if told else None,
        register_state=told.state if told else None,
        quality=QUALITY_NAMES[told.quality if told else row.quality],
        seq=None if row.seq == NO_SEQ else row.seq,
        recorded_at=row.recorded_at,
        position=f"{LOG}@{row.position}",
        superseded=row.superseded,
        corrects=row.corrects,
        retracted=row.retracted,
    )


class Teller:
    """
    Tells what the readings of one meter counted.

    What one counted depends on its neighbours, so each register is read whole, once.

    Args:
        meter_id: The meter.
        registers: Where its registers are.
        history: The stream of the meter.
        start: Nothing before it may show.
        up_to: Position of the answer.
    """

    def __init__(
        self,
        meter_id: str,
        registers: Registers,
        history: Sequence[Recorded[Event]],
        *,
        start: datetime | None,
        up_to: int,
    ) -> None:
        self._meter_id = meter_id
        self._registers = registers
        self._known = circumstances_of(history, up_to=up_to)
        self._start = start
        self._up_to = up_to
        self._told: dict[str, dict[tuple[int, int], Counted]] = {}

    async def told(self, rows: Sequence[Row]) -> list[MeterReading]:
        """Return *rows* of the meter as answered."""
        for register in sorted({row.measurand for row in rows} - self._told.keys()):
            readings = await self._registers.counting(self._meter_id, register, start=self._start, up_to=self._up_to)
            self._told[register] = counted(register, readings, self._known, start=self._start)
        return [meter_reading_of(self._meter_id, row, self._of(row)) for row in rows]

    def _of(self, row: Row) -> Counted | None:
        if row.superseded or row.retracted:
            return None
        return self._told[row.measurand].get((row.place.measured_at_us, row.seq))
