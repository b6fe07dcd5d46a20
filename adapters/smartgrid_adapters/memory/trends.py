"""What consumption trends read, from tables in memory."""

from dataclasses import dataclass

import numpy as np

from smartgrid_adapters.memory.consumption import MemoryConsumption
from smartgrid_projections.queries.fine_trends import FineRows, Source, fine_rows, summed
from smartgrid_projections.queries.trends import Holding, TrendsSnapshot, TrendsWanted
from smartgrid_projections.read_models.consumption_tables import FIRST_US, FOREVER, MeterState
from smartgrid_projections.read_models.energy import counts


@dataclass
class MemoryTrends:
    """
    Consumption in memory. As of an earlier position, links, exchanges and settings are those of now.

    Attributes:
        tables: Its rows.
        position: Position that they include.
    """

    tables: MemoryConsumption
    position: int = 0

    async def read(self, wanted: TrendsWanted) -> TrendsSnapshot:
        position = self.position if wanted.as_of is None else wanted.as_of
        customer = wanted.customer_id or wanted.only_customer
        holdings: dict[str, list[Holding]] = {}
        for meter, state in self.tables.meters.items():
            for link in state.links:
                if customer and link.customer == customer.encode() and wanted.meter_id in (None, meter):
                    interval = state.meter.expected_interval_s
                    holdings.setdefault(meter, []).append(Holding(link.since_us, link.until_us, interval))
        meters = [*holdings] if wanted.meter_id is None else [wanted.meter_id]
        series = {
            one: name
            for one, (kind, name) in self.tables.register.names.items()
            if kind == "meter" and name.subject_id in meters and counts(name.measurand)
        }
        if customer is None:
            for name in series.values():
                interval = self._state(name.subject_id).meter.expected_interval_s
                holdings[name.subject_id] = [Holding(FIRST_US, FOREVER, interval)]
        if wanted.bounds is not None:
            sources = [
                Source(
                    series=one,
                    breaks=self._state(name.subject_id).breaks_of(name.measurand),
                    rollover_at_wh=self._state(name.subject_id).meter.rollover_at_wh,
                    holdings=holdings.get(name.subject_id, []),
                )
                for one, name in series.items()
            ]
            rows = await fine_rows(self.tables.register, position, sources, wanted.bounds)
        else:
            rows = self._stored(wanted, holdings, [*series])
        return TrendsSnapshot(
            position=position,
            holdings=[holding for own in holdings.values() for holding in own],
            start_us=rows.start_us,
            wh=rows.wh,
            estimated_wh=rows.estimated_wh,
            readings=rows.readings,
        )

    def _state(self, meter: str) -> MeterState:
        return self.tables.meters.get(meter, MeterState())

    def _stored(self, wanted: TrendsWanted, holdings: dict[str, list[Holding]], series: list[int]) -> FineRows:
        if wanted.customer_id is not None:
            named = wanted.customer_id.encode()
            rows = [(at, n) for (one, at), n in self.tables.customers.items() if one == named]
        else:
            own = holdings.get(wanted.meter_id or "", [])
            rows = [
                (at, numbers)
                for (one, at), numbers in self.tables.rows.items()
                if one in series and any(since <= at < until for since, until, _ in own)
            ]
        inside = [(at, n) for at, n in rows if any(start <= at < end for start, end in wanted.ranges)]
        columns = np.array([(at, *numbers) for at, numbers in inside], np.int64).reshape(-1, 4)
        return summed(
            FineRows(start_us=columns[:, 0], wh=columns[:, 1], estimated_wh=columns[:, 2], readings=columns[:, 3])
        )
