"""What became of the rows of a file."""

from typing import Any

from msgspec import Struct, field

from smartgrid_ops.importing.items import Item, Skipped

SHOWN_LINES = 5


class Reason(Struct):
    """
    Why some items were refused.

    Attributes:
        count: How many.
        message: What was said of the first.
        lines: Lines of the first few.
    """

    count: int
    message: str
    lines: list[int]


class Summary(Struct):
    """
    The counts of one import.

    Attributes:
        accepted: Readings stored now.
        duplicates: Readings that were there already.
        missing: Cells without a value; they are not sent.
        rejected: Items refused, by us or by the server.
        resent: How often a batch was sent again. One that was stored without an answer counts as duplicates then.
        reasons: By code and column.
        last_position: Highest position that was answered.
    """

    accepted: int = 0
    duplicates: int = 0
    missing: int = 0
    rejected: int = 0
    resent: int = 0
    reasons: dict[tuple[str, str], Reason] = field(default_factory=dict[tuple[str, str], Reason])
    last_position: int = 0

    def refuse(self, code: str, column: str, line: int, message: str) -> None:
        """Count one refused item."""
        self.rejected += 1
        reason = self.reasons.setdefault((code, column), Reason(0, message, []))
        reason.count += 1
        if len(reason.lines) < SHOWN_LINES:
            reason.lines.append(line)

    def skip(self, skipped: Skipped) -> None:
        """Count one cell that cannot be sent."""
        self.refuse(skipped.code, skipped.column, skipped.line, skipped.message)

    def refused_by_server(self, item: Item, error: "ItemError") -> None:
        """Count one item that the server refused."""
        findings = [f"{finding.pointer}: {finding.message}" for finding in error.errors]
        code = ",".join(dict.fromkeys(finding.code for finding in error.errors)) or error.code
        text = "; ".join(findings) or error.message or error.code
        if error.existing_event_id is not None:
            text += f" (stored as {error.existing_event_id} with another value)"
        self.refuse(code, item.column, item.line, text)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "missing": self.missing,
            "rejected": self.rejected,
            "resent_batches": self.resent,
            "last_position": f"telemetry@{self.last_position}" if self.last_position else None,
            "reasons": [
                {"code": code, "column": column, "count": r.count, "message": r.message, "lines": r.lines}
                for (code, column), r in sorted(self.reasons.items())
            ],
        }


class Finding(Struct, frozen=True):
    """One thing that is wrong with an item."""

    pointer: str = ""
    code: str = ""
    message: str = ""


class ItemError(Struct, frozen=True):
    """
    Why the server refused an item.

    Attributes:
        index: Which item of the batch, from 0.
        code: Problem code.
        errors: What exactly.
        message: For people.
        existing_event_id: What its natural key holds already.
    """

    index: int
    code: str
    errors: list[Finding] = field(default_factory=list[Finding])
    message: str = ""
    existing_event_id: str | None = None


class BatchAnswer(Struct, frozen=True):
    """The answer to a batch."""

    accepted: int
    duplicates: int
    rejected: int
    last_position: str | None = None
    errors: list[ItemError] = field(default_factory=list[ItemError])
