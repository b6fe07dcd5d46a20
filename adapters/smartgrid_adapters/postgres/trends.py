"""What consumption trends read, in one snapshot."""

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

import numpy as np
from psycopg import sql

from smartgrid_adapters.postgres.answering import POSITION, AnsweringVersion, NotAnswering
from smartgrid_adapters.postgres.consumption import CUSTOMER, consumption_tables
from smartgrid_adapters.postgres.past_trends import PostgresPastTrends
from smartgrid_adapters.postgres.pool import Connection, Pool
from smartgrid_adapters.postgres.series import PostgresSeries
from smartgrid_commands.sealing import Sealer
from smartgrid_domain.maths.registers import Break
from smartgrid_projections.queries.fine_trends import FineRows, Source, fine_rows, summed
from smartgrid_projections.queries.trends import Holding, TrendsSnapshot, TrendsWanted
from smartgrid_projections.read_models.consumption_tables import FIRST_US, FOREVER
from smartgrid_projections.read_models.energy import counts

_LINKS = """
    SELECT l.meter_id, l.since_us, l.until_us, m.expected_interval_s
    FROM {meter_links} l LEFT JOIN {consumption_meters} m USING (meter_id)
    WHERE l.customer = %(customer)s AND (%(meter_id)s::text IS NULL OR l.meter_id = %(meter_id)s)
"""
_SERIES = """
    SELECT s.series_id, s.subject_id, s.measurand, m.rollover_at_wh, m.expected_interval_s
    FROM series s LEFT JOIN {consumption_meters} m ON m.meter_id = s.subject_id
    WHERE s.subject = 'meter' AND s.subject_id = ANY(%(meters)s)
"""
_BREAKS = """
    SELECT meter_id, register, at_us, initial_wh, final_wh FROM {meter_breaks} WHERE meter_id = ANY(%(meters)s)
"""
# OFFSET 0 keeps each range a range of the primary key. The server packs the rows into one value.
_ROWS = """
    SELECT string_agg(
        timestamptz_send(r.start_at) || int8send(r.wh) || int8send(r.estimated_wh) || int8send(r.readings), ''::bytea
    )
    FROM unnest(%(keys)s::{type}[]) AS k(key)
    CROSS JOIN unnest(%(starts)s::bigint[], %(ends)s::bigint[]) AS w(start_us, end_us)
    CROSS JOIN LATERAL (
        SELECT * FROM {table} o
        WHERE o.{column} = k.key
            AND o.start_at >= 'epoch'::timestamptz + w.start_us * interval '1 microsecond'
            AND o.start_at < 'epoch'::timestamptz + w.end_us * interval '1 microsecond'
        OFFSET 0
    ) r
"""
_EPOCH_2000_US = 946_684_800_000_000
_ROW = np.dtype([("start", ">i8"), ("wh", ">i8"), ("estimated", ">i8"), ("readings", ">i8")])


class PostgresTrends:
    """Consumption in PostgreSQL."""

    def __init__(self, pool: Pool, sealer: Sealer) -> None:
        self._answering = AnsweringVersion(pool, "consumption")
        self._sealer = sealer
        self._past = PostgresPastTrends(pool, sealer)

    async def read(self, wanted: TrendsWanted) -> TrendsSnapshot:
        async def unit(connection: Connection, version: int) -> TrendsSnapshot:
            async with connection.transaction():
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
                return await _Reading(connection, self._sealer, version, wanted).read()

        if wanted.as_of is not None:
            return await self._answering.tried(lambda version: self._past.read(wanted, version))
        return await self._answering.ask(unit)


class _Reading:
    """One question, in its transaction."""

    def __init__(self, connection: Connection, sealer: Sealer, version: int, wanted: TrendsWanted) -> None:
        self._connection = connection
        self._names = consumption_tables(version)
        self._wanted = wanted
        customer_id = wanted.customer_id or wanted.only_customer
        self._values: dict[str, Any] = {
            "projection": "consumption",
            "version": version,
            "log": "telemetry",
            "meter_id": wanted.meter_id,
            "customer": None if customer_id is None else sealer.lookup(CUSTOMER, customer_id),
        }

    async def read(self) -> TrendsSnapshot:
        found = await self._fetch(POSITION)
        if not found:
            raise NotAnswering
        position = int(found[0][0])
        holdings: dict[str, list[Holding]] = {}
        if self._values["customer"] is not None:
            for meter_id, *holding in await self._fetch(_LINKS):
                holdings.setdefault(meter_id, []).append(Holding(*holding))
        meters = list(holdings) if self._wanted.meter_id is None else [self._wanted.meter_id]
        series: list[tuple[Any, ...]] = []
        if self._wanted.meter_id is not None or self._wanted.bounds is not None:
            self._values["meters"] = meters
            series = [row for row in await self._fetch(_SERIES) if counts(row[2])]
        if self._values["customer"] is None:
            holdings = {row[1]: [Holding(FIRST_US, FOREVER, row[4])] for row in series}
        rows = await self._rows(position, series, holdings)
        return TrendsSnapshot(
            position=position,
            holdings=[holding for own in holdings.values() for holding in own],
            start_us=rows.start_us,
            wh=rows.wh,
            estimated_wh=rows.estimated_wh,
            readings=rows.readings,
        )

    async def _rows(
        self, position: int, series: Sequence[tuple[Any, ...]], holdings: Mapping[str, Sequence[Holding]]
    ) -> FineRows:
        if self._wanted.bounds is not None:
            breaks: dict[tuple[str, str], list[Break]] = {}
            for meter_id, register, *item in await self._fetch(_BREAKS):
                breaks.setdefault((meter_id, register), []).append(Break(*item))
            sources = [
                Source(
                    series=row[0],
                    breaks=breaks.get((row[1], row[2]), []),
                    rollover_at_wh=row[3],
                    holdings=holdings.get(row[1], []),
                )
                for row in series
            ]
            return await fine_rows(PostgresSeries(self._connection), position, sources, self._wanted.bounds)
        if self._wanted.meter_id is None:
            return summed(await self._stored("customer_consumption", "customer", "bytea", [self._values["customer"]]))
        rows = await self._stored("consumption", "series_id", "int", [row[0] for row in series])
        if self._wanted.only_customer is not None:
            own = holdings.get(self._wanted.meter_id, [])
            kept = np.zeros(len(rows.start_us), np.bool_)
            for since_us, until_us, _ in own:
                kept |= (rows.start_us >= since_us) & (rows.start_us < until_us)
            rows = rows.only(np.flatnonzero(kept))
        return summed(rows)

    async def _stored(self, table: str, column: str, kind: LiteralString, keys: list[Any]) -> FineRows:
        spans = _disjoint(self._wanted.ranges)
        query = sql.SQL(_ROWS).format(table=self._names[table], column=sql.Identifier(column), type=sql.SQL(kind))
        values = {"keys": keys, "starts": [start for start, _ in spans], "ends": [end for _, end in spans]}
        row = await (await self._connection.execute(query, values, binary=True)).fetchone()
        packed = np.frombuffer((row[0] if row else None) or b"", _ROW)
        return FineRows(
            start_us=packed["start"].astype(np.int64) + _EPOCH_2000_US,
            wh=packed["wh"].astype(np.int64),
            estimated_wh=packed["estimated"].astype(np.int64),
            readings=packed["readings"].astype(np.int64),
        )

    async def _fetch(self, text: LiteralString) -> list[tuple[Any, ...]]:
        query = sql.SQL(text).format(**self._names)
        return await (await self._connection.execute(query, self._values)).fetchall()


def _disjoint(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    result: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result
