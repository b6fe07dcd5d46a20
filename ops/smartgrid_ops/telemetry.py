"""What ``/metrics`` shows beside the requests. Numbers are kept as they happen and turned into text when asked for."""

import asyncio
import contextlib
from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterable, Sequence
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from smartgrid_commands.ports import Clock, StoreUnavailable
from smartgrid_projections.ports import EventLog, Standings, Unavailable
from smartgrid_projections.queries.standing import Progress, progress_of_all
from smartgrid_schemas.envelope import LOGS

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
REFRESH_S = 1.0
VERDICTS = ("accepted", "duplicate", "rejected")


class Build:
    """Which version runs."""

    def collect(self) -> Iterable[Metric]:
        """Return the present values."""
        family = GaugeMetricFamily("smartgrid_build_info", "Version of the program", labels=("version",))
        family.add_metric((version("smartgrid"),), 1)
        yield family


class Appends:
    """How long this process takes to append."""

    def __init__(self) -> None:
        self._buckets: dict[str, list[int]] = {log: [0] * (len(BOUNDS_S) + 1) for log in LOGS}
        self._seconds: dict[str, float] = {log: 0.0 for log in LOGS}  # noqa: C420 - fromkeys would narrow the keys

    def add(self, log: str, seconds: float) -> None:
        """Count one transaction that was committed to *log*."""
        self._buckets[log][bisect_left(BOUNDS_S, seconds)] += 1
        self._seconds[log] += seconds

    def collect(self) -> Iterable[Metric]:
        """Return the present values."""
        family = HistogramMetricFamily(
            "smartgrid_append_duration_seconds", "Time of a transaction that appends", labels=("log",)
        )
        for log, buckets in self._buckets.items():
            total, told = 0, list[tuple[str, float]]()
            for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), buckets, strict=True):
                total += count
                told.append((bound, total))
            family.add_metric((log,), told, self._seconds[log])
        yield family


class Verdicts:
    """What became of the readings that came in."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(VERDICTS, 0)

    def add(self, verdict: str, number: int) -> None:
        """Count *number* readings with *verdict*; whatever is neither stored nor known counts as rejected."""
        self._counts[verdict if verdict in self._counts else "rejected"] += number

    def collect(self) -> Iterable[Metric]:
        """Return the present values."""
        family = CounterMetricFamily("smartgrid_readings", "Readings by what became of them", labels=("verdict",))
        for verdict, count in self._counts.items():
            family.add_metric((verdict,), count)
        yield family


class Heads:
    """How far the logs and the projections are, at most a second ago."""

    def __init__(self, standings: Standings, log: EventLog, clock: Clock) -> None:
        self._standings, self._log, self._clock = standings, log, clock
        self._heads: dict[str, int] = {}
        self._progress: Sequence[Progress] = ()

    async def refresh(self) -> None:
        """Look again; what was known stays while the store does not answer."""
        with contextlib.suppress(Unavailable, StoreUnavailable):
            self._heads = {log: await self._log.head(log) for log in LOGS}
            self._progress = await progress_of_all(self._standings, self._log, self._clock.now())

    @contextlib.asynccontextmanager
    async def refreshed(self) -> AsyncGenerator[None, None]:
        """Look again each second."""

        async def run() -> None:
            while True:
                await self.refresh()
                await asyncio.sleep(REFRESH_S)

        task = asyncio.ensure_future(run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def collect(self) -> Iterable[Metric]:
        """Return the values of the last look."""
        heads = GaugeMetricFamily("smartgrid_log_head_position", "Newest position", labels=("log",))
        appended = CounterMetricFamily("smartgrid_events_appended", "Events in the log", labels=("log",))
        for log, head in self._heads.items():
            heads.add_metric((log,), head)
            appended.add_metric((log,), head)  # positions have no gaps
        yield heads
        yield appended
        at = GaugeMetricFamily("smartgrid_projection_position", "Last position folded", labels=("projection", "log"))
        lag = GaugeMetricFamily("smartgrid_projection_lag_events", "Events not folded yet", labels=("projection",))
        lag_s = GaugeMetricFamily(
            "smartgrid_projection_lag_seconds", "Age of the oldest of them", labels=("projection",)
        )
        parked = GaugeMetricFamily("smartgrid_projection_parked_keys", "Keys set aside", labels=("projection",))
        for one in self._progress:
            for log, position in one.position.items():
                at.add_metric((one.name, log), position)
            lag.add_metric((one.name,), one.lag_events)
            lag_s.add_metric((one.name,), one.lag_s)
            parked.add_metric((one.name,), one.parked_keys)
        yield from (at, lag, lag_s, parked)
