"""Ingestion behind the front, over memory, and readings to send."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smartgrid_adapters.memory.data_keys import MemoryDataKeys
from smartgrid_adapters.memory.event_store import MemoryEventStore
from smartgrid_adapters.memory.readings import MemoryIdempotencyKeys, MemoryReadingStore
from smartgrid_adapters.sealing import KeySealer
from smartgrid_commands.ingestion import Ingestion
from smartgrid_commands.ports import EventStore
from smartgrid_domain.maths.columns import unpack
from smartgrid_domain.maths.quantities import float_of
from smartgrid_http.app import build_app
from smartgrid_http.testing import AsgiClient, FixedClock, Reply, fixed_services
from smartgrid_schemas.metering import MeterReadingsRecorded
from smartgrid_schemas.telemetry import ReadingsRecorded

SENSOR = "/api/v1/ingest/sensor"
METER = "/api/v1/ingest/meter"
BATCH = "/api/v1/ingest/batch"
NDJSON = "application/x-ndjson"
CSV = "text/csv"
COLUMNS = "application/vnd.smartgrid.columns+msgpack"
AT = "2026-01-15T10:30:00Z"
PLACE = {"lat": 41.3275, "lon": 19.8187}


def reading(**changes: object) -> dict[str, Any]:
    """Return a good reading of a sensor with *changes*; None takes a field away."""
    item = {"sensor_id": "s1", "sensor_type": "voltage", "value": 220.5, "location": PLACE, "timestamp": AT}
    return {name: value for name, value in {**item, **changes}.items() if value is not None}


def meter_reading(**changes: object) -> dict[str, Any]:
    """Return a good reading of a meter with *changes*; None takes a field away."""
    item = {"meter_id": "m1", "customer_id": "c1", "reading": 1250.75, "timestamp": AT}
    return {name: value for name, value in {**item, **changes}.items() if value is not None}


@dataclass(kw_only=True)
class World:
    """A client, the clock and the log behind it."""

    client: AsgiClient
    clock: FixedClock
    store: EventStore

    async def send(self, path: str, body: bytes, media_type: str = "application/json", **headers: str) -> Reply:
        """Post *body*."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request("POST", path, body=body, headers={"content-type": media_type, **named})

    async def stored(self) -> list[tuple[str, str, int, float]]:
        """Return (sensor or meter, measurand or register, µs, value as sent) of all readings in the log, in order."""
        found: list[tuple[str, str, int, float]] = []
        for recorded in await self.store.read_log("telemetry", limit=100_000):
            event = recorded.event
            if not isinstance(event, ReadingsRecorded | MeterReadingsRecorded):
                continue
            rows = unpack(event)
            for index, at, mantissa, exponent in zip(
                rows.series_index.tolist(),
                rows.measured_at_us.tolist(),
                rows.mantissa.tolist(),
                rows.exponent.tolist(),
                strict=True,
            ):
                found.append((*_series_of(event, index), at, float_of(mantissa, exponent)))
        return found


def _series_of(event: ReadingsRecorded | MeterReadingsRecorded, index: int) -> tuple[str, str]:
    if isinstance(event, ReadingsRecorded):
        return event.series[index].sensor_id, event.series[index].sensor_type
    return event.series[index].meter_id, event.series[index].register


def memory_world() -> World:
    def fail(_: str, error: BaseException) -> None:
        raise error  # a mistake of ours shows itself, not an answer 500

    clock = FixedClock()
    store = MemoryEventStore(sealer=KeySealer(MemoryDataKeys(), b"m" * 32), now=clock.now)
    keys = MemoryIdempotencyKeys(clock.now)
    services = fixed_services(
        store=store,
        clock=clock,
        ingestion=Ingestion(MemoryReadingStore(store, keys), clock),
        keys=keys,
        log_error=fail,
    )
    return World(client=AsgiClient(build_app(services, handlers=()), token="operator"), clock=clock, store=store)  # noqa: S106


def codes(reply: Reply) -> dict[str, str]:
    """Return pointer to code of the findings in *reply*."""
    return {finding["pointer"]: finding["code"] for finding in reply.json()["errors"]}


def ndjson(*items: Mapping[str, Any]) -> bytes:
    return b"\n".join(json.dumps(item).encode() for item in items)
