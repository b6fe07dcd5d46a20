"""What statistics read of rollups and register, in one round trip and one snapshot."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from psycopg import sql

from smartgrid_adapters.postgres.answering import POSITION, AnsweringVersion, NotAnswering
from smartgrid_adapters.postgres.past_stats import snapshot_of_then
from smartgrid_adapters.postgres.pool import Connection, Pool
from smartgrid_adapters.postgres.rollups import rollup_tables, rollups_of
from smartgrid_adapters.postgres.series import PACKED_ROW, readings_of
from smartgrid_projections.queries.stats import READINGS_LEVEL, Snapshot, Wanted
from smartgrid_projections.register import SeriesName

_SERIES = """
    SELECT s.series_id, s.subject_id, s.measurand, s.phase, t.expected_interval_s
    FROM series s LEFT JOIN {sensors} t ON t.sensor_id = s.subject_id
    WHERE {chosen}
"""
# OFFSET 0 keeps each span of each series a range of the primary key, whatever the planner believes of their number.
_ROLLUPS = """
    SELECT s.series_id, (extract(epoch FROM r.bucket_start) * 1000000)::bigint, r.n, r.s, r.q, r.low, r.high,
           r.histogram
    FROM series s
    CROSS JOIN unnest(%(levels)s::smallint[], %(starts)s::bigint[], %(ends)s::bigint[]) AS w(level, start_us, end_us)
    CROSS JOIN LATERAL (
        SELECT * FROM {rollups} o
        WHERE o.series_id = s.series_id AND o.level = w.level
            AND o.bucket_start >= 'epoch'::timestamptz + w.start_us * interval '1 microsecond'
            AND o.bucket_start < 'epoch'::timestamptz + w.end_us * interval '1 microsecond'
        OFFSET 0
    ) r
    WHERE {chosen} AND r.n > 0
"""
_READINGS = """
    SELECT string_agg({packed}, ''::bytea)
    FROM series s
    CROSS JOIN unnest(%(starts)s::bigint[], %(ends)s::bigint[]) AS w(start_us, end_us)
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (r.measured_at, r.seq)
            r.series_id, r.measured_at, r.seq, r.mantissa, r.exponent, r.quality, r.event_id
        FROM reading_register r
        WHERE r.series_id = s.series_id
            AND r.measured_at >= 'epoch'::timestamptz + w.start_us * interval '1 microsecond'
            AND r.measured_at < 'epoch'::timestamptz + w.end_us * interval '1 microsecond'
            AND r.position <= ({position})
        ORDER BY r.measured_at, r.seq, r.revision DESC
    ) c
    WHERE {chosen} AND NOT EXISTS (
        SELECT FROM reading_retractions t WHERE t.event_id = c.event_id AND t.position <= ({position})
    )
"""
_FILTERS = {
    "sensor_id": sql.SQL("s.subject_id = %(sensor_id)s"),
    "measurand": sql.SQL("s.measurand = %(measurand)s"),
    "phase": sql.SQL("s.phase = %(phase)s"),
}


class PostgresStats:
    """The aggregates in PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._answering = AnsweringVersion(pool, "aggregates")
        self._texts: dict[tuple[int, tuple[str, ...]], _Texts] = {}

    def _texts_for(self, version: int, filters: tuple[str, ...]) -> "_Texts":
        if (version, filters) not in self._texts:
            chosen = [sql.SQL("s.subject = 'sensor'"), *(_FILTERS[name] for name in filters)]
            names = {
                **rollup_tables(version),
                "chosen": sql.SQL(" AND ").join(chosen),
                "packed": sql.SQL(PACKED_ROW),
                "position": sql.SQL(POSITION),
            }
            texts = _Texts(*(sql.SQL(text).format(**names) for text in (_SERIES, _ROLLUPS, _READINGS)))
            self._texts[version, filters] = texts
        return self._texts[version, filters]

    async def read(self, wanted: Wanted) -> Snapshot:
        chosen = {name: value for name in _FILTERS if (value := getattr(wanted, name)) is not None}
        coarse = [span for span in wanted.spans if span.level != READINGS_LEVEL]
        fine = [span for span in wanted.spans if span.level == READINGS_LEVEL]

        async def then(connection: Connection, version: int, texts: _Texts, filters: dict[str, Any]) -> Snapshot:
            async with connection.transaction():
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                at = await (await connection.execute(POSITION, filters)).fetchone()
                if at is None:
                    raise NotAnswering
                rows = await (await connection.execute(texts.series, filters)).fetchall()
                names = {row[0]: SeriesName(row[1], row[2], row[3]) for row in rows}
                return await snapshot_of_then(connection, version, wanted, at[0], names)

        async def unit(connection: Connection, version: int) -> Snapshot:
            texts = self._texts_for(version, tuple(chosen))
            filters = {**chosen, "projection": "aggregates", "version": version, "log": "telemetry"}
            if wanted.as_of is not None:
                return await then(connection, version, texts, filters)
            cursors = [connection.cursor(binary=True) for _ in range(4)]
            position, series, rollups, readings = cursors
            # One snapshot for all of them: rows and position belong together.
            async with connection.pipeline():
                await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                # Planning anew for every set of spans would cost more than the reading: there are 28 partitions.
                await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
                await position.execute(POSITION, filters)
                await series.execute(texts.series, filters)
                await rollups.execute(
                    texts.rollups,
                    {
                        **filters,
                        "levels": [span.level for span in coarse],
                        "starts": [span.start_us for span in coarse],
                        "ends": [span.end_us for span in coarse],
                    },
                )
                if fine:
                    await readings.execute(
                        texts.readings,
                        {**filters, "starts": [s.start_us for s in fine], "ends": [s.end_us for s in fine]},
                    )
                await connection.execute("COMMIT")
            at = await position.fetchone()
            if at is None:
                raise NotAnswering
            packed = await readings.fetchone() if fine else None
            return _snapshot(
                at[0],
                await series.fetchall(),
                await rollups.fetchall(),
                None if packed is None else packed[0],
            )

        return await self._answering.ask(unit)


class _Texts(NamedTuple):
    """The statements for one combination of filters."""

    series: sql.Composed
    rollups: sql.Composed
    readings: sql.Composed


def _snapshot(
    position: int, series: Sequence[Sequence[Any]], rollups: Sequence[Sequence[Any]], packed: bytes | None
) -> Snapshot:
    return Snapshot(
        position=position,
        series={row[0]: SeriesName(row[1], row[2], row[3]) for row in series},
        intervals={row[1]: row[4] for row in series if row[4] is not None},
        rollups=rollups_of(
            np.array([row[0] for row in rollups], np.int64),
            np.array([row[1] for row in rollups], np.int64),
            [row[2:] for row in rollups],
        ),
        readings=readings_of(packed),
    )
