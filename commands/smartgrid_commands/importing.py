"""
Files of readings: spooled first, then recorded part by part in the background.

A part is a run of whole records, and it is recorded under a key of its own, so whoever goes on after a crash learns
what became of the parts that were recorded already, and counts each item once.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterable, Callable
from typing import Final, Literal, Protocol, runtime_checkable
from uuid import UUID

import numpy as np
from msgspec import Struct, field

from smartgrid_commands.idempotency import IdempotencyKeys, Kept
from smartgrid_commands.ingestion import Ingestion, ItemError, Outcome, Prepared, Sender, decode_outcome
from smartgrid_commands.ports import Ids, OutcomeUnknown, StoreUnavailable
from smartgrid_commands.reading_calls import LeaseLost
from smartgrid_domain.errors import Conflict, Invalid, Rejected

Mode = Literal["partial", "atomic"]
State = Literal["spooling", "running", "succeeded", "failed"]

PART_BYTES: Final = 256 * 1024
MOST_RECORD_BYTES: Final = 1024 * 1024
MOST_ERRORS: Final = 1_000
MOST_ATOMIC_ITEMS: Final = 100_000
LEASE_S: Final = 30
POLL_S: Final = 1.0
"""How long the runner waits before it looks for work that another process left [s]."""


class Import(Struct, kw_only=True):
    """
    A file on its way.

    Attributes:
        import_id: ``im_…``.
        actor: Who sent it.
        mode: Whether one rejected item rejects all.
        media_type: ``text/csv`` or ``application/x-ndjson``.
        header: Column names of a CSV file.
        parts: Number of parts.
        state: ``spooling`` until all of it is there.
        next_part: The first part that is not recorded yet.
        read: Items read.
        accepted: Of these, stored.
        duplicates: Of these, stored before.
        rejected: Of these, refused.
        errors: The first :data:`MOST_ERRORS`.
    """

    import_id: str
    actor: str
    mode: Mode
    media_type: str
    header: list[str] = field(default_factory=list[str])
    parts: int = 0
    state: State = "spooling"
    next_part: int = 0
    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    errors: list[ItemError] = field(default_factory=list[ItemError])

    def add(self, outcome: Outcome) -> None:
        """Count the items of one part."""
        for error in outcome.errors[: MOST_ERRORS - len(self.errors)]:
            self.errors.append(
                ItemError(
                    index=self.read + error.index,
                    code=error.code,
                    message=error.message,
                    errors=error.errors,
                    existing_event_id=error.existing_event_id,
                    existing_value=error.existing_value,
                )
            )
        self.read += outcome.items
        self.accepted += outcome.accepted
        self.duplicates += outcome.duplicates
        self.rejected += outcome.rejected


@runtime_checkable
class Imports(Protocol):
    """Where files wait."""

    async def begin(self, job: Import) -> None:
        """Make room for a file."""
        ...

    async def add_part(self, import_id: str, part: int, data: bytes) -> None:
        """Keep part number *part*, from 0."""
        ...

    async def start(self, job: Import) -> None:
        """Tell that the file is complete, with its header and number of parts."""
        ...

    async def discard(self, import_id: str) -> None:
        """Forget a file that is not complete."""
        ...

    async def find(self, import_id: str) -> Import | None:
        """Return a file; None for one that does not exist or is not complete."""
        ...

    async def claim(self, token: UUID, lease_s: int) -> Import | None:
        """Return a file that nobody works on, as the work of *token* for *lease_s* seconds."""
        ...

    async def part(self, import_id: str, part: int) -> bytes:
        """Return a part."""
        ...

    async def save(self, job: Import, token: UUID, lease_s: int) -> bool:
        """Write how far *job* is and hold it on; return whether it is still the work of *token*."""
        ...


class Spool:
    """
    Takes a file in, cut at the ends of its records.

    Args:
        imports: Where it waits.
        job: The file.
    """

    def __init__(self, imports: Imports, job: Import) -> None:
        self._imports = imports
        self._job = job
        self._rest = b""
        self._quotes = 0
        self.items = 0

    async def take(self, chunks: AsyncIterable[bytes]) -> None:
        """
        Keep all of *chunks*.

        Raises:
            Invalid: A record is too long to be one; nothing is kept.
            Rejected: ``payload_too_large``: too many items for an atomic import.
        """
        await self._imports.begin(self._job)
        try:
            async for chunk in chunks:
                self._rest += chunk
                await self._cut()
            if self._rest.strip():
                await self._keep(self._rest, self._records(self._rest))
            self._check_parts()
        except BaseException:
            with contextlib.suppress(StoreUnavailable):
                await asyncio.shield(self._imports.discard(self._job.import_id))
            raise

    def _check_parts(self) -> None:
        if not self._job.parts:
            raise Invalid("validation_failed", "The file has no items")

    async def _cut(self) -> None:
        window = PART_BYTES
        while len(self._rest) >= window:
            end = self._last_end(self._rest[:window])
            if end:
                head, self._rest = self._rest[:end], self._rest[end:]
                await self._keep(head, self._records(head))
                window = PART_BYTES
            elif window >= MOST_RECORD_BYTES:
                raise Invalid("validation_failed", "A record has at most 1 MiB")
            else:
                window *= 2

    def _last_end(self, data: bytes) -> int:
        """Return the end of the last whole record; a line break inside quotes ends no record of a CSV file."""
        if self._job.media_type != "text/csv":
            return data.rfind(b"\n") + 1
        chars = np.frombuffer(data, np.uint8)
        outside = np.cumsum(chars == ord('"')) % 2 == 0
        ends = np.flatnonzero(outside & (chars == ord("\n")))
        return int(ends[-1]) + 1 if len(ends) else 0

    def _records(self, data: bytes) -> int:
        if self._job.media_type != "text/csv":
            return sum(1 for line in data.split(b"\n") if line.strip())
        # Line breaks outside quotes: every second piece between quotes.
        pieces = data.split(b'"')[::2]
        return sum(piece.count(b"\n") for piece in pieces) + (not data.endswith(b"\n"))

    async def _keep(self, data: bytes, records: int) -> None:
        self.items += records
        if self._job.mode == "atomic" and self.items > MOST_ATOMIC_ITEMS + (self._job.media_type == "text/csv"):
            raise Invalid("payload_too_large", f"An atomic import has at most {MOST_ATOMIC_ITEMS} items")
        await self._imports.add_part(self._job.import_id, self._job.parts, data)
        self._job.parts += 1


Read = Callable[[Import, bytes, bool], Prepared]
"""Turns a part into items; the flag tells whether it is the first part."""


class ImportRunner:
    """
    Records what is spooled, here and what other processes left.

    Args:
        imports: Where files wait.
        ingestion: Records readings.
        keys: What became of parts.
        ids: Fresh ids.
        read: Turns a part into items.
        log_error: Told of each mistake of ours, with the id of the import.
    """

    def __init__(  # noqa: PLR0913  # what it works with
        self,
        imports: Imports,
        ingestion: Ingestion,
        keys: IdempotencyKeys,
        ids: Ids,
        read: Read,
        *,
        log_error: Callable[[str, BaseException], None] = lambda _id, _error: None,
    ) -> None:
        self._log_error = log_error
        self._imports = imports
        self._ingestion = ingestion
        self._keys = keys
        self._ids = ids
        self._read = read
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look for work now."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                while await self.step():
                    pass
            except (StoreUnavailable, OutcomeUnknown):
                pass  # the lease runs out, and whoever comes first goes on
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()
            self._wake.clear()

    async def step(self) -> bool:
        """Work on one file until it is done or lost; return whether there was one."""
        token = self._ids.uuid()
        job = await self._imports.claim(token, LEASE_S)
        if job is None:
            return False
        try:
            await self._work(job, token)
        except (StoreUnavailable, OutcomeUnknown):
            raise
        except Exception as error:  # noqa: BLE001  # told in the import's own errors, and to the log
            code = error.code if isinstance(error, Rejected) else "internal"
            message = error.detail if isinstance(error, Rejected) else "Something went wrong here"
            if code == "internal":
                self._log_error(job.import_id, error)
            job.errors.append(ItemError(index=job.read, code=code, message=message))
            job.state = "failed"
            await self._imports.save(job, token, 0)
        return True

    async def _work(self, job: Import, token: UUID) -> None:
        if job.mode == "atomic":
            data = b"".join([await self._imports.part(job.import_id, part) for part in range(job.parts)])
            outcome = await self._record(job, data, 0)
            if outcome is None:
                return
            job.add(outcome)
            job.next_part = job.parts
            if outcome.rejected:
                job.state = "failed"
                job.accepted = 0
                await self._imports.save(job, token, 0)
                return
        while job.next_part < job.parts:
            data = await self._imports.part(job.import_id, job.next_part)
            outcome = await self._record(job, data, job.next_part)
            if outcome is None:
                return
            job.add(outcome)
            job.next_part += 1
            if not await self._imports.save(job, token, LEASE_S):
                return
        job.state = "succeeded"
        await self._imports.save(job, token, 0)

    async def _record(self, job: Import, data: bytes, part: int) -> Outcome | None:
        """Record a part, or learn what became of it; None when another process is at it."""
        try:
            claim = await self._keys.claim(f"import:{job.import_id}", str(part), b"")
        except Conflict:
            return None
        if isinstance(claim, Kept):
            return decode_outcome(claim.answer, claim.first_position)
        try:
            prepared = self._read(job, data, part == 0)
            sender = Sender(actor=job.actor, correlation_id=job.import_id, operator=True)
            return await self._ingestion.record_many(
                prepared, sender, atomic=job.mode == "atomic", verdicts=False, lease=claim
            )
        except LeaseLost:
            return None
        except (Rejected, StoreUnavailable):
            with contextlib.suppress(StoreUnavailable):
                await self._keys.release(claim)
            raise
