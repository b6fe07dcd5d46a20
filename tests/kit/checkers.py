"""The invariants I1 … I7: one function each, that raises :class:`Violated` or does nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import NamedTuple

from tests.kit.history import STORED, Fact, History, facts_of, stored_facts

from smartgrid_domain.maths.quantities import MEASURANDS
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.telemetry import ReadingRetracted

QUARTER_US = 900_000_000
Log = Sequence[Recorded[Event]]
Tables = Mapping[str, bytes]
"""The rows of a read model: each table as bytes that are equal for equal rows."""

Bucket = tuple[str, str, str, int]
"""Sensor, measurand, phase, start of the quarter of an hour [µs since 1970]."""


class Violated(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant


def no_lost_ack(history: History, log: Log) -> None:
    """I1: whatever was answered as stored is in the log, as it was said."""
    found = set(stored_facts(log))
    for request in history.requests:
        for answer in request.answers:
            for fact, state in zip(request.facts, answer.states, strict=True):
                if state in STORED and fact not in found:
                    raise Violated("I1", f"request {request.number} was told {state} for {fact}, which is not stored")


def no_phantom(history: History, log: Log) -> None:
    """I2: nothing is in the log that nobody sent; what was sent once is there once or not; an atomic one wholly."""
    sent = Counter(fact for request in history.requests for fact in set(request.facts))
    found = Counter(stored_facts(log))
    for fact, times in found.items():
        if fact not in sent:
            raise Violated("I2", f"nobody sent {fact}")
        if times > 1:
            raise Violated("I2", f"{fact} is stored {times} times")
    for request in history.requests:
        own = {fact for fact in request.facts if sent[fact] == 1}
        if request.atomic and own and 0 < sum(fact in found for fact in own) < len(own):
            raise Violated("I2", f"request {request.number} is stored in part")


def one_effect(history: History, log: Log, counted: Mapping[Bucket, tuple[int, int]] | None) -> None:
    """
    I3: a request with a key has one answer, and each reading of the log counts once in its bucket.

    Args:
        history: What clients were told.
        log: The events up to the checkpoint of the rollups.
        counted: Number and sum in quanta of the quarters of an hour that hold readings; None to leave them out.
    """
    for request in history.requests:
        if request.key is not None and len({(a.states, a.first, a.last) for a in request.answers}) > 1:
            raise Violated("I3", f"request {request.number} had several answers for one key: {request.answers}")
    if counted is None:
        return
    expected = count_readings(log)
    for bucket in sorted(expected.keys() | counted.keys()):
        if expected.get(bucket) != counted.get(bucket):
            told, true = counted.get(bucket), expected.get(bucket)
            raise Violated("I3", f"{bucket} counts (number, sum) {told}, the log says {true}")


def count_readings(log: Log) -> dict[Bucket, tuple[int, int]]:
    """Count by the book: the newest of each natural key, unless it was retracted."""
    newest: dict[tuple[str | int, ...], Fact] = {}
    gone: set[tuple[str | int, ...]] = set()
    for recorded in log:
        event = recorded.event
        for fact in facts_of(event):
            if fact.key[0] == "sensor":
                newest[fact.key] = fact
                gone.discard(fact.key)
        if isinstance(event, ReadingRetracted):
            at = int(event.measured_at.timestamp()) * 1_000_000 + event.measured_at.microsecond
            seq = -1 if event.seq is None else event.seq
            gone.add(("sensor", event.sensor_id, event.sensor_type, event.phase or "-", at, seq))
    result: dict[Bucket, tuple[int, int]] = {}
    for key, fact in newest.items():
        if key not in gone:
            at = int(key[4])
            bucket = (str(key[1]), str(key[2]), str(key[3]), at - at % QUARTER_US)
            number, total = result.get(bucket, (0, 0))
            result[bucket] = number + 1, total + _quanta(fact)
    return result


def _quanta(fact: Fact) -> int:
    with localcontext(prec=400):
        value = fact.number.scaleb(-MEASURANDS[str(fact.key[2])].quantum_exponent)
        return int(value.quantize(Decimal(1), ROUND_HALF_EVEN))


def in_order(log: Log) -> None:
    """I4: positions are 1 … n, versions of each stream too, and times never go back."""
    versions: Counter[str] = Counter()
    before = None
    for position, recorded in enumerate(log, 1):
        if recorded.position != position:
            raise Violated("I4", f"position {recorded.position} follows {position - 1}")
        versions[recorded.stream] += 1
        if recorded.version != versions[recorded.stream]:
            text = f"{recorded.stream}: version {recorded.version} follows {versions[recorded.stream] - 1}"
            raise Violated("I4", text)
        if before is not None and recorded.recorded_at < before:
            raise Violated("I4", f"position {position} was recorded before its predecessor")
        before = recorded.recorded_at


class Trace(NamedTuple):
    """
    What a projection's state was seen to be.

    Attributes:
        projection: Which.
        epoch: Number of its changes of ownership.
        positions: Its checkpoints by log.
        claimed: Whether someone has just claimed it.
    """

    projection: str
    epoch: int
    positions: Mapping[str, int]
    claimed: bool = False


def never_back(traces: Sequence[Trace]) -> None:
    """I5: a checkpoint never goes back, nor an epoch, and a claim makes a new one."""
    last: dict[str, Trace] = {}
    for trace in traces:
        before = last.get(trace.projection)
        last[trace.projection] = trace
        if before is None:
            continue
        for log, position in before.positions.items():
            if trace.positions[log] < position:
                raise Violated("I5", f"{trace.projection} went back from {log}@{position} to {trace.positions[log]}")
        if trace.epoch < before.epoch + trace.claimed:
            raise Violated("I5", f"{trace.projection} was claimed under epoch {trace.epoch} again")


def is_fold(projection: str, position: int, stored: Tables, folded: Tables) -> None:
    """I6: the rows at a checkpoint are the fold of the events up to it, byte for byte."""
    _equal("I6", f"{projection} at position {position}", stored, folded)


def converged(projection: str, position: int, head: int, stored: Tables, rebuilt: Tables) -> None:
    """I7: when nothing disturbs any more, a projection reaches the head and equals a rebuild."""
    if position != head:
        raise Violated("I7", f"{projection} is at position {position} of {head}")
    _equal("I7", f"{projection} after all", stored, rebuilt)


def _equal(invariant: str, what: str, stored: Tables, expected: Tables) -> None:
    for table in sorted(stored.keys() | expected.keys()):
        here, there = stored.get(table, b""), expected.get(table, b"")
        if here != there:
            raise Violated(invariant, f"{what}: {table} holds {here[:300]!r}, not {there[:300]!r}")
