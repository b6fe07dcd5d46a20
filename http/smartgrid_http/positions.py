"""Position tokens in queries and answers, reads that wait for one, and reads as of one."""

import re
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, NamedTuple

from msgspec import Meta

from smartgrid_commands.ports import EventStore
from smartgrid_domain.errors import Finding
from smartgrid_domain.instants import BadInstant, instant
from smartgrid_http.findings import checked
from smartgrid_http.problems import Problem, invalid, unavailable
from smartgrid_http.services import Services, present

LIST = re.compile(r"(?:telemetry|operations|identity)@(?:0|[1-9][0-9]{0,17})\Z", re.ASCII)


def _check(text: str) -> tuple[str, str] | None:
    parts = text.split(",")
    if not all(map(LIST.match, parts)):
        return "bad_format", "Write positions as telemetry@48213, with commas and no blanks between them"
    if len({part.partition("@")[0] for part in parts}) < len(parts):
        return "bad_format", "Name each log once"
    return None


TokenList = Annotated[str, checked(_check)]
"""The parameter ``min_position``."""


def _check_as_of(text: str) -> tuple[str, str] | None:
    if LIST.match(text):
        return None
    try:
        instant(text)
    except BadInstant as error:
        if error.code == "bad_format":
            return error.code, "Write a time as 2026-01-15T10:30:00Z, or a position as telemetry@48213"
        return error.code, str(error)
    return None


AsOf = Annotated[str, checked(_check_as_of)]
"""The parameter ``as_of``: a time, or the position of one log."""

WaitMs = Annotated[int, Meta(ge=0, le=5000)]
"""The parameter ``wait_ms``; 2,000 by default."""


def positions_of(tokens: str | None) -> dict[str, int]:
    """
    Return the position of each log that a good list of *tokens* names.

    Example:
        >>> positions_of("telemetry@48213,identity@7")
        {'telemetry': 48213, 'identity': 7}
    """
    pairs = (token.split("@") for token in tokens.split(",")) if tokens else ()
    return {log: int(position) for log, position in pairs}


async def head_of(store: EventStore, log: str, min_position: str | None, wait_ms: int) -> int:
    """
    Return the position that a read of what is stored with the *log* itself includes.

    Args:
        store: The log's store.
        log: The log.
        min_position: Token list; the read waits until it includes the one of *log*.
        wait_ms: How long at most [ms].

    Raises:
        Problem: 503 ``projection_behind``.
    """
    wanted = positions_of(min_position).get(log, 0)
    head = await store.head(log)
    if wanted > head and not await store.wait_for(log, wanted, timeout_s=wait_ms / 1000):
        raise behind()
    return max(head, wanted)


class Moment(NamedTuple):
    """
    What a read includes.

    Attributes:
        position: Position of the log that the route reads.
        now: What "now" means to it.
    """

    position: int
    now: datetime


async def as_of(services: Services, log: str, text: str) -> Moment:
    """
    Return the moment that a good parameter ``as_of`` names.

    Args:
        services: Times of the logs, and the clock.
        log: The log that the route reads.
        text: The parameter.

    Raises:
        Problem: 400: a time or a position that has not come yet, or ``position_log_mismatch``.
    """
    times = present(services.times)
    if LIST.match(text) is None:
        at = instant(text)
        reached = await times.position_at(log, at)
        if reached is None:
            raise invalid([Finding("?as_of", "timestamp_in_future", "That time has not come yet")])
        return Moment(reached, at)
    ((named, position),) = positions_of(text).items()
    if named != log:
        raise Problem(HTTPStatus.BAD_REQUEST, "position_log_mismatch", f"This reads the log {log}, not {named}")
    if position == 0:  # before the first event there is nothing, and so no time either
        return Moment(0, services.clock.now())
    recorded_at = await times.recorded_at(log, position)
    if recorded_at is None:
        raise invalid([Finding("?as_of", "out_of_range", "The log has not come to that position yet")])
    return Moment(position, recorded_at)


async def moment_of(services: Services, log: str, text: str | None, min_position: str | None, wait_ms: int) -> Moment:
    """
    Return what a read of what is stored with the *log* itself includes: what ``as_of`` names, else all there is.

    Args:
        services: The store, times of the logs, and the clock.
        log: The log.
        text: The parameter ``as_of``.
        min_position: Token list; the read waits until the log includes the one of *log*.
        wait_ms: How long at most [ms].

    Raises:
        Problem: As for :func:`head_of` and :func:`as_of`.
    """
    head = await head_of(present(services.store), log, min_position, wait_ms)
    return Moment(head, services.clock.now()) if text is None else await as_of(services, log, text)


def behind() -> Problem:
    """Return the problem that a read model did not come far enough in time."""
    return unavailable("projection_behind", "That position is not included yet; try again, or wait longer by wait_ms")
