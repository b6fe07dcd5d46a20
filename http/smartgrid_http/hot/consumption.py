"""What a meter's reading counted, as it was at its own position."""

from datetime import UTC, datetime, timedelta
from typing import Final

from smartgrid_commands.ports import EventStore
from smartgrid_domain.readings import DEFAULT_REGISTER, MeterReading
from smartgrid_projections.queries.meter_readings import Registers, circumstances_of, counted

LOG: Final = "telemetry"
NO_SEQ: Final = -1
WINDOW: Final = timedelta(days=10)
"""How far back readings are read at first."""

ENOUGH: Final = 100
"""With that many readings before it, no reading before them changes what one counted."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Consumption:
    """
    Tells what readings of meters counted.

    Args:
        registers: Where the readings are.
        store: Where exchanges and settings are.
    """

    def __init__(self, registers: Registers, store: EventStore) -> None:
        self._registers = registers
        self._store = store

    async def of(self, item: MeterReading, measured_at_us: int, position: int) -> tuple[int | None, str]:
        """Return consumption [Wh] and state of the register at the reading *item*, as known at *position*."""
        register = item.register if isinstance(item.register, str) else DEFAULT_REGISTER
        seq = item.seq if isinstance(item.seq, int) else NO_SEQ
        history = await self._store.read_stream(LOG, f"meter:{item.meter_id}")
        known = circumstances_of(history, up_to=position)
        at = _EPOCH + timedelta(microseconds=measured_at_us)
        for start in (at - WINDOW, None):
            readings = await self._registers.counting(item.meter_id, register, start=start, up_to=position)
            if start is not None and int((readings.at_us < measured_at_us).sum()) < ENOUGH:
                continue
            told = counted(register, readings, known).get((measured_at_us, seq))
            if told is not None:
                return told.consumption_wh, told.state
        return None, "normal"
