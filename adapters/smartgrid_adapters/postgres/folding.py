"""
Folds rollups over a stretch of the log in several processes.

A process gets its part on standard input and answers on standard output; it ends by itself when whoever started it is
gone. ``python -m smartgrid_adapters.postgres.folding`` is one of them.
"""

import asyncio
import os
import pickle  # between a process of ours and its parent only
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import psycopg

from smartgrid_adapters.postgres.codec import decode
from smartgrid_adapters.postgres.pool import Connection, conninfo_of
from smartgrid_adapters.postgres.rollups import PostgresRollups
from smartgrid_domain.maths.quantities import Ints
from smartgrid_projections.ports import Unavailable
from smartgrid_projections.read_models.aggregates_fold import Folding, Part, levels_of, slices
from smartgrid_projections.register import Key, SeriesName, Subject

BATCH_EVENTS: Final = 500
"""Events that a process decodes at a time."""

CURRENT_KEYS: Final = 10_000
"""Changed keys that are looked up at a time."""

_EVENTS = """
    SELECT notification_id, topic, state FROM telemetry_events
    WHERE notification_id > %s AND notification_id <= %s ORDER BY notification_id LIMIT %s
"""
_NAMES = "SELECT series_id, subject_id, measurand, phase FROM series WHERE subject = 'sensor'"
_CHANGED = """
    SELECT r.series_id, (extract(epoch FROM r.measured_at) * 1000000)::bigint, r.seq
    FROM reading_register r JOIN series s USING (series_id)
    WHERE s.subject = 'sensor' AND r.revision > 0 AND r.position <= %(position)s
    UNION
    SELECT r.series_id, (extract(epoch FROM r.measured_at) * 1000000)::bigint, r.seq
    FROM reading_retractions t
    JOIN reading_register r ON r.event_id = t.event_id
    JOIN series s ON s.series_id = r.series_id
    WHERE s.subject = 'sensor' AND t.position <= %(position)s
    ORDER BY 1, 2, 3
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """
    What one process folds.

    Attributes:
        url: The database.
        after: Position before its first event.
        up_to: Position of its last event.
        changed: Keys that are changed anywhere in the whole stretch.
        parent: Who waits for it.
    """

    url: str
    after: int
    up_to: int
    changed: Ints
    parent: int


class FoldFailed(Exception):
    """A part cannot be folded; the text is the error."""


class _Names:
    """Ids of series, all read at once and again when one is missing."""

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self._connection = connection
        self._ids: dict[SeriesName, int] = {}

    async def series(self, subject: Subject, names: Sequence[SeriesName]) -> Mapping[SeriesName, int]:
        _ = subject
        if any(name not in self._ids for name in names):
            rows = self._connection.execute(_NAMES).fetchall()
            self._ids = {SeriesName(*row[1:]): row[0] for row in rows}
        return {name: self._ids[name] for name in names}


async def fold_part(order: Order, tell: Callable[[int], None] = lambda _: None) -> Part:
    """
    Return the rollups of *order*.

    Args:
        order: Which.
        tell: Told the position after each batch.
    """
    with psycopg.connect(conninfo_of(order.url), autocommit=True) as connection:
        folding = Folding(_Names(connection), order.changed)
        after = order.after
        while True:
            with connection.cursor(binary=True) as cursor:
                rows = cursor.execute(_EVENTS, (after, order.up_to, BATCH_EVENTS)).fetchall()
            if not rows:
                return folding.result()
            if os.getppid() != order.parent and os.getpid() != order.parent:
                raise FoldFailed("nobody waits any more")
            await folding.add([decode(topic, state) for _, topic, state in rows])
            after = rows[-1][0]
            tell(after)


async def changed_keys(connection: Connection, position: int) -> Ints:
    """Return the keys (series, µs since 1970, seq) of sensors that were corrected or retracted by *position*."""
    rows = await (await connection.execute(_CHANGED, {"position": position}, binary=True)).fetchall()
    return np.array(rows, np.int64).reshape(-1, 3)


async def fold_parts(url: str, up_to: int, changed: Ints, processes: int) -> list[Part]:
    """
    Return the parts of the log up to a position, folded by as many *processes*.

    Raises:
        FoldFailed: A part cannot be folded.
    """
    bounds = [up_to * i // processes for i in range(processes + 1)]
    orders = [
        Order(url=url, after=bounds[i], up_to=bounds[i + 1], changed=changed, parent=os.getpid())
        for i in range(processes)
    ]
    tasks = [asyncio.create_task(_elsewhere(order)) for order in orders]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _elsewhere(order: Order) -> Part:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        out, err = await process.communicate(pickle.dumps(order))
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode:
        error = err.decode(errors="replace").strip().rpartition("\n")[2]
        if error.startswith("psycopg.OperationalError"):
            raise Unavailable(error)
        raise FoldFailed(error)
    part: Part = pickle.loads(out)  # noqa: S301  # made by our own child
    return part


async def fold_into(tables: PostgresRollups, url: str, up_to: int, processes: int) -> None:
    """
    Fill the empty *tables* with all rows of the log up to a position.

    Args:
        tables: In an open transaction.
        url: The database, for the processes.
        up_to: The position.
        processes: How many.

    Raises:
        FoldFailed: A part cannot be folded.
        Unavailable: The database cannot be reached.

    Guarantees:
        The rows are those that folding batch by batch gives.
    """
    changed = await changed_keys(tables.connection, up_to)
    parts = await fold_parts(url, up_to, changed, processes)
    await keep(tables, parts, changed, up_to)


async def keep(tables: PostgresRollups, parts: Sequence[Part], changed: Ints, up_to: int) -> None:
    """Write the rows of *parts* and of what counts at *up_to* of the *changed* keys into the empty *tables*."""
    connection, register = tables.connection, tables.register
    current: dict[Key, tuple[int, int]] = {}
    keys = [Key(*row) for row in changed.tolist()]
    for first in range(0, len(keys), CURRENT_KEYS):
        current.update(await register.current(keys[first : first + CURRENT_KEYS], up_to))
    rows = await (await connection.execute(_NAMES)).fetchall()
    for level in levels_of(parts, current, {row[0]: row[2] for row in rows}):
        for piece in slices(level):
            await tables.save([piece])
    intervals = {sensor_id: interval_s for part in parts for sensor_id, interval_s in part.intervals.items()}
    for sensor_id, interval_s in intervals.items():
        await tables.configure(sensor_id, interval_s)


if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(asyncio.run(fold_part(pickle.loads(sys.stdin.buffer.read())))))  # noqa: S301  # our parent's
