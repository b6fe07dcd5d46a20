"""What statistics read, from rollups in memory."""

from dataclasses import dataclass

from smartgrid_adapters.memory.rollups import MemoryRollups, rollups_of
from smartgrid_projections.queries.stats import READINGS_LEVEL, Snapshot, Wanted


@dataclass
class MemoryStats:
    """
    The aggregates in memory. As of an earlier position all is read from the register; intervals are those of now.

    Attributes:
        tables: Their rows.
        position: Position that they include.
    """

    tables: MemoryRollups
    position: int = 0

    async def read(self, wanted: Wanted) -> Snapshot:
        series = {
            series_id: name
            for series_id, (subject, name) in self.tables.register.names.items()
            if subject == "sensor"
            and wanted.sensor_id in (None, name.subject_id)
            and wanted.measurand in (None, name.measurand)
            and wanted.phase in (None, name.phase)
        }
        rows = [
            ((series_id, start), bucket)
            for (level, series_id, start), bucket in sorted(self.tables.rows.items())
            if series_id in series
            and bucket.n
            and wanted.as_of is None
            and any(span.level == level and span.start_us <= start < span.end_us for span in wanted.spans)
        ]
        position = self.position if wanted.as_of is None else wanted.as_of
        fine = [span for span in wanted.spans if span.level == READINGS_LEVEL or wanted.as_of is not None]
        return Snapshot(
            position=position,
            series=series,
            intervals={
                name.subject_id: interval
                for name in series.values()
                if (interval := self.tables.intervals.get(name.subject_id)) is not None
            },
            rollups=rollups_of(rows),
            readings=await self.tables.register.stretches(
                [(series_id, span.start_us, span.end_us) for series_id in series for span in fine], position
            ),
        )
