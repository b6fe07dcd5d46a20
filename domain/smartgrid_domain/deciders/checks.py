"""Checks of what people type into settings and decisions; each answers what is wrong, or nothing."""

from collections.abc import Iterable
from datetime import UTC, datetime
from math import isfinite
from typing import TypeVar

from msgspec import UnsetType

from smartgrid_domain.errors import Finding, Invalid

IDENTIFIER = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z"
"""Pattern of the ids of sensors, meters and customers."""

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
MAX_INTERVAL_S = 366 * 86_400.0
MAX_REASON = 500

T = TypeVar("T")


def text(pointer: str, value: str | None, *, least: int, most: int) -> Finding | None:
    """Return what is wrong with a text of *least* … *most* characters; null is fine."""
    if value is None or least <= len(value) <= most:
        return None
    code = "too_long" if len(value) > most else "out_of_range"
    return Finding(pointer, code, f"Give {least} to {most} characters")


def number(pointer: str, value: float | None, *, above: float, most: float) -> Finding | None:
    """Return what is wrong with a number in (*above*, *most*]; null is fine."""
    if value is None:
        return None
    if not isfinite(value):
        return Finding(pointer, "not_finite", "Give a finite number")
    if not above < value <= most:
        return Finding(pointer, "out_of_range", f"Give a number above {above:g}, at most {most:g}")
    return None


def instant(pointer: str, value: datetime) -> Finding | None:
    """Return what is wrong with a time that must lie in 1970…2100."""
    if value.tzinfo is None:
        return Finding(pointer, "timestamp_without_offset", "Give the time with its offset, such as Z")
    if not EARLIEST <= value < LATEST:
        return Finding(pointer, "timestamp_out_of_range", "Give a time from 1970 to 2100")
    return None


def unless_unset(wanted: T | UnsetType, present: T) -> T:
    """Return *wanted*, or *present* when nothing is wanted."""
    return present if isinstance(wanted, UnsetType) else wanted


def refuse(findings: Iterable[Finding | None]) -> None:
    """
    Raise if anything was found.

    Raises:
        Invalid: With every finding.
    """
    found = [finding for finding in findings if finding is not None]
    if found:
        raise Invalid("validation_failed", found[0].message, findings=found)
