"""Whole registers of meters, read at once."""

from datetime import datetime

import numpy as np

from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_projections.queries.meter_readings import Counting

# The server packs the rows into one value in PostgreSQL's binary forms, which numpy reads as they are.
COUNTING = """
SELECT string_agg(
    timestamptz_send(c.measured_at) || int8send(c.seq) || int8send(c.mantissa) || int8send(c.arrival)
        || int2send(c.exponent) || int2send(c.quality),
    ''::bytea ORDER BY c.measured_at, c.seq
)
FROM (
    SELECT r.measured_at, r.seq, r.mantissa, r.exponent, r.quality, r.event_id,
           first_value(r.position) OVER same_key AS arrival,
           lead(r.event_id) OVER same_key IS NOT NULL AS superseded
    FROM series s JOIN reading_register r USING (series_id)
    WHERE s.subject = 'meter' AND s.subject_id = %(meter_id)s AND s.measurand = %(register)s
        AND r.position <= %(up_to)s AND (%(start)s::timestamptz IS NULL OR r.measured_at >= %(start)s)
    WINDOW same_key AS (PARTITION BY r.measured_at, r.seq ORDER BY r.measured_at, r.seq, r.revision)
) c
WHERE NOT c.superseded AND NOT EXISTS (
    SELECT FROM reading_retractions t WHERE t.event_id = c.event_id AND t.position <= %(up_to)s
)
"""
PACKED = np.dtype(
    [("at", ">i8"), ("seq", ">i8"), ("mantissa", ">i8"), ("arrival", ">i8"), ("exponent", ">i2"), ("quality", ">i2")]
)
EPOCH_2000_US = 946_684_800_000_000


class PostgresRegisters:
    """The registers of meters, in PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def counting(self, meter_id: str, register: str, *, start: datetime | None, up_to: int) -> Counting:
        values = {"meter_id": meter_id, "register": register, "start": start, "up_to": up_to}

        async def read(conn: Connection) -> bytes:
            cursor = await conn.execute(COUNTING, values, binary=True)
            row = await cursor.fetchone()
            return b"" if row is None or row[0] is None else bytes(row[0])

        rows = np.frombuffer(await run_safely(self._pool, read), PACKED)
        return Counting(
            at_us=rows["at"].astype(np.int64) + EPOCH_2000_US,
            seq=rows["seq"].astype(np.int64),
            mantissa=rows["mantissa"].astype(np.int64),
            exponent=rows["exponent"].astype(np.int16),
            quality=rows["quality"].astype(np.int8),
            arrival=rows["arrival"].astype(np.int64),
        )
