"""A log in memory, and events to put in it."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from smartgrid_schemas.envelope import Metadata, Recorded
from smartgrid_schemas.event import Event
from smartgrid_schemas.telemetry import Location, SensorRegistered

START = datetime(2026, 1, 15, tzinfo=UTC)


class FakeLog:
    """An EventLog that tests append to; each append is one commit."""

    def __init__(self) -> None:
        self.events: dict[str, list[Recorded[Event]]] = {"telemetry": [], "identity": [], "operations": []}
        self._grown = asyncio.Condition()

    def put(
        self, event: Event, *, log: str = "telemetry", stream: str = "s:1", recorded_at: datetime | None = None
    ) -> Recorded[Event]:
        events = self.events[log]
        recorded = Recorded(
            log=log,
            position=len(events) + 1,
            stream=stream,
            version=sum(1 for one in events if one.stream == stream) + 1,
            event_id=UUID(int=len(events) + 1),
            recorded_at=recorded_at or START + timedelta(seconds=len(events)),
            metadata=Metadata(),
            event=event,
        )
        events.append(recorded)
        return recorded

    async def announce(self) -> None:
        async with self._grown:
            self._grown.notify_all()

    async def read_log(
        self, log: str, *, after: int = 0, limit: int = 1000, up_to: int | None = None
    ) -> list[Recorded[Event]]:
        return self.events[log][after : after + limit][: None if up_to is None else max(0, up_to - after)]

    async def head(self, log: str) -> int:
        return len(self.events[log])

    async def wait_for(self, log: str, position: int, *, timeout_s: float) -> bool:
        async with self._grown:
            try:
                await asyncio.wait_for(self._grown.wait_for(lambda: len(self.events[log]) >= position), timeout_s)
            except TimeoutError:
                return False
        return True


def some_events(log: FakeLog, number: int) -> Sequence[Recorded[Event]]:
    return [
        log.put(SensorRegistered(sensor_id=f"s{i}", location=Location(lat=41.0, lon=19.0)), stream=f"sensor:s{i}")
        for i in range(number)
    ]
