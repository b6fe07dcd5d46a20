"""The tables of the aggregates: written by their projection, read by the statistics."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np
from psycopg import sql
from psycopg.rows import TupleRow

from smartgrid_adapters.postgres import arrays, fixed_arrays
from smartgrid_adapters.postgres.arrays import BytesArray
from smartgrid_adapters.postgres.fixed_arrays import Instants, Int2s, Int4s, Int8s
from smartgrid_adapters.postgres.pool import Connection
from smartgrid_adapters.postgres.series import PostgresSeries
from smartgrid_domain.maths.exact import Numbers
from smartgrid_domain.maths.histograms import decoded, encoded
from smartgrid_domain.maths.quantities import Ints
from smartgrid_domain.maths.rollups import Rollups
from smartgrid_projections.read_models.aggregates import LEVELS_US, Keys, Level
from smartgrid_projections.register import Register

# OFFSET 0 keeps each bucket a look into the primary key, however many the planner expects.
_LOAD = """
    SELECT k.i, r.n, r.s, r.q, r.low, r.high, r.histogram, r.revision
    FROM unnest(%(series)s::int[], %(level)s::smallint[], %(start)s::timestamptz[]) WITH ORDINALITY
        AS k(series_id, level, bucket_start, i)
    CROSS JOIN LATERAL (
        SELECT * FROM {rollups} o
        WHERE o.series_id = k.series_id AND o.level = k.level AND o.bucket_start = k.bucket_start
        OFFSET 0
    ) r
    ORDER BY k.i
"""
_SAVE = """
    INSERT INTO {rollups} (series_id, level, bucket_start, n, s, q, low, high, histogram, revision)
    SELECT k.series_id, k.level, k.bucket_start, k.n, k.s, k.q,
           CASE WHEN k.n > 0 THEN k.low END, CASE WHEN k.n > 0 THEN k.high END, k.histogram, k.revision
    FROM unnest(%(series)s::int[], %(level)s::smallint[], %(start)s::timestamptz[], %(n)s::bigint[],
                %(s)s::{sums}[], %(q)s::{sums}[], %(low)s::bigint[], %(high)s::bigint[],
                %(histogram)s::bytea[], %(revision)s::bigint[])
        AS k(series_id, level, bucket_start, n, s, q, low, high, histogram, revision)
    ON CONFLICT (series_id, level, bucket_start) DO UPDATE
    SET n = excluded.n, s = excluded.s, q = excluded.q, low = excluded.low, high = excluded.high,
        histogram = excluded.histogram, revision = excluded.revision
"""
_EXTREMES = """
    SELECT min(r.low), max(r.high)
    FROM unnest(%(series)s::int[], %(start)s::timestamptz[], %(end)s::timestamptz[]) WITH ORDINALITY
        AS k(series_id, first_at, last_at, i)
    JOIN {rollups} r ON r.series_id = k.series_id AND r.level = 0
        AND r.bucket_start >= k.first_at AND r.bucket_start < k.last_at
    GROUP BY k.i
    ORDER BY k.i
"""
_CONFIGURE = """
    INSERT INTO {sensors} (sensor_id, expected_interval_s) VALUES (%s, %s)
    ON CONFLICT (sensor_id) DO UPDATE SET expected_interval_s = excluded.expected_interval_s
"""
_VERSION: Final = 1


def rollup_tables(version: int = _VERSION) -> dict[str, sql.Identifier]:
    """Return the names of the tables of one version of the projection."""
    return {"rollups": sql.Identifier(f"rollups_v{version}"), "sensors": sql.Identifier(f"rollup_sensors_v{version}")}


class PostgresRollups:
    """The tables of one version of the aggregates, in the transaction that moves their checkpoint."""

    def __init__(self, connection: Connection, version: int = _VERSION) -> None:
        self._connection = connection
        fixed_arrays.register(connection)
        arrays.register(connection)
        self._register = PostgresSeries(connection)
        names = rollup_tables(version)
        self._load = sql.SQL(_LOAD).format(**names)
        self._save = {kind: sql.SQL(_SAVE).format(**names, sums=sql.SQL(kind)) for kind in ("bigint", "numeric")}
        self._extremes = sql.SQL(_EXTREMES).format(**names)
        self._configure = sql.SQL(_CONFIGURE).format(**names)

    @property
    def connection(self) -> Connection:
        """The connection of the transaction."""
        return self._connection

    @property
    def register(self) -> Register:
        return self._register

    async def load(self, levels: Sequence[Keys]) -> Sequence[tuple[Rollups, Ints]]:
        values = {
            "series": Int4s(np.concatenate([keys.series for keys in levels])),
            "level": Int2s(np.repeat(np.arange(len(levels)), [len(keys.series) for keys in levels])),
            "start": Instants(np.concatenate([keys.start_us for keys in levels])),
        }
        rows = await (await self._connection.execute(self._load, values, binary=True)).fetchall()
        result: list[tuple[Rollups, Ints]] = []
        first = taken = 0
        for keys in levels:
            last = first + len(keys.series)
            own: list[TupleRow] = []
            while taken < len(rows) and rows[taken][0] <= last:
                own.append(rows[taken])
                taken += 1
            result.append(_loaded(keys, own, first))
            first = last
        return result

    async def save(self, levels: Sequence[Level]) -> None:
        if not levels:
            return
        sizes = [len(one.keys.series) for one in levels]
        rows = np.concatenate(
            [
                _rows_of(one.keys, one.rollups) + first
                for one, first in zip(levels, np.cumsum([0, *sizes]), strict=False)
            ]
        )
        columns = {
            name: np.concatenate([getattr(one.rollups, name) for one in levels])
            for name in ("n", "s", "q", "low", "high")
        }
        histograms: list[bytes] = [b""] * sum(sizes)
        encodings = [data for one in levels for data in encoded(one.rollups.histograms)]
        for row, data in zip(rows.tolist(), encodings, strict=True):
            histograms[row] = data
        small = columns["s"].dtype != object and columns["q"].dtype != object
        spread = {name: _spread(column, rows, sum(sizes)) for name, column in columns.items()}
        await self._connection.execute(
            self._save["bigint" if small else "numeric"],
            {
                "series": Int4s(np.concatenate([one.keys.series for one in levels])),
                "level": Int2s(np.repeat([one.level for one in levels], sizes)),
                "start": Instants(np.concatenate([one.keys.start_us for one in levels])),
                "n": Int8s(spread["n"]),
                "s": Int8s(spread["s"]) if small else [Decimal(number) for number in spread["s"].tolist()],
                "q": Int8s(spread["q"]) if small else [Decimal(number) for number in spread["q"].tolist()],
                "low": Int8s(spread["low"]),
                "high": Int8s(spread["high"]),
                "histogram": BytesArray.of(histograms),
                "revision": Int8s(np.concatenate([one.revisions for one in levels])),
            },
        )

    async def extremes(self, level: int, series: Ints, start_us: Ints) -> tuple[Ints, Ints]:
        values = {"series": Int4s(series), "start": Instants(start_us), "end": Instants(start_us + LEVELS_US[level])}
        rows = await (await self._connection.execute(self._extremes, values)).fetchall()
        return np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.int64)

    async def configure(self, sensor_id: str, expected_interval_s: float | None) -> None:
        await self._connection.execute(self._configure, (sensor_id, expected_interval_s))


def _loaded(keys: Keys, rows: Sequence[TupleRow], first: int) -> tuple[Rollups, Ints]:
    """Return rows of :data:`_LOAD`, whose keys are counted from *first* on."""
    revisions = np.zeros(len(keys.series), np.int64)
    revisions[[row[0] - 1 - first for row in rows]] = [row[7] for row in rows]
    filled = [row for row in rows if row[1]]
    places = np.array([row[0] - 1 - first for row in filled], np.int64)
    return rollups_of(keys.series[places], keys.start_us[places], [row[1:7] for row in filled]), revisions


def rollups_of(series: Ints, start_us: Ints, rows: Sequence[Sequence[Any]]) -> Rollups:
    """Return rows (n, s, q, low, high, histogram), none empty, sorted by series and start, as arrays."""
    return Rollups(
        series=series,
        start_us=start_us,
        n=np.array([row[0] for row in rows], np.int64),
        s=_numbers([int(row[1]) for row in rows]),
        q=_numbers([int(row[2]) for row in rows]),
        low=np.array([row[3] for row in rows], np.int64),
        high=np.array([row[4] for row in rows], np.int64),
        histograms=decoded([row[5] for row in rows]),
    )


def _numbers(values: list[int]) -> Numbers:
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return np.array(values, object)


def _rows_of(keys: Keys, rollups: Rollups) -> Ints:
    """Return the place of each of *rollups* among *keys*, which are all of them and more, sorted alike."""
    return np.searchsorted(_numbered(keys.series, keys.start_us), _numbered(rollups.series, rollups.start_us))


def _numbered(series: Ints, start_us: Ints) -> Ints:
    return (series << 32) + start_us // LEVELS_US[0]  # quarters of an hour since 1970 need 23 bits until 2100


def _spread(column: Numbers, rows: Ints, number: int) -> Numbers:
    result = np.zeros(number, column.dtype)
    result[rows] = column
    return result
