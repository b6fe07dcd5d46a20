"""What statistics as of an earlier position read: the stored buckets that are still those of then, and readings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from psycopg import sql

from smartgrid_adapters.postgres import fixed_arrays
from smartgrid_adapters.postgres.codec import decode
from smartgrid_adapters.postgres.fixed_arrays import Instants, Int2s, Int4s
from smartgrid_adapters.postgres.pool import Connection
from smartgrid_adapters.postgres.rollups import rollup_tables, rollups_of
from smartgrid_adapters.postgres.series import PostgresSeries
from smartgrid_domain.maths.rollups import QUARTER_US
from smartgrid_projections.queries.past_stats import spans_of_then
from smartgrid_projections.queries.stats import READINGS_LEVEL, Snapshot, Span, Wanted
from smartgrid_projections.register import SeriesName
from smartgrid_schemas.telemetry import SensorConfigured

# The rollups stand at their checkpoint, behind or ahead of the position asked for: what was recorded between the two
# is what they differ by.
_CHANGED = """
    SELECT DISTINCT f.series_id, (extract(epoch FROM f.measured_at) * 1000000)::bigint / %(quarter_us)s
    FROM (
        SELECT r.series_id, r.measured_at FROM reading_register r
        WHERE r.position > %(low)s AND r.position <= %(high)s
            AND r.measured_at >= 'epoch'::timestamptz + %(start_us)s * interval '1 microsecond'
            AND r.measured_at < 'epoch'::timestamptz + %(end_us)s * interval '1 microsecond'
        UNION ALL
        SELECT t.series_id, t.measured_at FROM reading_retractions t
        WHERE t.position > %(low)s AND t.position <= %(high)s
            AND t.measured_at >= 'epoch'::timestamptz + %(start_us)s * interval '1 microsecond'
            AND t.measured_at < 'epoch'::timestamptz + %(end_us)s * interval '1 microsecond'
    ) f
    WHERE f.series_id = ANY(%(series)s)
    ORDER BY 1, 2
"""
_ROLLUPS = """
    SELECT w.series_id, (extract(epoch FROM r.bucket_start) * 1000000)::bigint, r.n, r.s, r.q, r.low, r.high,
           r.histogram
    FROM unnest(%(series)s::int[], %(levels)s::smallint[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
        AS w(series_id, level, start_at, end_at)
    CROSS JOIN LATERAL (
        SELECT * FROM {rollups} o
        WHERE o.series_id = w.series_id AND o.level = w.level
            AND o.bucket_start >= w.start_at AND o.bucket_start < w.end_at
        OFFSET 0
    ) r
    WHERE r.n > 0
"""
_SETTINGS = """
    SELECT w.sensor_id, e.topic, e.state
    FROM unnest(%s::text[]) AS w(sensor_id)
    CROSS JOIN LATERAL (
        SELECT e.topic, e.state FROM telemetry_events e
        WHERE e.originator_id = 'sensor:' || w.sensor_id AND e.notification_id <= %s
        ORDER BY e.originator_version DESC LIMIT 1
    ) e
"""


async def snapshot_of_then(
    connection: Connection, version: int, wanted: Wanted, at: int, series: Mapping[int, SeriesName]
) -> Snapshot:
    """
    Return what the read model would have held at the position ``wanted.as_of``, whichever it holds now.

    Args:
        connection: In a transaction whose statements all see the same.
        version: Of the projection.
        wanted: The question, as of a position that the log has come to.
        at: Position that the stored buckets include.
        series: Those that are asked for; they need not have existed then.
    """
    position = wanted.as_of or 0
    fixed_arrays.register(connection)
    coarse = [span for span in wanted.spans if span.level != READINGS_LEVEL]
    changed = await _changed(connection, coarse, sorted((at, position)), [*series])
    spans = [
        (one, span)
        for one in sorted(series)
        for span in (spans_of_then(wanted.spans, changed[one]) if one in changed else wanted.spans)
    ]
    stored = [(one, span) for one, span in spans if span.level != READINGS_LEVEL]
    rollups: list[tuple[Any, ...]] = []
    if stored:
        cursor = await connection.execute(
            sql.SQL(_ROLLUPS).format(**rollup_tables(version)),
            {
                "series": Int4s(np.array([one for one, _ in stored])),
                "levels": Int2s(np.array([span.level for _, span in stored])),
                "starts": Instants(np.array([span.start_us for _, span in stored], np.int64)),
                "ends": Instants(np.array([span.end_us for _, span in stored], np.int64)),
            },
            binary=True,
        )
        rollups = await cursor.fetchall()
    readings = [(one, span.start_us, span.end_us) for one, span in spans if span.level == READINGS_LEVEL]
    return Snapshot(
        position=position,
        series=series,
        intervals=await _intervals(connection, sorted({name.subject_id for name in series.values()}), position),
        rollups=rollups_of(
            np.array([row[0] for row in rollups], np.int64),
            np.array([row[1] for row in rollups], np.int64),
            [row[2:] for row in rollups],
        ),
        readings=await PostgresSeries(connection).stretches(readings, position),
    )


async def _changed(
    connection: Connection, spans: Sequence[Span], between: Sequence[int], series: list[int]
) -> dict[int, list[int]]:
    """Return the quarters of an hour of each series in which something was recorded *between* two positions."""
    low, high = between
    if not spans or low == high or not series:
        return {}
    values = {
        "quarter_us": QUARTER_US,
        "low": low,
        "high": high,
        "start_us": min(span.start_us for span in spans),
        "end_us": max(span.end_us for span in spans),
        "series": series,
    }
    # A plan of its own each time: whether little or much was recorded since decides which index is the right one.
    cursor = await connection.execute(_CHANGED, values, prepare=False, binary=True)
    result: dict[int, list[int]] = {}
    for one, quarter in await cursor.fetchall():
        result.setdefault(one, []).append(quarter * QUARTER_US)
    return result


async def _intervals(connection: Connection, sensors: list[str], position: int) -> dict[str, float]:
    cursor = await connection.execute(_SETTINGS, (sensors, position), binary=True)
    result: dict[str, float] = {}
    for sensor_id, topic, state in await cursor.fetchall():
        settings = decode(topic, state)
        if isinstance(settings, SensorConfigured) and settings.expected_interval_s is not None:
            result[sensor_id] = settings.expected_interval_s
    return result
