"""Raw readings as they were known at a position of the log: those of sensors, and the rows of the register itself."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol, runtime_checkable
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from smartgrid_domain.maths.quantities import MEASURANDS, QUALITY_NAMES, float_of

LOG = "telemetry"
NO_PHASE = "-"
NO_SEQ = -1
BATCH = 5000
"""Rows read at a time when a whole range is asked for."""

Subject = Literal["sensor", "meter"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Place(Struct, frozen=True, array_like=True, gc=False):
    """
    Where a row stands in the order of readings.

    Attributes:
        measured_at_us: When it was measured [µs since 1970].
        seq: Its sequence number, -1 for none.
        measurand: What was measured, or the register.
        phase: Phase, ``-`` for none.
        revision: 0 as first recorded; corrections count up.
    """

    measured_at_us: int
    seq: int
    measurand: str
    phase: str
    revision: int

    @property
    def measured_at(self) -> datetime:
        """The time of the row."""
        return _EPOCH + self.measured_at_us * _MICROSECOND


class Slice(Struct, frozen=True, kw_only=True):
    """
    Which rows of the register are wanted, and as of when.

    Attributes:
        subject: Whose readings.
        subject_id: The sensor or meter.
        measurand: Only this measurand or register.
        phase: Only this phase.
        start: Measured at or after it.
        end: Measured before it.
        up_to: Position of the log; what was recorded later does not exist.
        descending: Newest first.
        all_versions: Superseded and retracted ones too.
        after: Only rows behind this place, in the order asked for.
        limit: Most rows.
    """

    subject: Subject
    subject_id: str
    measurand: str | None = None
    phase: str | None = None
    start: datetime
    end: datetime
    up_to: int
    descending: bool = False
    all_versions: bool = False
    after: Place | None = None
    limit: int


class Row(Struct, frozen=True, kw_only=True, gc=False):
    """
    One row of the register.

    Attributes:
        event_id: Id of the reading.
        measurand: What was measured, or the register.
        phase: Phase, ``-`` for none.
        measured_at: When.
        seq: Sequence number, -1 for none.
        revision: 0 as first recorded; corrections count up.
        mantissa: The value is mantissa * 10**exponent in the canonical unit.
        exponent: See *mantissa*.
        quality: Code of its quality.
        position: Position of its event.
        recorded_at: When that was stored.
        superseded: A correction replaced it.
        corrects: Id of the reading that it replaced.
        retracted: It no longer counts.
    """

    event_id: UUID
    measurand: str
    phase: str
    measured_at: datetime
    seq: int
    revision: int
    mantissa: int
    exponent: int
    quality: int
    position: int
    recorded_at: datetime
    superseded: bool
    corrects: UUID | None
    retracted: bool

    @property
    def place(self) -> Place:
        """Where it stands."""
        us = (self.measured_at - _EPOCH) // _MICROSECOND
        return Place(us, self.seq, self.measurand, self.phase, self.revision)


@runtime_checkable
class Register(Protocol):
    """
    The reading register.

    Guarantees:
        * Rows are those that the log up to ``up_to`` tells of, whatever is recorded meanwhile.
        * They are ordered by time, sequence number, measurand, phase, revision.
    """

    async def rows(self, wanted: Slice) -> list[Row]:
        """Return the first rows of *wanted*."""
        ...

    async def latest(
        self, subject: Subject, subject_id: str, *, measurand: str | None, start: datetime | None, up_to: int
    ) -> list[Row]:
        """Return the newest row that counts of each series, from *start* on, ordered by measurand and phase."""
        ...


async def pages_of(register: Register, wanted: Slice) -> AsyncIterator[Sequence[Row]]:
    """Yield all rows of *wanted*, up to its limit, in lists of at most 5,000."""
    left = wanted.limit
    after = wanted.after
    while left > 0:
        part = replace(wanted, after=after, limit=min(left, BATCH))
        rows = await register.rows(part)
        if rows:
            yield rows
            after = rows[-1].place
        left -= len(rows)
        if len(rows) < part.limit:
            return


class Reading(Struct, frozen=True, kw_only=True, gc=False):
    """
    A reading of a sensor, as answered.

    Attributes:
        event_id: Its id.
        sensor_id: The sensor.
        sensor_type: What was measured.
        phase: Phase; null for none.
        timestamp: When it was measured.
        value: In *unit*.
        unit: The canonical unit.
        quality: ``measured``, ``estimated``, ``substituted``, ``suspect`` or ``corrected``.
        seq: Sequence number; null for none.
        recorded_at: When it was stored.
        position: Its place in the log.
        superseded: A correction replaced it.
        corrects: Id of the reading that it replaced.
        retracted: It no longer counts.
    """

    event_id: UUID
    sensor_id: str
    sensor_type: str
    phase: str | None
    timestamp: datetime
    value: float
    unit: str
    quality: str
    seq: int | None
    recorded_at: datetime
    position: str
    superseded: bool
    corrects: UUID | None
    retracted: bool


def reading_of(sensor_id: str, row: Row) -> Reading:
    """Return *row* as answered."""
    return Reading(
        event_id=row.event_id,
        sensor_id=sensor_id,
        sensor_type=row.measurand,
        phase=None if row.phase == NO_PHASE else row.phase,
        timestamp=row.measured_at,
        value=float_of(row.mantissa, row.exponent),
        unit=MEASURANDS[row.measurand].unit,
        quality=QUALITY_NAMES[row.quality],
        seq=None if row.seq == NO_SEQ else row.seq,
        recorded_at=row.recorded_at,
        position=f"{LOG}@{row.position}",
        superseded=row.superseded,
        corrects=row.corrects,
        retracted=row.retracted,
    )
