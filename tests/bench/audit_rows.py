"""How long it takes to prove a log of a million events."""

import time
from statistics import median

import psycopg
from tests.bench.database import Server, fresh_database
from tests.bench.harness import Figure

from smartgrid_adapters.postgres.audit import PostgresChains
from smartgrid_adapters.postgres.pool import open_pool

EVENTS = 1_000_000
PER_COMMIT = 10
_FILL = """
DO $$ BEGIN FOR i IN 1..100000 LOOP
    PERFORM identity_append(
        gen_random_uuid(), array_fill('user:' || (i % 1000), ARRAY[10]), array_fill(-1::bigint, ARRAY[10]),
        array_fill('identity.user-changed.v1'::text, ARRAY[10]),
        array_fill(decode(repeat(md5(i::text), 6), 'hex'), ARRAY[10]), array_fill('x'::bytea, ARRAY[10]));
    IF i % 1000 = 0 THEN COMMIT; END IF;
END LOOP; END $$
"""


async def audit(server: Server) -> list[Figure]:
    """Recompute the chain of a log of a million small events, ten a commit, and what else an audit looks at."""
    async with fresh_database(server) as url:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
            await conn.execute(_FILL)
            await conn.execute("VACUUM ANALYZE identity_events, identity_commits")
        pool = await open_pool(url)
        took: list[float] = []
        try:
            for _ in range(server.rounds):
                start = time.perf_counter()
                found = await PostgresChains(pool).verify()
                took.append(time.perf_counter() - start)
                if not found.ok or found.logs["identity"].events != EVENTS:
                    raise RuntimeError(f"not the log that was made: {found}")
        finally:
            await pool.close()
    return [
        Figure(
            number="audit",
            what="audit of a log of 1,000,000 events",
            value=round(median(took), 2),
            unit="s",
            better="less",
            floor=10,
            goal=5,
            rounds=[[round(one, 2)] for one in took],
            note=f"{PER_COMMIT} events a commit",
        )
    ]
