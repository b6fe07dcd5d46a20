"""The tables of the aggregates: written by their projection, read by the statistics."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from psycopg import sql
from psycopg.rows import TupleRow

from smartgrid_adapters.postgres.pool import Connection
from smartgrid_adapters.postgres.series import PostgresSeries
from smartgrid_domain.maths.exact import Numbers
from smartgrid_domain.maths.histograms import decoded, encoded
from smartgrid_domain.maths.quantities import Ints
from smartgrid_domain.maths.rollups import Rollups
from smartgrid_projections.read_models.aggregates import LEVELS_US, Keys, Level
from smartgrid_projections.register import Register

# A microsecond as bigint turns into a timestamp without a detour through floating point.
# OFFSET 0 keeps each bucket a look into the primary key, however many the planner expects.
_LOAD = """
    SELECT k.i, r.n, r.s, r.q, r.low, r.high, r.histogram, r.revision
    FROM unnest(%(series)s::int[], %(level)s::smallint[], %(start)s::bigint[]) WITH ORDINALITY
        AS k(series_id, level, start_us, i)
    CROSS JOIN LATERAL (
        SELECT * FROM {rollups} o
        WHERE o.series_id = k.series_id AND o.level = k.level
            AND o.bucket_start = 'epoch'::timestamptz + k.start_us * interval '1 microsecond'
        OFFSET 0
    ) r
    ORDER BY k.i
"""
_SAVE = """
    INSERT INTO {rollups} (series_id, level, bucket_start, n, s, q, low, high, histogram, revision)
    SELECT k.series_id, k.level, 'epoch'::timestamptz + k.start_us * interval '1 microsecond',
           k.n, k.s, k.q, k.low, k.high, k.histogram, k.revision
    FROM unnest(%(series)s::int[], %(level)s::smallint[], %(start)s::bigint[], %(n)s::bigint[],
                %(s)s::numeric[], %(q)s::numeric[], %(low)s::bigint[], %(high)s::bigint[],
                %(histogram)s::bytea[], %(revision)s::bigint[])
        AS k(series_id, level, start_us, n, s, q, low, high, histogram, revision)
    ON CONFLICT (series_id, level, bucket_start) DO UPDATE
    SET n = excluded.n, s = excluded.s, q = excluded.q, low = excluded.low, high = excluded.high,
        histogram = excluded.histogram, revision = excluded.revision
"""
_EXTREMES = """
    SELECT min(r.low), max(r.high)
    FROM unnest(%(series)s::int[], %(start)s::bigint[]) WITH ORDINALITY AS k(series_id, start_us, i)
    JOIN {rollups} r ON r.series_id = k.series_id AND r.level = 0
        AND r.bucket_start >= 'epoch'::timestamptz + k.start_us * interval '1 microsecond'
        AND r.bucket_start < 'epoch'::timestamptz + (k.start_us + %(length)s) * interval '1 microsecond'
    GROUP BY k.i
    ORDER BY k.i
"""
_CONFIGURE = """
    INSERT INTO {sensors} (sensor_id, expected_interval_s) VALUES (%s, %s)
    ON CONFLICT (sensor_id) DO UPDATE SET expected_interval_s = excluded.expected_interval_s
"""
_COLUMNS: Final = ("series", "level", "start", "n", "s", "q", "low", "high", "histogram", "revision")
_VERSION: Final = 1


def rollup_tables(version: int = _VERSION) -> dict[str, sql.Identifier]:
    """Return the names of the tables of one version of the projection."""
    return {"rollups": sql.Identifier(f"rollups_v{version}"), "sensors": sql.Identifier(f"rollup_sensors_v{version}")}


class PostgresRollups:
    """The tables of one version of the aggregates, in the transaction that moves their checkpoint."""

    def __init__(self, connection: Connection, version: int = _VERSION) -> None:
        self._connection = connection
        self._register = PostgresSeries(connection)
        names = rollup_tables(version)
        self._load = sql.SQL(_LOAD).format(**names)
        self._save = sql.SQL(_SAVE).format(**names)
        self._extremes = sql.SQL(_EXTREMES).format(**names)
        self._configure = sql.SQL(_CONFIGURE).format(**names)

    @property
    def register(self) -> Register:
        return self._register

    async def load(self, levels: Sequence[Keys]) -> Sequence[tuple[Rollups, Ints]]:
        values = {
            "series": [one for keys in levels for one in keys.series.tolist()],
            "level": [level for level, keys in enumerate(levels) for _ in range(len(keys.series))],
            "start": [one for keys in levels for one in keys.start_us.tolist()],
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
        columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        for one in levels:
            rows = _rows_of(one.keys, one.rollups)
            full = rows >= 0
            picked, rollups = rows[full], one.rollups
            histograms = encoded(rollups.histograms)
            columns["series"] += one.keys.series.tolist()
            columns["level"] += [one.level] * len(rows)
            columns["start"] += one.keys.start_us.tolist()
            columns["n"] += _spread(rollups.n[picked].tolist(), full, 0)
            columns["s"] += _spread([Decimal(number) for number in rollups.s[picked].tolist()], full, Decimal(0))
            columns["q"] += _spread([Decimal(number) for number in rollups.q[picked].tolist()], full, Decimal(0))
            columns["low"] += _spread(rollups.low[picked].tolist(), full, None)
            columns["high"] += _spread(rollups.high[picked].tolist(), full, None)
            columns["histogram"] += _spread([histograms[row] for row in picked.tolist()], full, b"")
            columns["revision"] += one.revisions.tolist()
        if columns["series"]:
            await self._connection.execute(self._save, columns)

    async def extremes(self, level: int, series: Ints, start_us: Ints) -> tuple[Ints, Ints]:
        values = {"series": series.tolist(), "start": start_us.tolist(), "length": LEVELS_US[level]}
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
    """Return the row in *rollups* of each key, -1 for one without readings; both are sorted alike."""
    kept = dict(
        zip(zip(rollups.series.tolist(), rollups.start_us.tolist(), strict=True), range(len(rollups)), strict=True)
    )
    return np.array(
        [kept.get(key, -1) for key in zip(keys.series.tolist(), keys.start_us.tolist(), strict=True)], np.int64
    )


def _spread(values: list[Any], full: NDArray[np.bool_], empty: object) -> list[Any]:
    if len(values) == len(full):
        return values
    rest = iter(values)
    return [next(rest) if one else empty for one in full.tolist()]
