"""
Whether the logs are what was written: their hash chains, recomputed.

A commit's digest covers the digest before it, a hash of every row, their number, its time and its id. So whoever
changes, removes, swaps or adds a row outside of the append functions breaks the chain where the change begins.
What the chain alone cannot tell is that its end was cut off; the heads in the answer, noted elsewhere, tell that.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from smartgrid_domain.maths.quantities import Ints

Reason = Literal[
    "altered", "row_missing", "row_added", "commit_missing", "time_went_back", "version_gap", "end_missing"
]

HASH_BYTES = 32


class FirstBad(Struct, frozen=True, kw_only=True):
    """
    Where a log is first not what was written.

    Attributes:
        log: The log.
        position: The first position that is wrong, or may be: a digest covers all rows of one commit.
        last_position: The last position of that commit; *position* itself where a row shows that it is wrong.
        reason: ``altered`` (a row, the order of rows or the commit itself), ``row_missing``, ``row_added`` (a row
            that no commit tells of), ``commit_missing``, ``time_went_back``, ``version_gap`` (of a stream), or
            ``end_missing`` (a read model has seen more).
        stream: Stream of the row, where the row is known.
    """

    log: str
    position: int
    last_position: int
    reason: Reason
    stream: str | None = None


class LogAudit(Struct, frozen=True, kw_only=True):
    """
    One log.

    Attributes:
        events: Number of rows, all of which were looked at if nothing is wrong.
        head: Digest of the last commit, hexadecimal; null of an empty log.
    """

    events: int
    head: str | None


class Audit(Struct, frozen=True, kw_only=True):
    """
    All logs.

    Attributes:
        ok: Nothing is wrong.
        logs: Each by name.
        first_bad: The first thing that is wrong, of the first log in which something is.
    """

    ok: bool
    logs: Mapping[str, LogAudit]
    first_bad: FirstBad | None


@runtime_checkable
class Chains(Protocol):
    """The hash chains of all logs."""

    async def verify(self) -> Audit:
        """
        Recompute them from the rows.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        ...


COMMIT = np.dtype(
    [("last", ">i8"), ("n", ">i4"), ("us_2000", ">i8"), ("commit_id", "V16"), ("digest", f"V{HASH_BYTES}")]
)
"""A commit as bytes; its time in µs since 2000."""

ROW = np.dtype([("position", ">i8"), ("hash", f"V{HASH_BYTES}")])
"""An event as bytes."""

_TAIL = np.dtype([("n", ">i8"), ("us", ">i8"), ("commit_id", "V16")])
_EPOCH_2000_US = 946_684_800_000_000


class Chain:
    """
    The chain of one log, followed from its begin.

    Args:
        log: The log.

    Attributes:
        last: Last position that was followed.
        digest: The digest there.
    """

    def __init__(self, log: str) -> None:
        self.last = 0
        self.digest = b""
        self._log = log
        self._us = -(2**63)

    def follow(self, commits: NDArray[Any], rows: NDArray[Any]) -> FirstBad | None:
        """
        Follow the chain over the next commits, at least one, with all rows up to the last of them.

        Args:
            commits: Of :data:`COMMIT`, in order.
            rows: Of :data:`ROW`, in order.
        """
        last = commits["last"].astype(np.int64)
        before = np.concatenate((np.array([self.last], np.int64), last[:-1]))
        n = commits["n"].astype(np.int64)
        us = commits["us_2000"].astype(np.int64)
        found = [self._uncovered(before, last, n), self._rows(rows["position"].astype(np.int64), int(last[-1]))]
        bad = min((one for one in found if one is not None), key=lambda one: one.position, default=None)
        # Up to there rows and commits fit each other, so digests can be compared.
        whole = len(last) if bad is None else int(np.searchsorted(last, bad.position))
        back = np.flatnonzero((us < np.concatenate((np.array([self._us], np.int64), us[:-1])))[:whole])
        whole = min([whole, *back[:1].tolist()])
        if (wrong := self._digests(commits[:whole], rows, before)) is not None:
            return wrong
        if len(back):
            at = int(back[0])
            return self._bad("time_went_back", int(before[at]) + 1, int(last[at]))
        if bad is None:
            self.last, self._us = int(last[-1]), int(us[-1])
        return bad

    def _bad(self, reason: Reason, position: int, last: int | None = None) -> FirstBad:
        return FirstBad(log=self._log, position=position, last_position=last or position, reason=reason)

    def _uncovered(self, before: Ints, last: Ints, n: Ints) -> FirstBad | None:
        """Find a commit that does not begin where the one before it ended."""
        gaps = np.flatnonzero(last - n != before)
        if not len(gaps):
            return None
        at = int(gaps[0])
        first = int(before[at]) + 1
        if last[at] - n[at] > before[at]:
            return self._bad("commit_missing", first, int(last[at] - n[at]))
        return self._bad("altered", first, int(last[at]))

    def _rows(self, positions: Ints, last: int) -> FirstBad | None:
        """Find a position without a row."""
        expected = np.arange(self.last + 1, last + 1)
        if len(positions) == len(expected) and bool((positions == expected).all()):
            return None
        missing = expected[~np.isin(expected, positions)]
        return self._bad("row_missing", int(missing[0])) if len(missing) else None

    def _digests(self, commits: NDArray[Any], rows: NDArray[Any], before: Ints) -> FirstBad | None:
        tails = np.empty(len(commits), _TAIL)
        tails["n"] = commits["n"]
        tails["us"] = commits["us_2000"].astype(np.int64) + _EPOCH_2000_US
        tails["commit_id"] = commits["commit_id"]
        hashes, tail, stored = rows["hash"].tobytes(), tails.tobytes(), commits["digest"].tobytes()
        starts = ((before[: len(commits)] - self.last) * HASH_BYTES).tolist()
        ends = ((commits["last"].astype(np.int64) - self.last) * HASH_BYTES).tolist()
        digest = self.digest
        for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
            at = i * HASH_BYTES
            digest = sha256(digest + hashes[start:end] + tail[at : at + _TAIL.itemsize]).digest()
            if digest != stored[at : at + HASH_BYTES]:
                return self._bad("altered", int(before[i]) + 1, int(commits["last"][i]))
        self.digest = digest
        return None


def first_of(found: Sequence[FirstBad | None]) -> FirstBad | None:
    """Return the one with the lowest position."""
    return min((one for one in found if one is not None), key=lambda one: one.position, default=None)
