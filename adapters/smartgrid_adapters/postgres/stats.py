"""What statistics read of rollups and register, in one round trip and one snapshot."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from psycopg import sql

from smartgrid_adapters.postgres import fixed_arrays
from smartgrid_adapters.postgres.answering import POSITION, AnsweringVersion, NotAnswering
from smartgrid_adapters.postgres.fixed_arrays import EPOCH_2000_US, Instants, Int2s
from smartgrid_adapters.postgres.past_stats import snapshot_of_then
from smartgrid_adapters.postgres.pool import Connection, Pool
from smartgrid_adapters.postgres.rollups import rollup_tables
from smartgrid_adapters.postgres.series import PACKED_ROW, readings_of
from smartgrid_domain.maths.calendar import instant
from smartgrid_domain.maths.exact import Numbers, small
from smartgrid_domain.maths.histograms import decoded_run
from smartgrid_domain.maths.rollups import Rollups
from smartgrid_projections.queries.stats import READINGS_LEVEL, UTC_ZONE, Snapshot, Span, Wanted
from smartgrid_projections.register import SeriesName

_SERIES = """
    SELECT s.series_id, s.subject_id, s.measurand, s.phase FROM series s WHERE {chosen}
"""
# One statement is one round trip and one snapshot: rows and position belong together. The server packs rows into a few
# values, which numpy reads as they are. OFFSET 0 keeps each span of each series a range of the primary key, whatever
# the planner believes of their number. Sums beyond 64 bits, which no physically possible readings have, come as text.
_NOW = """
    WITH at AS MATERIALIZED ({position}),
        chosen AS MATERIALIZED (
            SELECT s.series_id, s.subject_id, s.measurand, s.phase, t.expected_interval_s
            FROM series s LEFT JOIN {sensors} t ON t.sensor_id = s.subject_id
            WHERE {chosen}
        )
    SELECT (SELECT position FROM at), names.*, buckets.*, {readings}
    FROM (
        SELECT array_agg(series_id), array_agg(subject_id), array_agg(measurand), array_agg(phase),
               array_agg(expected_interval_s)
        FROM chosen
    ) names
    CROSS JOIN (
        SELECT string_agg(
                   int4send(s.series_id) || timestamptz_send(r.bucket_start) || int8send(r.n)
                   || int8send(CASE WHEN r.fits THEN r.s::bigint ELSE 0 END)
                   || int8send(CASE WHEN r.fits THEN r.q::bigint ELSE 0 END)
                   || int8send(r.low) || int8send(r.high) || int4send(length(r.histogram)) || boolsend(r.fits),
                   ''::bytea
               ),
               string_agg(r.histogram, ''::bytea),
               array_agg(ARRAY[r.s::text, r.q::text]) FILTER (WHERE NOT r.fits)
        FROM chosen s
        CROSS JOIN unnest(%(levels)s::smallint[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
            AS w(level, start_at, end_at)
        CROSS JOIN LATERAL (
            SELECT *, abs(o.s) < 9223372036854775807 AND o.q < 9223372036854775807 AS fits
            FROM {rollups} o
            WHERE o.series_id = s.series_id AND o.level = w.level
                AND o.bucket_start >= w.start_at AND o.bucket_start < w.end_at
            OFFSET 0
        ) r
        WHERE r.n > 0
    ) buckets
"""
_READINGS = """(
        SELECT string_agg({packed}, ''::bytea)
        FROM ({spans}) c
        WHERE coalesce(
            (SELECT t.position FROM reading_retractions t WHERE t.event_id = c.event_id) > (SELECT position FROM at),
            true
        )
    )"""
_SPAN = """
    SELECT c.*
    FROM chosen s {each}
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (r.measured_at, r.seq)
            r.series_id, r.measured_at, r.seq, r.mantissa, r.exponent, r.quality, r.event_id
        FROM reading_register r
        WHERE r.series_id = s.series_id AND r.measured_at >= {start} AND r.measured_at < {end}
            AND r.position <= (SELECT position FROM at)
        ORDER BY r.measured_at, r.seq, r.revision DESC
    ) c
"""
_EACH_SPAN = """
    CROSS JOIN unnest(%(fine_starts)s::timestamptz[], %(fine_ends)s::timestamptz[]) AS w(start_at, end_at)
"""
_FEW = 2
"""Spans of readings that are written out: of a range that no bucket divides there is one at each end."""
_FILTERS = {
    "sensor_id": sql.SQL("s.subject_id = %(sensor_id)s"),
    "measurand": sql.SQL("s.measurand = %(measurand)s"),
    "phase": sql.SQL("s.phase = %(phase)s"),
}


_BUCKET = np.dtype(
    [
        ("series", ">i4"),
        ("start", ">i8"),
        ("n", ">i8"),
        ("s", ">i8"),
        ("q", ">i8"),
        ("low", ">i8"),
        ("high", ">i8"),
        ("length", ">i4"),
        ("fits", "?"),
    ]
)


class PostgresStats:
    """The aggregates in PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._answering = AnsweringVersion(pool, "aggregates")
        self._texts: dict[tuple[int, int, tuple[str, ...]], bytes] = {}

    def _text_for(self, version: int, fine: int, filters: tuple[str, ...]) -> bytes:
        """Return the statement for so many spans of readings."""
        key = version, min(fine, _FEW + 1), filters
        if key not in self._texts:
            names = {
                **rollup_tables(version),
                "chosen": _chosen(filters),
                "position": sql.SQL(POSITION),
                "readings": _readings(fine),
            }
            self._texts[key] = sql.SQL(_NOW).format(**names).as_bytes(None)
        return self._texts[key]

    async def read(self, wanted: Wanted) -> Snapshot:
        chosen = {name: value for name in _FILTERS if (value := getattr(wanted, name)) is not None}

        async def then(connection: Connection, version: int, filters: dict[str, Any]) -> Snapshot:
            async with connection.transaction():
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                at = await (await connection.execute(POSITION, filters)).fetchone()
                if at is None:
                    raise NotAnswering
                rows = await (
                    await connection.execute(sql.SQL(_SERIES).format(chosen=_chosen(tuple(chosen))), filters)
                ).fetchall()
                names = {row[0]: SeriesName(row[1], row[2], row[3]) for row in rows}
                return await snapshot_of_then(connection, version, wanted, at[0], names)

        async def unit(connection: Connection, version: int) -> Snapshot:
            filters = {**chosen, "projection": "aggregates", "version": version, "log": "telemetry"}
            if wanted.as_of is not None:
                return await then(connection, version, filters)
            fixed_arrays.register(connection)
            fine = sum(span.level == READINGS_LEVEL for span in wanted.spans)
            text = self._text_for(version, fine, tuple(chosen))
            row = await (
                await connection.execute(text, {**filters, **_values_of(wanted.spans)}, binary=True)
            ).fetchone()
            if row is None or row[0] is None:
                raise NotAnswering
            return _snapshot(row)

        return await self._answering.ask(unit)


def _chosen(filters: Sequence[str]) -> sql.Composed:
    return sql.SQL(" AND ").join([sql.SQL("s.subject = 'sensor'"), *(_FILTERS[name] for name in filters)])


def _readings(fine: int) -> sql.Composable:
    """Return what answers the readings of *fine* spans."""
    if not fine:
        return sql.SQL("NULL::bytea")
    if fine > _FEW:
        each = sql.SQL(_EACH_SPAN)
        spans = [sql.SQL(_SPAN).format(each=each, start=sql.SQL("w.start_at"), end=sql.SQL("w.end_at"))]
    else:  # by themselves, so that only the partitions that they lie in are opened
        names = [(f"fine_start_{i}", f"fine_end_{i}") for i in range(fine)]
        spans = [
            sql.SQL(_SPAN).format(each=sql.SQL(""), start=sql.Placeholder(start), end=sql.Placeholder(end))
            for start, end in names
        ]
    return sql.SQL(_READINGS).format(packed=sql.SQL(PACKED_ROW), spans=sql.SQL(" UNION ALL ").join(spans))


def _values_of(spans: Sequence[Span]) -> dict[str, object]:
    """Return the parameters that say which *spans* are meant."""
    coarse = [span for span in spans if span.level != READINGS_LEVEL]
    fine = [span for span in spans if span.level == READINGS_LEVEL]
    values: dict[str, object] = {
        "levels": Int2s(np.array([span.level for span in coarse], np.int64)),
        "starts": Instants(np.array([span.start_us for span in coarse], np.int64)),
        "ends": Instants(np.array([span.end_us for span in coarse], np.int64)),
    }
    if len(fine) > _FEW:
        values["fine_starts"] = Instants(np.array([span.start_us for span in fine], np.int64))
        values["fine_ends"] = Instants(np.array([span.end_us for span in fine], np.int64))
    else:
        for i, span in enumerate(fine):
            values[f"fine_start_{i}"] = instant(span.start_us, UTC_ZONE)
            values[f"fine_end_{i}"] = instant(span.end_us, UTC_ZONE)
    return values


def _snapshot(row: Sequence[Any]) -> Snapshot:
    position, ids, sensors, measurands, phases, intervals, buckets, histograms, sums, readings = row
    return Snapshot(
        position=position,
        series=dict(zip(ids or (), map(SeriesName, sensors or (), measurands or (), phases or ()), strict=True)),
        intervals={
            sensor: interval
            for sensor, interval in zip(sensors or (), intervals or (), strict=True)
            if interval is not None
        },
        rollups=_rollups(buckets or b"", histograms or b"", sums or []),
        readings=readings_of(readings),
    )


def _rollups(buckets: bytes, histograms: bytes, beyond: Sequence[tuple[str, str]]) -> Rollups:
    """
    Return packed buckets.

    Args:
        buckets: Their numbers, packed.
        histograms: Their histograms, one after the other.
        beyond: Sums and sums of squares of those for which they do not fit into 64 bits.
    """
    rows = np.frombuffer(buckets, _BUCKET)
    s: Numbers = rows["s"].astype(np.int64)
    q: Numbers = rows["q"].astype(np.int64)
    if beyond:
        s, q = s.astype(object), q.astype(object)
        places = np.flatnonzero(~rows["fits"])
        s[places] = [int(one) for one, _ in beyond]
        q[places] = [int(other) for _, other in beyond]
    return Rollups(
        series=rows["series"].astype(np.int64),
        start_us=rows["start"].astype(np.int64) + EPOCH_2000_US,
        n=rows["n"].astype(np.int64),
        s=small(s),
        q=small(q),
        low=rows["low"].astype(np.int64),
        high=rows["high"].astype(np.int64),
        histograms=decoded_run(histograms, rows["length"].astype(np.int64)),
    )
