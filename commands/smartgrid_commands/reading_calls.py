"""
Callers on their way into the log: one reading, or many in columns, and what is decided of each row.

One reading is by far the most common call, so it has a form of its own without arrays.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from smartgrid_commands.reading_rows import Ids, Owner, Rows, Source, reading_id, reading_ids
from smartgrid_domain.maths.quantities import Exponents, Ints
from smartgrid_domain.readings import Metadata
from smartgrid_schemas.telemetry import Location

PENDING: Final = 0
ACCEPTED: Final = 1
DUPLICATE: Final = 2
CONFLICT: Final = 3
NOT_FOUND: Final = 4
CORRECTION_CONFLICT: Final = 5
NO_PLACE: Final = 6
"""What is decided of a row; up to :data:`DUPLICATE` it is no reason to refuse a batch."""

NOT_STORED: Final = -1
_MOST_KEYS: Final = 100_000


class Stored(NamedTuple):
    """
    A row of the register.

    Attributes:
        revision: 0 as first recorded, corrections count up.
        mantissa: The value is mantissa · 10**exponent in the canonical unit, normal.
        exponent: Likewise.
        quality: Code of ``QUALITIES``.
        event_id: Id of the reading, 16 bytes.
        position: Position of its event.
    """

    revision: int
    mantissa: int
    exponent: int
    quality: int
    event_id: bytes
    position: int


class Lease(Struct, frozen=True, kw_only=True):
    """
    The right to answer a request with an ``Idempotency-Key``, until somebody takes it over.

    Attributes:
        principal: Who sent the key.
        key_hash: SHA-256 of the key.
        token: Tells this holder from a later one.
    """

    principal: str
    key_hash: bytes
    token: UUID


class LeaseLost(Exception):
    """Another process answers this request; nothing was stored for it here."""


@dataclass(slots=True, kw_only=True, eq=False)
class Caller:
    """
    Who asks, and what became of the commit.

    Attributes:
        actor: Name in the metadata of events.
        correlation_id: Id of the request.
        lease: Its right to answer, with :attr:`answer`.
        answer: Makes what the record of the key keeps of this call, once all its rows are decided.
        first_position: Position of the commit's first event; 0 when there was no commit.
        recorded_at: Time of the commit.
    """

    actor: str | None = None
    correlation_id: str | None = None
    lease: Lease | None = None
    answer: Callable[[], bytes] | None = None
    first_position: int = 0
    recorded_at: datetime | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class One(Caller):
    """
    A call with one row.

    Attributes:
        source: Where it comes from.
        measured_at: When it was measured [µs since 1970]; of an untimed row the time of receipt.
        seq: Sequence number, -1 for none.
        mantissa: The value is mantissa · 10**exponent in the unit of its source, as sent; normal.
        exponent: Likewise.
        quality: Code of ``QUALITIES``.
        untimed: Whether it came without a time.
        corrects: Id of the reading that it replaces (16 bytes) and why.
        metadata: As sent.
        place: Where the sensor is, or whose the meter is.
        series: Series id.
        unknown: Whether the owner was never seen before.
        event_id: Its id, 16 bytes.
        state: What is decided.
        revision: Revision to write.
        event: Index in the commit of the event that holds it.
        found: What the register holds.
    """

    source: Source
    measured_at: int
    seq: int
    mantissa: int
    exponent: int
    quality: int
    untimed: bool = False
    corrects: tuple[bytes, str] | None = None
    metadata: Metadata | None = None
    place: Location | str | None = None

    series: int = 0
    unknown: bool = False
    event_id: bytes = field(init=False)
    state: int = PENDING
    revision: int = 0
    event: int = NOT_STORED
    found: Stored | None = None

    def __post_init__(self) -> None:
        self.event_id = reading_id(self.source, self.measured_at, self.seq, self.corrects[0] if self.corrects else None)

    @property
    def canonical(self) -> int:
        """Exponent in the canonical unit."""
        return self.exponent + self.source.shift if self.mantissa else 0

    @property
    def rows(self) -> int:
        """Number of rows."""
        return 1

    @property
    def refused(self) -> bool:
        """Whether nothing of this call may be stored; of one row that is no question."""
        return False

    def move_to(self, measured_at: int) -> None:
        """Give an untimed row another time."""
        self.measured_at = measured_at
        self.event_id = reading_id(self.source, measured_at, self.seq, None)

    def forget(self) -> None:
        """Take back that it was stored: the flush stored nothing."""
        if self.state == ACCEPTED:
            self.state = PENDING
        self.event = NOT_STORED

    def judge(self, revisions: Sequence[Stored], known: Callable[[bytes], bool]) -> None:
        """Decide a row whose key has *revisions*, ascending; *known* tells whether an id is a reading's."""
        if self.corrects is not None:
            value = self.mantissa, self.canonical, self.quality
            self.state, self.revision, self.found = judged_correction(
                revisions, value, self.event_id, replaced=self.corrects[0], known=known
            )
        elif revisions and self.untimed:
            self.move_to(self.measured_at + 1)
        elif revisions:
            same = revisions[0][1:4] == (self.mantissa, self.canonical, self.quality)
            self.state, self.found = (DUPLICATE, revisions[0]) if same else (CONFLICT, revisions[-1])


@dataclass(slots=True, kw_only=True, eq=False)
class Many(Caller):
    """
    A call with many rows.

    Attributes:
        columns: What to store.
        atomic: Whether one rejected row rejects all.
        doomed: Whether nothing may be stored anyhow, and only the verdicts are wanted.
        series: Series id of each source.
        unknown: Owners that were never seen before.
        state: What is decided, by row.
        ids: Event ids, by row.
        revision: Revision to write, by row.
        canonical: Exponent in the canonical unit, by row.
        event: Index in the commit of the event that holds the row.
        twin: Row → earlier row of the call with the same key.
        found: Row → what the register holds.
    """

    columns: Rows
    atomic: bool = False
    doomed: bool = False

    series: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    unknown: frozenset[Owner] = frozenset()
    state: NDArray[np.int8] = field(init=False)
    ids: Ids = field(init=False)
    revision: Ints = field(init=False)
    canonical: Exponents = field(init=False)
    event: Ints = field(init=False)
    twin: dict[int, int] = field(default_factory=dict[int, int])
    found: dict[int, Stored] = field(default_factory=dict[int, Stored])

    def __post_init__(self) -> None:
        columns = self.columns
        count = len(columns)
        self.state = np.zeros(count, np.int8)
        self.revision = np.zeros(count, np.int64)
        self.event = np.full(count, NOT_STORED, np.int64)
        self.canonical = np.where(columns.mantissa == 0, 0, columns.exponent + columns.shifts()).astype(np.int16)
        self.make_ids()

    def make_ids(self) -> None:
        """Make the event ids, again after times changed."""
        columns = self.columns
        self.ids = reading_ids(columns.sources, columns.source_of, columns.measured_at, columns.seq)
        for row, (replaced, _) in columns.corrects.items():
            source = columns.sources[int(columns.source_of[row])]
            made = reading_id(source, int(columns.measured_at[row]), int(columns.seq[row]), replaced)
            self.ids[row] = np.frombuffer(made, np.uint8)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.columns)

    @property
    def refused(self) -> bool:
        """Whether nothing of this call may be stored."""
        return self.doomed or (self.atomic and bool((self.state > DUPLICATE).any()))

    def pending(self) -> Ints:
        """Return the rows that are not decided."""
        return np.flatnonzero(self.state == PENDING)

    def is_untimed(self, row: int) -> bool:
        """Return whether *row* came without a time."""
        return self.columns.untimed is not None and bool(self.columns.untimed[row])

    def forget(self) -> None:
        """Take back what depends on a flush that stored nothing."""
        for row in self.twin:
            self.state[row] = PENDING
        self.twin.clear()
        self.state[self.state == ACCEPTED] = PENDING
        self.event[:] = NOT_STORED

    def want_places(self) -> None:
        """Reject the rows of unknown owners that come before one that tells where the owner is."""
        columns = self.columns
        for number, source in enumerate(columns.sources):
            if source.owner in self.unknown:
                of_source = np.flatnonzero(columns.source_of == number)
                first, _ = columns.places.get(source.owner, (len(columns), ""))
                self.state[of_source[of_source < first]] = NO_PLACE

    def judge(self, found: Mapping[int, Sequence[Stored]], known: Callable[[bytes], bool]) -> None:
        """Decide the rows whose keys have revisions in *found*; *known* tells whether an id is a reading's."""
        moved = False
        wanted = [*found, *(row for row in self.columns.corrects if row not in found)]
        for row in wanted:
            if self.state[row] == PENDING:
                moved = self._judge_row(row, found.get(row, ()), known) or moved
        if moved:
            self.make_ids()

    def _judge_row(self, row: int, revisions: Sequence[Stored], known: Callable[[bytes], bool]) -> bool:
        columns = self.columns
        if row in columns.corrects:
            replaced, made = columns.corrects[row][0], self.ids[row].tobytes()
            state, revision, held = judged_correction(revisions, self.value(row), made, replaced=replaced, known=known)
            self.state[row], self.revision[row] = state, revision
            if held is not None:
                self.found[row] = held
            return False
        if self.is_untimed(row):
            columns.measured_at[row] += 1
            return True
        same = revisions[0][1:4] == self.value(row)
        self.state[row], self.found[row] = (DUPLICATE, revisions[0]) if same else (CONFLICT, revisions[-1])
        return False

    def value(self, row: int) -> tuple[int, int, int]:
        """Return mantissa and exponent in the canonical unit, and quality."""
        return int(self.columns.mantissa[row]), int(self.canonical[row]), int(self.columns.quality[row])


Call = One | Many


def judged_correction(
    revisions: Sequence[Stored],
    value: tuple[int, int, int],
    made: bytes,
    *,
    replaced: bytes,
    known: Callable[[bytes], bool],
) -> tuple[int, int, Stored | None]:
    """
    Return state, revision to write, and what the register holds, of a correction.

    Args:
        revisions: Of its key, ascending.
        value: Canonical mantissa, exponent and quality.
        made: Its own id.
        replaced: The id it corrects.
        known: Tells whether an id is a reading's.
    """
    again = next((stored for stored in revisions if stored.event_id == made), None)
    if again is not None:
        return (DUPLICATE if again[1:4] == value else CORRECTION_CONFLICT), 0, again
    if revisions and revisions[-1].event_id == replaced:
        return PENDING, revisions[-1].revision + 1, None
    if known(replaced) or any(stored.event_id == replaced for stored in revisions):
        return CORRECTION_CONFLICT, 0, revisions[-1] if revisions else None
    return NOT_FOUND, 0, None


def settle_place(call: Call) -> None:
    """Reject what lacks the place of an owner that nobody has seen."""
    if isinstance(call, Many):
        if call.unknown:
            call.want_places()
    elif call.unknown and call.place is None:
        call.state = NO_PLACE


class Receipts:
    """Gives readings that came without a time the time of receipt, or the next free microsecond of their key."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, int], int] = {}

    def settle(self, call: Call) -> None:
        """Move untimed rows of *call* behind those that were settled before; its series are known."""
        if isinstance(call, One):
            if call.untimed:
                at = self._next((call.series, call.seq), call.measured_at)
                if at != call.measured_at:
                    call.move_to(at)
            return
        columns = call.columns
        if columns.untimed is None:
            return
        before = columns.measured_at.copy()
        for row in np.flatnonzero(columns.untimed).tolist():
            key = int(call.series[columns.source_of[row]]), int(columns.seq[row])
            columns.measured_at[row] = self._next(key, int(columns.measured_at[row]))
        if (before != columns.measured_at).any():
            call.make_ids()

    def _next(self, key: tuple[int, int], at: int) -> int:
        if len(self._last) > _MOST_KEYS:
            self._last.clear()
        at = max(at, self._last.get(key, -1) + 1)
        self._last[key] = at
        return at


def replaced_by(calls: Iterable[Call]) -> list[bytes]:
    """Return the ids that *calls* correct."""
    found: list[bytes] = []
    for call in calls:
        if isinstance(call, Many):
            found += [replaced for replaced, _ in call.columns.corrects.values()]
        elif call.corrects is not None:
            found.append(call.corrects[0])
    return found
