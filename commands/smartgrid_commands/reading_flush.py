"""
What one flush of readings stores.

The stores run it: look up what collides and let the calls judge it, :func:`plan`, write everything in one commit.
Whether a key is taken is decided by a unique index (or a dict) at the write; a collision there stores nothing, and the
flush is judged and planned again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smartgrid_commands.reading_calls import (
    ACCEPTED,
    CONFLICT,
    CORRECTION_CONFLICT,
    DUPLICATE,
    PENDING,
    Call,
    Many,
    One,
)
from smartgrid_commands.reading_packing import Origin, Packer, PlannedEvent, ranges
from smartgrid_commands.reading_rows import Ids, Owner, Source
from smartgrid_domain.maths.quantities import Exponents, Flags, Ints
from smartgrid_schemas.envelope import Metadata
from smartgrid_schemas.event import Event
from smartgrid_schemas.metering import MeterRegistered
from smartgrid_schemas.telemetry import Location, SensorRegistered


@dataclass(slots=True, kw_only=True)
class Columns:
    """
    Undecided rows of several calls, as arrays of one length.

    Attributes:
        owner: Index of the call.
        row: Row in that call.
        series: Series id.
        measured_at: [µs since 1970].
        seq: Sequence number, -1 for none.
        revision: Revision to write.
    """

    owner: Ints
    row: Ints
    series: Ints
    measured_at: Ints
    seq: Ints
    revision: Ints


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
        * No two rows have one key; a call that brings a key of an earlier one waits.
    """
    for call in calls:
        call.forget()
        if isinstance(call, Many):
            _settle_within(call)
    going = list(calls)
    deferred: list[Call] = []
    while late := _settle_between([call for call in going if not call.refused]):
        going = [call for call in going if call not in late]
        deferred += late
    storing = [call for call in going if not call.refused and _has_pending(call)]
    sights, owners = _sights(storing)
    return _packed(going, storing, deferred, sights, owners)


def _has_pending(call: Call) -> bool:
    return call.state == PENDING if isinstance(call, One) else bool((call.state == PENDING).any())


def _settle_within(call: Many) -> None:
    """Decide the rows of *call* whose key an earlier row of it has."""
    while call.rows > 1:
        columns, same = _by_key([call])
        moved = False
        leader = 0
        for at in np.flatnonzero(same).tolist():
            row = int(columns.row[at + 1])
            leader = leader if at and same[at - 1] else int(columns.row[at])
            if call.is_untimed(row):
                call.columns.measured_at[row] += 1
                moved = True
            else:
                _settle_twin(call, leader, row)
        if not moved:
            return
        call.forget()
        call.make_ids()


def _settle_twin(call: Many, leader: int, row: int) -> None:
    same = call.value(row) == call.value(leader) and call.ids[row].tobytes() == call.ids[leader].tobytes()
    call.twin[row] = leader
    if same:
        call.state[row] = DUPLICATE
    else:
        call.state[row] = CORRECTION_CONFLICT if row in call.columns.corrects else CONFLICT


def _settle_between(storing: Sequence[Call]) -> list[Call]:
    """Return the calls that bring a key of an earlier one; their untimed rows move on instead."""
    if all(isinstance(call, One) for call in storing):
        return _settle_singles([call for call in storing if isinstance(call, One)])
    while True:
        columns, same = _by_key(storing)
        late: dict[int, Call] = {}
        moved: dict[int, Call] = {}
        leader = 0
        for at in np.flatnonzero(same).tolist():
            leader = leader if at and same[at - 1] else int(columns.owner[at])
            number, row = int(columns.owner[at + 1]), int(columns.row[at + 1])
            call = storing[number]
            if number == leader:
                continue
            if _step_aside(call, row):
                moved[number] = call
            else:
                late[number] = call
        for call in moved.values():
            if isinstance(call, Many):
                call.forget()
                call.make_ids()
                _settle_within(call)
        if late or not moved:
            return list(late.values())


def _step_aside(call: Call, row: int) -> bool:
    """Give an untimed row the next microsecond; return whether it is one."""
    if isinstance(call, One):
        if call.untimed:
            call.move_to(call.measured_at + 1)
        return call.untimed
    if call.is_untimed(row):
        call.columns.measured_at[row] += 1
        return True
    return False


def _settle_singles(storing: Sequence[One]) -> list[Call]:
    seen: set[tuple[int, int, int, int]] = set()
    late: list[Call] = []
    for call in storing:
        if call.state != PENDING:
            continue
        key = call.series, call.measured_at, call.seq, call.revision
        while key in seen and call.untimed:
            call.move_to(call.measured_at + 1)
            key = call.series, call.measured_at, call.seq, call.revision
        if key in seen:
            late.append(call)
        seen.add(key)
    return late


def gather(calls: Sequence[Call]) -> Columns:
    """Return the undecided rows of *calls*, call by call."""
    if len(calls) == 1 and isinstance(call := calls[0], Many):
        rows = call.pending()
        columns = call.columns
        return Columns(
            owner=np.zeros(len(rows), np.int64),
            row=rows,
            series=call.series[columns.source_of[rows]],
            measured_at=columns.measured_at[rows],
            seq=columns.seq[rows],
            revision=call.revision[rows],
        )
    if all(isinstance(call, One) for call in calls):
        ones = [(n, 0, c.series, c.measured_at, c.seq, c.revision) for n, c in _pending_ones(calls)]
        table = np.array(ones, np.int64).reshape(-1, 6)
        return Columns(**{name: table[:, at] for at, name in enumerate(Columns.__slots__)})
    parts = [gather([call]) for call in calls]
    lengths = [len(part.row) for part in parts]
    result = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Columns.__slots__}
    return Columns(**{**result, "owner": np.repeat(np.arange(len(calls)), lengths)})


def _pending_ones(calls: Sequence[Call]) -> list[tuple[int, One]]:
    return [(n, call) for n, call in enumerate(calls) if isinstance(call, One) and call.state == PENDING]


def _by_key(calls: Sequence[Call]) -> tuple[Columns, Flags]:
    """Return the undecided rows ordered by key, then as they came, and which have the key of the one before them."""
    columns = gather(calls)
    order = np.lexsort((columns.revision, columns.seq, columns.measured_at, columns.series))
    ordered = Columns(**{name: getattr(columns, name)[order] for name in Columns.__slots__})
    same = np.ones(max(0, len(order) - 1), np.bool_)
    for column in (ordered.series, ordered.measured_at, ordered.seq, ordered.revision):
        same &= column[1:] == column[:-1]
    return ordered, same


def _sights(storing: Sequence[Call]) -> tuple[list[PlannedEvent], list[Owner]]:
    events: list[PlannedEvent] = []
    owners: dict[Owner, None] = {}
    for call in storing:
        if not call.unknown:
            continue
        for owner, place in _new_places(call).items():
            if owner in owners:
                continue
            owners[owner] = None
            subject, key = owner
            event: Event = (
                SensorRegistered(sensor_id=key, location=place)
                if isinstance(place, Location)
                else MeterRegistered(meter_id=key, customer_id=place)
            )
            metadata = Metadata(actor=call.actor, correlation_id=call.correlation_id)
            events.append(PlannedEvent(f"{subject}:{key}", event, metadata, first=True))
    return events, list(owners)


def _new_places(call: Call) -> dict[Owner, Location | str]:
    if isinstance(call, One):
        return {call.source.owner: call.place} if call.place is not None else {}
    columns = call.columns
    used: list[int] = np.unique(columns.source_of[call.pending()]).tolist()
    wanted = {columns.sources[source].owner for source in used} & call.unknown
    return {owner: place for owner, (_, place) in columns.places.items() if owner in wanted}


class _Values(NamedTuple):
    """What the register needs besides keys, and the values as sent, by row."""

    mantissa: Ints
    canonical: Exponents
    exponent: Exponents
    quality: NDArray[np.int8]
    ids: Ids


def _values(storing: Sequence[Call]) -> _Values:
    if all(isinstance(call, One) for call in storing):
        ones = [call for _, call in _pending_ones(storing)]
        table = np.array([(c.mantissa, c.canonical, c.exponent, c.quality) for c in ones], np.int64).reshape(-1, 4)
        ids = np.frombuffer(b"".join([call.event_id for call in ones]), np.uint8).reshape(-1, 16)
        short = table[:, 1:].astype(np.int16)
        return _Values(table[:, 0], short[:, 0], short[:, 1], short[:, 2].astype(np.int8), ids)
    if len(storing) == 1 and isinstance(call := storing[0], Many):
        rows, columns = call.pending(), call.columns
        return _Values(
            columns.mantissa[rows], call.canonical[rows], columns.exponent[rows], columns.quality[rows], call.ids[rows]
        )
    parts = [_values([call]) for call in storing]
    return _Values(
        np.concatenate([part.mantissa for part in parts]),
        np.concatenate([part.canonical for part in parts]),
        np.concatenate([part.exponent for part in parts]),
        np.concatenate([part.quality for part in parts]),
        np.concatenate([part.ids for part in parts]),
    )


def _packed(
    going: list[Call], storing: list[Call], deferred: list[Call], events: list[PlannedEvent], owners: list[Owner]
) -> Plan:
    columns, values = gather(storing), _values(storing)
    sources, source_of = _common_sources(storing, columns)
    by_kind = sorted(range(len(sources)), key=lambda number: sources[number].kind)
    rank = np.empty(len(sources), np.int64)
    rank[by_kind] = np.arange(len(sources))
    ranks = rank[source_of]
    order = np.argsort(ranks, kind="stable")
    ranks = ranks[order]
    ranked = [sources[number] for number in by_kind]
    result = Plan(
        events=events,
        calls=going,
        deferred=deferred,
        owners=owners,
        series=columns.series[order],
        measured_at=columns.measured_at[order],
        seq=columns.seq[order],
        revision=columns.revision[order],
        mantissa=values.mantissa[order],
        exponent=values.canonical[order],
        quality=values.quality[order],
        ids=values.ids[order],
        event=np.zeros(len(order), np.int64),
    )
    origin = Origin(calls=storing, owner=columns.owner[order], row=columns.row[order])
    packer = Packer(origin, ranked, ranks, result.measured_at, result.mantissa, values.exponent[order])
    packer.more(result.quality, result.seq)
    kinds = np.cumsum([0, *(a.kind != b.kind for a, b in pairwise(ranked))])
    for start, end in ranges(kinds[ranks], packer.weights()):
        result.event[start:end] = len(events)
        events.append(packer.event(start, end))
    _mark(origin, result.event)
    return result


def _mark(origin: Origin, event: Ints) -> None:
    """Tell the calls which event holds each of their rows."""
    if len(origin.calls) == 1 and isinstance(call := origin.calls[0], Many):
        call.event[origin.row] = event
        call.state[origin.row] = ACCEPTED
        return
    owners: list[int] = origin.owner.tolist()
    for number, row, index in zip(owners, origin.row.tolist(), event.tolist(), strict=True):
        call = origin.calls[number]
        if isinstance(call, One):
            call.event, call.state = index, ACCEPTED
        else:
            call.event[row], call.state[row] = index, ACCEPTED


def _common_sources(storing: Sequence[Call], columns: Columns) -> tuple[list[Source], Ints]:
    if len(storing) == 1 and isinstance(call := storing[0], Many):
        return list(call.columns.sources), call.columns.source_of[columns.row]
    index: dict[int, int] = {}
    sources: list[Source] = []

    def number_of(source: Source) -> int:
        # Sources are shared, so the object tells; two equal ones merely make two runs.
        number = index.setdefault(id(source), len(sources))
        if number == len(sources):
            sources.append(source)
        return number

    parts: list[Any] = []
    for call in storing:
        if isinstance(call, One):
            parts.append([number_of(call.source)])
        else:
            numbers = np.array([number_of(source) for source in call.columns.sources], np.int64)
            parts.append(numbers[call.columns.source_of[call.pending()]])
    return sources, np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)
