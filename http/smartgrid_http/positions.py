"""Position tokens in queries and answers, and reads that wait for one."""

import re
from typing import Annotated

from msgspec import Meta

from smartgrid_commands.ports import EventStore
from smartgrid_http.findings import checked
from smartgrid_http.problems import Problem, unavailable

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


def behind() -> Problem:
    """Return the problem that a read model did not come far enough in time."""
    return unavailable("projection_behind", "That position is not included yet; try again, or wait longer by wait_ms")
