"""Wrapped data keys in a schema of their own, or in another database by another pool."""

from collections.abc import Collection, Mapping

from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely


class PostgresDataKeys:
    """Fulfils ``smartgrid_adapters.sealing.DataKeys``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def load(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        async def unit(conn: Connection) -> dict[str, bytes | None]:
            cursor = await conn.execute(
                "SELECT subject, wrapped FROM smartgrid_keys.data_keys WHERE subject = ANY(%s)", (list(subjects),)
            )
            return dict(await cursor.fetchall())

        return await run_safely(self._pool, unit)

    async def add(self, wrapped: Mapping[str, bytes]) -> None:
        rows = sorted(wrapped.items())  # in one order everywhere, so that two processes cannot deadlock

        async def unit(conn: Connection) -> None:
            await conn.execute(
                "INSERT INTO smartgrid_keys.data_keys (subject, wrapped) "
                "SELECT * FROM unnest(%s::text[], %s::bytea[]) ON CONFLICT DO NOTHING",
                ([subject for subject, _ in rows], [key for _, key in rows]),
            )

        await run_safely(self._pool, unit)
