"""Readings and the answers of keys in memory: the model that the real ones are compared to."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from uuid import UUID, uuid4

import numpy as np

from smartgrid_commands.idempotency import KEPT_S, LEASE_S, Kept, key_hash
from smartgrid_commands.ports import ANY_VERSION, EventStore, StreamWrite
from smartgrid_commands.reading_calls import (
    Call,
    Lease,
    LeaseLost,
    Many,
    Receipts,
    Stored,
    replaced_by,
    settle_place,
)
from smartgrid_commands.reading_flush import Plan, gather, plan
from smartgrid_commands.reading_rows import Owner
from smartgrid_domain.errors import Conflict, Invalid

LOG = "telemetry"
Key = tuple[int, int, int]


@dataclass
class _Kept:
    request: bytes
    lease: UUID
    lease_until: datetime
    created_at: datetime
    answer: bytes | None = None
    first_position: int = 0


class MemoryIdempotencyKeys:
    """
    Fulfils ``IdempotencyKeys``.

    Args:
        now: The clock.
        kept: Where answers are kept.
    """

    def __init__(
        self,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        kept: dict[tuple[str, bytes], _Kept] | None = None,
    ) -> None:
        self._now = now
        self._kept: dict[tuple[str, bytes], _Kept] = {} if kept is None else kept

    def with_clock(self, now: Callable[[], datetime]) -> "MemoryIdempotencyKeys":
        """Return what keeps its answers here as well, by another clock."""
        return MemoryIdempotencyKeys(now, self._kept)

    async def claim(self, principal: str, key: str, request: bytes) -> Lease | Kept:
        now, place = self._now(), (principal, key_hash(key))
        known = self._kept.get(place)
        if known is not None and now - known.created_at <= timedelta(seconds=KEPT_S):
            if known.request != request:
                raise Invalid("idempotency_key_reused", "This Idempotency-Key was sent with another request")
            if known.answer is not None:
                return Kept(answer=known.answer, first_position=known.first_position)
            if known.lease_until >= now:
                raise Conflict("idempotency_in_progress", "The first request with this key is being answered")
        lease = Lease(principal=principal, key_hash=place[1], token=uuid4())
        self._kept[place] = _Kept(request, lease.token, now + timedelta(seconds=LEASE_S), now)
        return lease

    async def keep(self, lease: Lease, answer: bytes) -> None:
        self.finish(lease, answer, 0)

    async def release(self, lease: Lease) -> None:
        if self.holds(lease):
            del self._kept[lease.principal, lease.key_hash]

    def holds(self, lease: Lease) -> bool:
        """Return whether *lease* may still answer."""
        known = self._kept.get((lease.principal, lease.key_hash))
        return known is not None and known.lease == lease.token and known.answer is None

    def finish(self, lease: Lease, answer: bytes, first_position: int) -> None:
        """Keep *answer*, in the commit at *first_position*; raises LeaseLost."""
        if not self.holds(lease):
            raise LeaseLost
        known = self._kept[lease.principal, lease.key_hash]
        known.answer, known.first_position = answer, first_position


class MemoryReadingStore:
    """
    Fulfils ``ReadingStore`` over the telemetry log of *store*.

    Args:
        store: The event store.
        keys: Where the answers of leases are kept.

    Attributes:
        register: All revisions of each natural key (series id, µs since 1970, sequence number).
    """

    def __init__(self, store: EventStore, keys: MemoryIdempotencyKeys | None = None) -> None:
        self._store = store
        self._keys = keys or MemoryIdempotencyKeys()
        self._series: dict[tuple[str, ...], int] = {}
        self._seen: set[Owner] = set()
        self._times: dict[int, datetime] = {}
        self._receipts = Receipts()
        self._turn = asyncio.Lock()
        self.register: dict[Key, list[Stored]] = {}

    @property
    def series(self) -> Mapping[tuple[str, ...], int]:
        """Id of each series: subject, whose, measurand, phase."""
        return self._series

    async def record(self, call: Call) -> None:
        async with self._turn:
            sources = call.columns.sources if isinstance(call, Many) else [call.source]
            ids = [self._series.setdefault(source.series, len(self._series) + 1) for source in sources]
            strangers = {source.owner for source in sources} - self._seen
            if isinstance(call, Many):
                call.series, call.unknown = np.array(ids, np.int64), frozenset(strangers)
            else:
                call.series, call.unknown = ids[0], bool(strangers)
            settle_place(call)
            self._receipts.settle(call)
            while self._judge(call):  # untimed readings move on until their key is free
                pass
            commit = plan([call])
            if call.lease is not None and not self._keys.holds(call.lease):
                raise LeaseLost
            if commit.events:
                await self._write(commit)
                self._seen.update(commit.owners)
            if call.lease is not None and call.answer is not None:
                self._keys.finish(call.lease, call.answer(), call.first_position)

    def _judge(self, call: Call) -> bool:
        columns = gather([call])
        keys = zip(columns.series.tolist(), columns.measured_at.tolist(), columns.seq.tolist(), strict=True)
        rows = columns.row.tolist()
        found = {row: self.register[key] for row, key in zip(rows, keys, strict=True) if key in self.register}
        ids: set[bytes] = set()
        if replaced_by([call]):
            ids = {stored.event_id for revisions in self.register.values() for stored in revisions}
        if isinstance(call, Many):
            before = call.columns.measured_at.copy()
            call.judge(found, ids.__contains__)
            return bool((before != call.columns.measured_at).any())
        at = call.measured_at
        if rows:
            call.judge(found.get(0, ()), ids.__contains__)
        return at != call.measured_at

    async def _write(self, commit: Plan) -> None:
        writes = [
            StreamWrite(
                stream=stream,
                events=[planned.event],
                expected_version=0 if planned.first else ANY_VERSION,
                metadata=planned.metadata,
            )
            for stream, group in groupby(commit.events, key=lambda planned: planned.stream)
            for planned in group
        ]
        appended = await self._store.append(LOG, writes)
        for call in commit.calls:
            call.first_position, call.recorded_at = appended.first_position, appended.recorded_at
        for position in range(appended.first_position, appended.last_position + 1):
            self._times[position] = appended.recorded_at
        columns: Sequence[list[int]] = [
            column.tolist()
            for column in (
                commit.series,
                commit.measured_at,
                commit.seq,
                commit.revision,
                commit.mantissa,
                commit.exponent,
                commit.quality,
                commit.event,
            )
        ]
        for row, (series, at, seq, revision, mantissa, exponent, quality, event) in enumerate(
            zip(*columns, strict=True)
        ):
            event_id = commit.ids[row].tobytes()
            stored = Stored(revision, mantissa, exponent, quality, event_id, appended.first_position + event)
            revisions = self.register.setdefault((series, at, seq), [])
            assert len(revisions) == revision  # noqa: S101  # what the unique index says in PostgreSQL
            revisions.append(stored)

    async def recorded_at(self, position: int) -> datetime:
        return self._times[position]
