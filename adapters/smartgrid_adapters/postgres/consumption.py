"""The tables of consumption, written by their projection."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString

import numpy as np
from psycopg import sql

from smartgrid_adapters.postgres import arrays, fixed_arrays
from smartgrid_adapters.postgres.arrays import BytesArray
from smartgrid_adapters.postgres.fixed_arrays import Instants, Int4s, Int8s
from smartgrid_adapters.postgres.pool import Connection
from smartgrid_adapters.postgres.series import PostgresSeries
from smartgrid_commands.sealing import Sealer
from smartgrid_domain.maths.quantities import Ints
from smartgrid_domain.maths.registers import Break
from smartgrid_projections.read_models.consumption_tables import Link, Meter, MeterState, Tail
from smartgrid_projections.read_models.energy import Parts
from smartgrid_projections.register import Register
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event

CUSTOMER: Final = "customer"
"""Kind of the blind index of customers."""

MOST_REMEMBERED: Final = 100_000
"""States and tails kept in memory between batches."""

_ADD = """
    INSERT INTO {table} AS t ({key}, start_at, wh, estimated_wh, readings)
    SELECT * FROM unnest(%(key)s::{type}[], %(start)s::timestamptz[], %(wh)s::bigint[], %(estimated)s::bigint[],
                         %(readings)s::bigint[])
    ON CONFLICT ({key}, start_at) DO UPDATE
    SET wh = t.wh + excluded.wh, estimated_wh = t.estimated_wh + excluded.estimated_wh,
        readings = t.readings + excluded.readings
"""
_SWEEP = """
    DELETE FROM {table} t
    USING unnest(%(key)s::{type}[], %(start)s::timestamptz[]) AS k(key, start_at)
    WHERE t.{key} = k.key AND t.start_at = k.start_at
        AND t.wh = 0 AND t.estimated_wh = 0 AND t.readings = 0
"""


def consumption_tables(version: int = 1) -> dict[str, sql.Identifier]:
    """Return the names of the tables of one version of the projection."""
    return {
        name: sql.Identifier(f"{name}_v{version}")
        for name in (
            "consumption",
            "customer_consumption",
            "consumption_meters",
            "meter_links",
            "meter_breaks",
            "register_tails",
        )
    }


class PostgresConsumption:
    """The tables of one version of the projection, in the transaction that moves its checkpoint."""

    def __init__(self, connection: Connection, sealer: Sealer, version: int = 1) -> None:
        self._connection = connection
        fixed_arrays.register(connection)
        arrays.register(connection)
        self._sealer = sealer
        self._register = PostgresSeries(connection)
        self._names = consumption_tables(version)
        # The owner of a claim is the only writer, so what it read or wrote in it stays true.
        self._states: dict[str, MeterState] = {}
        self._tails: dict[int, Tail | None] = {}

    @property
    def register(self) -> Register:
        return self._register

    def _sql(self, text: LiteralString) -> sql.Composed:
        return sql.SQL(text).format(**self._names)

    async def customer_of(self, recorded: Recorded[Event]) -> bytes | None:
        clear = await self._sealer.open_packed(self._sealer.pack_sealed(recorded, "customer_id"))
        return None if clear is None else self._sealer.lookup(CUSTOMER, clear)

    async def states(self, meter_ids: Sequence[str]) -> Mapping[str, MeterState]:
        if len(self._states) > MOST_REMEMBERED:
            self._states.clear()
        missing = [meter for meter in meter_ids if meter not in self._states]
        if missing:
            self._states.update({meter: MeterState() for meter in missing})
            await self._load(missing)
        return {meter: self._states[meter] for meter in meter_ids}

    async def _load(self, meter_ids: list[str]) -> None:
        rows = await self._fetch(
            "SELECT meter_id, rollover_at_wh, expected_interval_s FROM {consumption_meters} WHERE meter_id = ANY(%s)",
            meter_ids,
        )
        for meter, rollover_at_wh, expected_interval_s in rows:
            self._states[meter].meter = Meter(rollover_at_wh, expected_interval_s)
        rows = await self._fetch(
            "SELECT meter_id, since_us, until_us, customer FROM {meter_links} WHERE meter_id = ANY(%s) "
            "ORDER BY meter_id, since_us",
            meter_ids,
        )
        for meter, since_us, until_us, customer in rows:
            self._states[meter].links += (Link(since_us, until_us, customer),)
        rows = await self._fetch(
            "SELECT meter_id, register, at_us, kind, initial_wh, final_wh FROM {meter_breaks} WHERE meter_id = ANY(%s)",
            meter_ids,
        )
        for meter, register, at_us, kind, initial_wh, final_wh in rows:
            self._states[meter].breaks[register, at_us, kind] = Break(at_us, initial_wh, final_wh)

    async def _fetch(self, text: LiteralString, values: list[Any]) -> list[tuple[Any, ...]]:
        return await (await self._connection.execute(self._sql(text), (values,))).fetchall()

    async def save_states(self, states: Mapping[str, MeterState]) -> None:
        meters = list(states)
        async with self._connection.cursor() as cursor:
            await cursor.executemany(
                self._sql(
                    "INSERT INTO {consumption_meters} VALUES (%s, %s, %s) ON CONFLICT (meter_id) DO UPDATE "
                    "SET rollover_at_wh = excluded.rollover_at_wh, expected_interval_s = excluded.expected_interval_s"
                ),
                [(meter, *states[meter].meter) for meter in meters],
            )
            await cursor.execute(self._sql("DELETE FROM {meter_links} WHERE meter_id = ANY(%s)"), (meters,))
            await cursor.execute(self._sql("DELETE FROM {meter_breaks} WHERE meter_id = ANY(%s)"), (meters,))
            await cursor.executemany(
                self._sql("INSERT INTO {meter_links} VALUES (%s, %s, %s, %s)"),
                [(meter, *link) for meter in meters for link in states[meter].links],
            )
            await cursor.executemany(
                self._sql("INSERT INTO {meter_breaks} VALUES (%s, %s, %s, %s, %s, %s)"),
                [
                    (meter, register, at_us, kind, item.initial_wh, item.final_wh)
                    for meter in meters
                    for (register, at_us, kind), item in states[meter].breaks.items()
                ],
            )
        self._states.update({meter: state.copy() for meter, state in states.items()})

    async def tails(self, series: Sequence[int]) -> Mapping[int, Tail]:
        if len(self._tails) > MOST_REMEMBERED:
            self._tails.clear()
        missing = [one for one in series if one not in self._tails]
        if missing:
            self._tails.update(dict.fromkeys(missing))
            rows = await self._fetch(
                "SELECT series_id, at_us, wh FROM {register_tails} WHERE series_id = ANY(%s)", missing
            )
            self._tails.update({one: Tail(at_us, wh) for one, at_us, wh in rows})
        return {one: tail for one in series if (tail := self._tails[one]) is not None}

    async def save_tails(self, tails: Mapping[int, Tail | None]) -> None:
        gone = [series for series, tail in tails.items() if tail is None]
        kept = [(series, tail) for series, tail in tails.items() if tail is not None]
        if gone:
            await self._connection.execute(self._sql("DELETE FROM {register_tails} WHERE series_id = ANY(%s)"), (gone,))
        if kept:
            await self._connection.execute(
                self._sql(
                    "INSERT INTO {register_tails} (series_id, at_us, wh) "
                    "SELECT * FROM unnest(%s::int[], %s::bigint[], %s::bigint[]) "
                    "ON CONFLICT (series_id) DO UPDATE SET at_us = excluded.at_us, wh = excluded.wh"
                ),
                ([series for series, _ in kept], [tail.at_us for _, tail in kept], [tail.wh for _, tail in kept]),
            )
        self._tails.update(tails)

    async def add(self, parts: Parts, customers: Mapping[tuple[bytes, int], tuple[int, int, int]]) -> None:
        if len(parts.series):
            columns = (Int4s(parts.series), parts.start_us, parts.wh, parts.estimated_wh, parts.readings)
            await self._add("consumption", "series_id", "int", columns)
        changed = [(customer, start, *sums) for (customer, start), sums in sorted(customers.items()) if any(sums)]
        if changed:
            keys = BytesArray.of([row[0] for row in changed])
            start_us, wh, estimated_wh, readings = np.array([row[1:] for row in changed], np.int64).T
            await self._add("customer_consumption", "customer", "bytea", (keys, start_us, wh, estimated_wh, readings))

    async def _add(
        self, table: str, key: str, kind: LiteralString, columns: tuple[Any, Ints, Ints, Ints, Ints]
    ) -> None:
        keys, start_us, wh, estimated_wh, readings = columns
        names = {"table": self._names[table], "key": sql.Identifier(key), "type": sql.SQL(kind)}
        values = {
            "key": keys,
            "start": Instants(start_us),
            "wh": Int8s(wh),
            "estimated": Int8s(estimated_wh),
            "readings": Int8s(readings),
        }
        await self._connection.execute(sql.SQL(_ADD).format(**names), values)
        if min(int(wh.min()), int(estimated_wh.min()), int(readings.min())) < 0:
            await self._connection.execute(sql.SQL(_SWEEP).format(**names), values)
