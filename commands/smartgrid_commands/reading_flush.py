"""
What one flush of readings stores: judged against the register, packed into events.

The stores run it: look up what collides, :func:`judge`, :func:`plan`, write everything in one commit. Whether a key is
taken is decided by a unique index (or a dict) at the write; a collision there stores nothing and the flush is judged
and planned again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple
from uuid import UUID

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from smartgrid_commands.reading_rows import (
    NO_PHASE,
    Ids,
    Owner,
    Rows,
    Source,
    correction_id,
    reading_ids,
)
from smartgrid_domain.maths.columns import MOST_ROWS, pack_meter_readings, pack_readings, rows_of
from smartgrid_domain.maths.quantities import Exponents, Ints
from smartgrid_schemas.envelope import Metadata
from smartgrid_schemas.event import Event
from smartgrid_schemas.metering import MeterRegistered, RegisterKey
from smartgrid_schemas.telemetry import Corrects, Location, SensorRegistered, SeriesKey

PENDING, ACCEPTED, DUPLICATE, CONFLICT, NOT_FOUND, CORRECTION_CONFLICT, NO_PLACE = range(7)
"""What is decided of a row; up to :data:`DUPLICATE` it is no reason to refuse a batch."""

MOST_EVENT_BYTES: Final = 480_000
"""Rows of one event are estimated to stay below this [bytes]; the limit is 512 KiB."""

_ROW_BYTES: Final = 40
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
class Call:
    """
    One caller's rows on their way into the log; the first block is given, the rest is filled in.

    Attributes:
        rows: What to store.
        atomic: Whether one rejected row rejects all.
        doomed: Whether nothing may be stored anyhow, and only the verdicts are wanted.
        actor: Who asks.
        correlation_id: Id of the request.
        lease: Its right to answer, with :attr:`answer`.
        answer: Makes what the record of the key keeps of this call.
        series: Series id of each source.
        unknown: Owners that were never seen before.
        state: What is decided, by row.
        ids: Event ids, by row.
        revision: Revision to write, by row.
        exponent: Exponent in the canonical unit, by row.
        event: Index in the commit of the event that holds the row, -1 for none.
        twin: Row → earlier row of the call with the same key.
        found: Row → what the register holds.
        first_position: Position of the commit's first event; 0 when there was no commit.
        recorded_at: Time of the commit.
    """

    rows: Rows
    atomic: bool = False
    doomed: bool = False
    actor: str | None = None
    correlation_id: str | None = None
    lease: Lease | None = None
    answer: Callable[["Call"], bytes] | None = None

    series: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    unknown: frozenset[Owner] = frozenset()
    state: NDArray[np.int8] = field(init=False)
    ids: Ids = field(init=False)
    revision: Ints = field(init=False)
    exponent: Exponents = field(init=False)
    event: Ints = field(init=False)
    twin: dict[int, int] = field(default_factory=dict[int, int])
    found: dict[int, Stored] = field(default_factory=dict[int, Stored])
    first_position: int = 0
    recorded_at: Any = None

    def __post_init__(self) -> None:
        rows = self.rows
        count = len(rows)
        self.state = np.zeros(count, np.int8)
        self.revision = np.zeros(count, np.int64)
        self.event = np.full(count, -1, np.int64)
        self.exponent = np.where(rows.mantissa == 0, 0, rows.exponent + rows.shifts()).astype(np.int16)
        self.make_ids()

    def make_ids(self) -> None:
        """Make the event ids, after times changed."""
        rows = self.rows
        self.ids = reading_ids(rows.sources, rows.source_of, rows.measured_at, rows.seq)
        for row, (replaced, _) in rows.corrects.items():
            source = rows.sources[rows.source_of[row]]
            made = correction_id(source, int(rows.measured_at[row]), int(rows.seq[row]), replaced)
            self.ids[row] = np.frombuffer(made, np.uint8)

    @property
    def refused(self) -> bool:
        """Whether nothing of this call may be stored."""
        return self.doomed or (self.atomic and bool((self.state > DUPLICATE).any()))

    def position_of(self, row: int) -> int:
        """Return the position of the event that holds *row* or what it repeats; 0 for neither."""
        row = self.twin.get(row, row)
        if self.state[row] == ACCEPTED:
            return self.first_position + int(self.event[row])
        return self.found[row].position if row in self.found else 0

    def forget(self) -> None:
        """Take back what depends on the other calls of a flush that stored nothing."""
        for row in self.twin:
            self.state[row] = PENDING
        self.twin.clear()
        self.state[self.state == ACCEPTED] = PENDING
        self.event[:] = -1


class Receipts:
    """Gives readings that came without a time the time of receipt, or the next free microsecond of their key."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, int], int] = {}

    def settle(self, call: Call) -> None:
        """Move untimed rows of *call* behind those that were settled before; its series are known."""
        rows = call.rows
        if rows.untimed is None:
            return
        if len(self._last) > _MOST_KEYS:
            self._last.clear()
        moved = False
        for row in np.flatnonzero(rows.untimed).tolist():
            key = int(call.series[rows.source_of[row]]), int(rows.seq[row])
            at = int(rows.measured_at[row])
            last = self._last.get(key, -1)
            if at <= last:
                at = last + 1
                rows.measured_at[row] = at
                moved = True
            self._last[key] = at
        if moved:
            call.make_ids()


def want_places(call: Call) -> None:
    """Reject the rows of unknown owners that come before one that tells where the owner is."""
    rows = call.rows
    for number, source in enumerate(rows.sources):
        if source.owner in call.unknown:
            of_source = np.flatnonzero(rows.source_of == number)
            first, _ = rows.places.get(source.owner, (len(rows), ""))
            call.state[of_source[of_source < first]] = NO_PLACE


def judge(call: Call, found: Mapping[int, Sequence[Stored]], known_ids: Iterable[bytes]) -> None:
    """
    Decide the rows of *call* whose keys the register holds.

    Args:
        call: Its undecided rows are looked at.
        found: Row → all revisions of its key, by ascending revision.
        known_ids: Those ids that corrections of *call* replace and that exist.
    """
    rows = call.rows
    moved = False
    known = set(known_ids)
    for row in rows.corrects:
        if row not in found and call.state[row] == PENDING:
            call.state[row] = CORRECTION_CONFLICT if rows.corrects[row][0] in known else NOT_FOUND
    for row, revisions in found.items():
        if call.state[row] != PENDING:
            continue
        if row in rows.corrects:
            _judge_correction(call, row, revisions, known)
        elif rows.untimed is not None and rows.untimed[row]:
            rows.measured_at[row] += 1
            moved = True
        elif _repeats(call, row, revisions[0]):
            call.state[row], call.found[row] = DUPLICATE, revisions[0]
        else:
            call.state[row], call.found[row] = CONFLICT, revisions[-1]
    if moved:
        call.make_ids()


def _repeats(call: Call, row: int, stored: Stored) -> bool:
    sent = (int(call.rows.mantissa[row]), int(call.exponent[row]), int(call.rows.quality[row]))
    return sent == (stored.mantissa, stored.exponent, stored.quality)


def _judge_correction(call: Call, row: int, revisions: Sequence[Stored], known: set[bytes]) -> None:
    replaced, made = call.rows.corrects[row][0], call.ids[row].tobytes()
    again = next((stored for stored in revisions if stored.event_id == made), None)
    if again is not None:
        call.found[row] = again
        call.state[row] = DUPLICATE if _repeats(call, row, again) else CORRECTION_CONFLICT
    elif revisions[-1].event_id == replaced:
        call.revision[row] = revisions[-1].revision + 1
    elif replaced in known or any(stored.event_id == replaced for stored in revisions):
        call.state[row], call.found[row] = CORRECTION_CONFLICT, revisions[-1]
    else:
        call.state[row] = NOT_FOUND


class PlannedEvent(NamedTuple):
    """One event of a commit: its stream, body and cause; *first* when its stream begins with it."""

    stream: str
    event: Event
    metadata: Metadata
    first: bool


@dataclass(slots=True, kw_only=True)
class Plan:
    """
    A commit.

    Attributes:
        events: In order; may be none.
        calls: The calls that it decides, with their states.
        deferred: Calls that have to wait for the outcome, since they bring keys of it.
        owners: Owners that are registered by it.
        series: The rows of the register, in the order of the events.
        measured_at: Likewise [µs since 1970].
        seq: Likewise.
        revision: Likewise.
        mantissa: Likewise, in the canonical unit.
        exponent: Likewise.
        quality: Likewise.
        ids: Likewise.
        event: Index of the event of each row.
    """

    events: list[PlannedEvent]
    calls: list[Call]
    deferred: list[Call]
    owners: list[Owner]
    series: Ints
    measured_at: Ints
    seq: Ints
    revision: Ints
    mantissa: Ints
    exponent: Exponents
    quality: NDArray[np.int8]
    ids: Ids
    event: Ints


def plan(calls: Sequence[Call]) -> Plan:
    """
    Return the commit of the undecided rows of *calls*, each of them judged already if the register holds its key.

    Guarantees:
        * A call is all or nothing where it is atomic; rows of one event share shard and kind.
        * No two rows have one key, and no row one of a deferred call's earlier neighbour.
    """
    for call in calls:
        call.forget()
        _settle_within(call)
    going = list(calls)
    deferred: list[Call] = []
    while late := _settle_between([call for call in going if not call.refused]):
        going = [call for call in going if call not in late]
        deferred += late
    storing = [call for call in going if not call.refused and bool((call.state == PENDING).any())]
    sights, owners = _sights(storing)
    return _pack(going, storing, deferred, sights, owners)


def _settle_within(call: Call) -> None:
    """Decide the rows of *call* whose key an earlier row of it has."""
    if len(call.rows) < 2:  # noqa: PLR2004  # one row repeats nothing
        return
    while True:
        _, rows, same = _same_keys([call])
        moved = False
        leader = 0
        for at, equal in enumerate(same.tolist(), 1):
            if not equal:
                leader = at
            elif _is_untimed(call, row := int(rows[at])):
                call.rows.measured_at[row] += 1
                moved = True
            else:
                _settle_twin(call, int(rows[leader]), row)
        if not moved:
            return
        call.forget()
        call.make_ids()


def _settle_between(storing: Sequence[Call]) -> list[Call]:
    """Return the calls that bring a key of an earlier one; their untimed rows move on instead."""
    while len(storing) > 1:
        owner, rows, same = _same_keys(storing)
        late: dict[int, Call] = {}
        moved: set[int] = set()
        leader = 0
        for at, equal in enumerate(same.tolist(), 1):
            number = int(owner[at])
            if not equal:
                leader = at
            elif number != owner[leader]:
                call, row = storing[number], int(rows[at])
                if _is_untimed(call, row):
                    call.rows.measured_at[row] += 1
                    moved.add(number)
                else:
                    late[number] = call
        for number in moved:
            storing[number].forget()
            storing[number].make_ids()
            _settle_within(storing[number])
        if late or not moved:
            return list(late.values())
    return []


def _is_untimed(call: Call, row: int) -> bool:
    return call.rows.untimed is not None and bool(call.rows.untimed[row])


def _same_keys(calls: Sequence[Call]) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """
    Return the undecided rows of *calls* ordered by key, then as they came.

    Returns:
        Index of the call of each row, row in that call, and for all but the first row whether it has the key of the
        row before it.
    """
    picked = [np.flatnonzero(call.state == PENDING) for call in calls]
    series = np.concatenate([call.series[call.rows.source_of[r]] for call, r in zip(calls, picked, strict=True)])
    at = np.concatenate([call.rows.measured_at[r] for call, r in zip(calls, picked, strict=True)])
    seq = np.concatenate([call.rows.seq[r] for call, r in zip(calls, picked, strict=True)])
    revision = np.concatenate([call.revision[r] for call, r in zip(calls, picked, strict=True)])
    order = np.lexsort((revision, seq, at, series))
    same = np.ones(max(0, len(order) - 1), np.bool_)
    for column in (series, at, seq, revision):
        ordered = column[order]
        same &= ordered[1:] == ordered[:-1]
    owner = np.repeat(np.arange(len(calls)), [len(rows) for rows in picked])
    return owner[order], np.concatenate(picked)[order], same


def _settle_twin(call: Call, leader: int, row: int) -> None:
    rows = call.rows
    value = (rows.mantissa[row], call.exponent[row], rows.quality[row], call.ids[row].tobytes())
    first = (rows.mantissa[leader], call.exponent[leader], rows.quality[leader], call.ids[leader].tobytes())
    call.twin[row] = leader
    if value == first:
        call.state[row] = DUPLICATE
    else:
        call.state[row] = CORRECTION_CONFLICT if row in rows.corrects else CONFLICT


def _sights(storing: Sequence[Call]) -> tuple[list[PlannedEvent], list[Owner]]:
    events: list[PlannedEvent] = []
    owners: dict[Owner, None] = {}
    for call in storing:
        if not call.unknown:
            continue
        rows = call.rows
        wanted = {rows.sources[s].owner for s in np.unique(rows.source_of[call.state == PENDING]).tolist()}
        for owner in (owner for owner in rows.places if owner in wanted & call.unknown and owner not in owners):
            owners[owner] = None
            subject, key = owner
            place = rows.places[owner][1]
            event: Event = (
                SensorRegistered(sensor_id=key, location=place)
                if isinstance(place, Location)
                else MeterRegistered(meter_id=key, customer_id=place)
            )
            metadata = Metadata(actor=call.actor, correlation_id=call.correlation_id)
            events.append(PlannedEvent(f"{subject}:{key}", event, metadata, first=True))
    return events, list(owners)


def _pack(
    going: list[Call], storing: list[Call], deferred: list[Call], events: list[PlannedEvent], owners: list[Owner]
) -> Plan:
    picked = [np.flatnonzero(call.state == PENDING) for call in storing]
    sources, source_of = _common_sources(storing, picked)
    kinds = [(source.subject, source.shard) for source in sources]
    by_kind = sorted(range(len(sources)), key=lambda number: (kinds[number], number))
    rank = np.empty(len(sources), np.int64)
    rank[by_kind] = np.arange(len(sources))
    ranks = rank[source_of]
    order = np.argsort(ranks, kind="stable")
    owner = np.repeat(np.arange(len(storing)), [len(rows) for rows in picked])[order]
    rows = _joined(picked, np.int64)[order]

    def column(of: Callable[[Call], NDArray[Any]]) -> NDArray[Any]:
        parts = [of(call)[wanted] for call, wanted in zip(storing, picked, strict=True)]
        return np.concatenate(parts)[order] if parts else of(_EMPTY)

    result = Plan(
        events=events,
        calls=going,
        deferred=deferred,
        owners=owners,
        series=column(lambda call: call.series[call.rows.source_of]),
        measured_at=column(lambda call: call.rows.measured_at),
        seq=column(lambda call: call.rows.seq),
        revision=column(lambda call: call.revision),
        mantissa=column(lambda call: call.rows.mantissa),
        exponent=column(lambda call: call.exponent),
        quality=column(lambda call: call.rows.quality),
        ids=column(lambda call: call.ids),
        event=np.zeros(len(rows), np.int64),
    )
    sent_exponent = column(lambda call: call.rows.exponent)
    ranks = ranks[order]
    kind_of = _kind_numbers([kinds[number] for number in by_kind])[ranks]
    packer = _Packer(storing, owner, rows, ranks, [sources[number] for number in by_kind], result, sent_exponent)
    for start, end in _ranges(kind_of, packer.weights()):
        result.event[start:end] = len(result.events)
        result.events.append(packer.event(start, end))
    for number, call in enumerate(storing):
        mine = owner == number if len(storing) > 1 else slice(None)
        call.event[rows[mine]] = result.event[mine]
        call.state[rows[mine]] = ACCEPTED
    return result


def _common_sources(storing: Sequence[Call], picked: Sequence[Ints]) -> tuple[list[Source], Ints]:
    if len(storing) == 1:
        return list(storing[0].rows.sources), storing[0].rows.source_of[picked[0]]
    index: dict[Source, int] = {}
    parts: list[Ints] = []
    for call, rows in zip(storing, picked, strict=True):
        numbers = np.array([index.setdefault(source, len(index)) for source in call.rows.sources], np.int64)
        parts.append(numbers[call.rows.source_of[rows]])
    return list(index), _joined(parts, np.int64)


def _joined(parts: Sequence[Ints], kind: Any) -> Ints:  # noqa: ANN401  # a numpy type
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def _kind_numbers(kinds: Sequence[object]) -> Ints:
    index: dict[object, int] = {}
    return np.array([index.setdefault(kind, len(index)) for kind in kinds], np.int64)


def _ranges(kind_of: Ints, weights: Ints | None) -> list[tuple[int, int]]:
    """Cut rows into events: one kind each, within the limits of rows and bytes."""
    if not len(kind_of):
        return []
    edges = [0, *(np.flatnonzero(np.diff(kind_of)) + 1).tolist(), len(kind_of)]
    result: list[tuple[int, int]] = []
    for start, end in pairwise(edges):
        at = start
        while at < end:
            stop = min(end, at + MOST_ROWS)
            if weights is not None:
                sizes = np.cumsum(weights[at:stop])
                stop = at + max(1, int(np.searchsorted(sizes, MOST_EVENT_BYTES, side="right")))
            result.append((at, stop))
            at = stop
    return result


class _Packer:
    """Makes the events of consecutive rows of a plan."""

    def __init__(  # noqa: PLR0913  # the columns of a plan and where they came from
        self,
        storing: Sequence[Call],
        owner: Ints,
        rows: Ints,
        ranks: Ints,
        sources: Sequence[Source],
        result: Plan,
        exponent: Exponents,
    ) -> None:
        self._storing = storing
        self._owner = owner
        self._rows = rows
        self._ranks = ranks
        self._sources = sources
        self._plan = result
        self._exponent = exponent
        self._extras = any(call.rows.corrects or call.rows.metadata for call in storing)

    def weights(self) -> Ints | None:
        """Return an upper estimate of the bytes of each row, None when all rows are plain."""
        if not self._extras:
            return None
        result = np.full(len(self._rows), _ROW_BYTES, np.int64)
        for at, (call, row) in enumerate(self._origins(0, len(self._rows))):
            if row in call.rows.metadata:
                result[at] += sum(len(str(k)) + len(str(v)) for k, v in call.rows.metadata[row].items()) * 4 + 32
            if row in call.rows.corrects:
                result[at] += 4 * len(call.rows.corrects[row][1]) + 32
        return result

    def _origins(self, start: int, end: int) -> Iterable[tuple[Call, int]]:
        return (
            (self._storing[number], row)
            for number, row in zip(self._owner[start:end].tolist(), self._rows[start:end].tolist(), strict=True)
        )

    def event(self, start: int, end: int) -> PlannedEvent:
        """Return the event of rows *start* … *end*, which share kind and shard."""
        ranks = self._ranks[start:end]
        steps = np.flatnonzero(np.diff(ranks)) + 1
        index = np.zeros(end - start, np.int64)
        index[steps] = 1
        starts = np.concatenate((np.zeros(1, np.int64), steps))
        sources = [self._sources[rank] for rank in ranks[starts].tolist()]
        callers = [self._storing[number] for number in dict.fromkeys(self._owner[start:end].tolist())]
        requests, request_of = self._requests(callers, start, end)
        corrects: list[Corrects] = []
        metadata: list[tuple[int, dict[str, Any]]] = []
        if self._extras:
            for at, (call, row) in enumerate(self._origins(start, end)):
                if row in call.rows.corrects:
                    corrects.append(Corrects(at, *call.rows.corrects[row]))
                if row in call.rows.metadata:
                    metadata.append((at, call.rows.metadata[row]))
        whole = self._plan
        packed = rows_of(
            np.cumsum(index),
            whole.measured_at[start:end],
            whole.mantissa[start:end],
            self._exponent[start:end],
            quality=whole.quality[start:end],
            seq=whole.seq[start:end],
            corrects=corrects,
            metadata=metadata,
            requests=requests,
            request_of=request_of,
        )
        actors = {call.actor for call in callers}
        envelope = Metadata(
            actor=callers[0].actor if len(actors) == 1 else None,
            correlation_id=None if requests else callers[0].correlation_id,
        )
        shard = sources[0].shard
        if sources[0].subject == "sensor":
            keys = [
                SeriesKey(s.subject_id, s.measurand, None if s.phase == NO_PHASE else s.phase, s.unit) for s in sources
            ]
            return PlannedEvent(f"readings:{shard}", pack_readings(shard, keys, packed), envelope, first=False)
        registers = [RegisterKey(s.subject_id, s.measurand, s.unit) for s in sources]
        return PlannedEvent(f"registers:{shard}", pack_meter_readings(shard, registers, packed), envelope, first=False)

    def _requests(self, callers: Sequence[Call], start: int, end: int) -> tuple[list[str], Ints | None]:
        names = {call.correlation_id or "" for call in callers}
        if len(names) == 1:
            return [], None
        index: dict[str, int] = {}
        numbers = np.zeros(len(self._storing), np.int64)
        for number in dict.fromkeys(self._owner[start:end].tolist()):
            name = self._storing[number].correlation_id or ""
            numbers[number] = index.setdefault(name, len(index))
        return list(index), numbers[self._owner[start:end]]


_EMPTY: Final = Call(
    rows=Rows(
        sources=(),
        source_of=np.zeros(0, np.int64),
        measured_at=np.zeros(0, np.int64),
        seq=np.zeros(0, np.int64),
        mantissa=np.zeros(0, np.int64),
        exponent=np.zeros(0, np.int16),
        quality=np.zeros(0, np.int8),
        item=np.zeros(0, np.int64),
    )
)
