"""What consumption trends as of an earlier position read: registers, folded again as they were then."""

from typing import Any, Final

from psycopg import sql

from smartgrid_adapters.postgres.consumption import CUSTOMER, consumption_tables
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_adapters.postgres.series import PostgresSeries
from smartgrid_commands.sealing import Sealer
from smartgrid_projections.queries.fine_trends import Source, fine_rows
from smartgrid_projections.queries.trends import Holding, TrendsSnapshot, TrendsWanted
from smartgrid_projections.read_models.consumption_tables import FIRST_US, FOREVER, MeterState
from smartgrid_projections.read_models.energy import counts
from smartgrid_projections.read_models.meter_states import state_of
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.metering import MeterConfigured, MeterRegistered
from smartgrid_schemas.registry import REGISTRY

_LOG: Final = "telemetry"
_SETTINGS: Final = [*REGISTRY.names_of(MeterRegistered), *REGISTRY.names_of(MeterConfigured)]
# Who was the customer is sealed in the log, so meters are found by the links known now, and then told by their streams.
# These links lack what the projection has not folded yet, and a link that ended at the instant at which it began,
# which held only between two positions of one recorded time.
_METERS = """
    WITH t AS (
        SELECT coalesce((
            SELECT c.position FROM projection_checkpoints c
            WHERE c.name = 'consumption' AND c.version = %(version)s AND c.log = 'telemetry'
        ), 0) AS folded, (
            SELECT max(o.last_position) FROM telemetry_commits o WHERE o.recorded_at = (
                SELECT c.recorded_at FROM telemetry_commits c WHERE c.last_position >= %(position)s
                ORDER BY c.last_position LIMIT 1
            )
        ) AS same_time
    )
    SELECT l.meter_id FROM {meter_links} l WHERE l.customer = %(customer)s
    UNION
    SELECT substr(e.originator_id, 7) FROM t, telemetry_events e
    WHERE e.notification_id > t.folded AND e.notification_id <= %(position)s AND e.topic = ANY(%(settings)s)
    UNION
    SELECT substr(e.originator_id, 7) FROM t, telemetry_events e
    WHERE e.notification_id > %(position)s AND e.notification_id <= t.same_time AND e.topic = ANY(%(settings)s)
"""
_SERIES = "SELECT series_id, subject_id, measurand FROM series WHERE subject = 'meter' AND subject_id = ANY(%s)"


class PostgresPastTrends:
    """
    Consumption as it was at a position, whichever position the tables include.

    Args:
        pool: Connections.
        sealer: Opens customers.
    """

    def __init__(self, pool: Pool, sealer: Sealer) -> None:
        self._pool = pool
        self._sealer = sealer
        self._store = PostgresEventStore(pool, sealer=sealer)

    async def read(self, wanted: TrendsWanted, version: int) -> TrendsSnapshot:
        """
        Return the rows between the bounds *wanted*, as of the position ``wanted.as_of``.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        if wanted.bounds is None:
            raise ValueError("what was then is folded between bounds")
        position, bounds = wanted.as_of or 0, wanted.bounds
        customer_id = wanted.customer_id or wanted.only_customer
        customer = None if customer_id is None else self._sealer.lookup(CUSTOMER, customer_id)
        meters = [wanted.meter_id] if wanted.meter_id is not None else await self._meters(customer, version, position)
        states = {meter: await self._state(meter, position) for meter in sorted(meters)}
        holdings = {meter: _holdings(state, customer) for meter, state in states.items()}

        async def unit(connection: Connection) -> TrendsSnapshot:
            found = await (await connection.execute(_SERIES, ([*states],))).fetchall()
            sources = [
                Source(
                    series=series_id,
                    breaks=states[meter].breaks_of(register),
                    rollover_at_wh=states[meter].meter.rollover_at_wh,
                    holdings=holdings[meter],
                )
                for series_id, meter, register in found
                if counts(register) and holdings[meter]
            ]
            rows = await fine_rows(PostgresSeries(connection), position, sources, bounds)
            return TrendsSnapshot(
                position=position,
                holdings=[holding for own in holdings.values() for holding in own],
                start_us=rows.start_us,
                wh=rows.wh,
                estimated_wh=rows.estimated_wh,
                readings=rows.readings,
            )

        return await run_safely(self._pool, unit)

    async def _meters(self, customer: bytes | None, version: int, position: int) -> list[str]:
        """Return all meters that may have been the customer's."""
        values = {"customer": customer, "version": version, "position": position, "settings": _SETTINGS}
        query = sql.SQL(_METERS).format(**consumption_tables(version))

        async def unit(connection: Connection) -> list[tuple[Any, ...]]:
            return await (await connection.execute(query, values)).fetchall()

        return [meter for (meter,) in await run_safely(self._pool, unit)]

    async def _state(self, meter: str, position: int) -> MeterState:
        history = await self._store.read_stream(_LOG, f"meter:{meter}")
        return await state_of((one for one in history if one.position <= position), self._customer_of)

    async def _customer_of(self, recorded: Recorded[Event]) -> bytes | None:
        clear = await self._sealer.open_packed(self._sealer.pack_sealed(recorded, "customer_id"))
        return None if clear is None else self._sealer.lookup(CUSTOMER, clear)


def _holdings(state: MeterState, customer: bytes | None) -> list[Holding]:
    interval_s = state.meter.expected_interval_s
    if customer is None:
        return [Holding(FIRST_US, FOREVER, interval_s)]
    return [Holding(link.since_us, link.until_us, interval_s) for link in state.links if link.customer == customer]
