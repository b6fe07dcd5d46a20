"""
Bugs, each planted by replacing one part of the simulated system: they show that the invariants bite.

Those that simulation cannot meet, since what they break is SQL, are planted in the tests named in :data:`ELSEWHERE`.
"""

from tests.simulation import planted_log as log
from tests.simulation import planted_projections as projections
from tests.simulation.world import Parts

PLANTED: dict[str, type[Parts]] = {
    "ack before commit": log.AckBeforeCommit,
    "position from a sequence": log.PositionFromSequence,
    "append without the lock": log.AppendWithoutLock,
    "commit id not checked": log.CommitIdNotChecked,
    "commit row in a second transaction": log.CommitRowInSecondTransaction,
    "one caller of a batch half stored": log.HalfACaller,
    "conflict answered 201": log.ConflictAnsweredAsStored,
    "checkpoint before rows": projections.CheckpointBeforeRows,
    "checkpoint in another transaction": projections.CheckpointInAnotherTransaction,
    "checkpoint without compare-and-set": projections.CheckpointWithoutCompare,
    "epoch not raised on takeover": projections.EpochNotRaised,
    "failing event skipped": projections.FailingEventSkipped,
    "late reading overwrites its bucket": projections.LateReadingOverwrites,
    "correction added instead of replacing": projections.CorrectionAdded,
    "read before LISTEN": log.ReadBeforeListen,
    "idempotency record in another transaction": log.IdempotencyRecordApart,
    "rows outside the transaction of the step": projections.RowsOutsideTheStep,
}
"""The list of the design, as far as what they break exists, and one more that only I6 finds."""

RECORDED = {
    "position from a sequence": 99,
    "append without the lock": 155,
    "commit id not checked": 23,
    "commit row in a second transaction": 8,
    "one caller of a batch half stored": 2,
    "conflict answered 201": 8,
    "checkpoint in another transaction": 27,
    "checkpoint without compare-and-set": 109,
    "failing event skipped": 2,
    "late reading overwrites its bucket": 2,
    "read before LISTEN": 133,
    "idempotency record in another transaction": 48,
    "rows outside the transaction of the step": 27,
}
"""Seeds that caught a bug before, tried first; the others are caught by seed 0."""

ONLY_BY = {
    "I1": "conflict answered 201",
    "I2": "commit id not checked",
    "I3": "idempotency record in another transaction",
    "I4": "append without the lock",
    "I5": "epoch not raised on takeover",
    "I6": "rows outside the transaction of the step",
    "I7": "read before LISTEN",
}
"""A bug for each checker that escapes when that one is switched off."""

ELSEWHERE = {
    "digest skips an event": "tests/faults/test_planted_sql.py::test_a_digest_that_skips_an_event_is_found",
    "append without the lock (SQL)": "tests/faults/test_planted_sql.py::test_an_append_without_the_lock_is_found",
    "position from a sequence (SQL)": "tests/faults/test_planted_sql.py::test_positions_from_a_sequence_are_found",
    "queue without bound": "tests/faults/test_planted_sql.py::test_a_queue_without_bound_is_found",
}
"""Planted in SQL or in what only PostgreSQL runs, and the test that finds each."""

NOT_YET = (
    "no dedupe by position",
    "gap in previous position ignored",
    "parked key does not hold later events",
    "dead letter after the floor moved",
    "redrive out of order",
    "rebuild writes live tables",
    "switch before verify",
    "relay re-sends a single message",
    "relay checkpoint before the delivery report",
    "two relays without a lease",
    "notification recorded after a crash as unsent",
    "breaker admits two probes",
    "breaker opens on the 5th failure",
    "late result of an older epoch closes the breaker",
    "POST retried without a key",
    "deadline restarted at retry",
    "wall clock in the breaker",
    "readiness asks a dependency it does not need",
)
"""The rest of the design's list."""
