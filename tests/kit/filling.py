"""A small log with everything that folds have to bear: late, corrected, retracted, exchanged, other settings."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

import numpy as np
from tests.kit.history import Answer, Fact, History, fact_of

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.facts import PostgresFacts
from smartgrid_adapters.postgres.flush import PostgresReadingStore
from smartgrid_adapters.postgres.pool import Pool
from smartgrid_adapters.sealing import KeySealer
from smartgrid_commands.ingestion import Ingestion, Outcome, Prepared, Sender
from smartgrid_commands.metering import decide_on_meter
from smartgrid_commands.ports import StreamWrite
from smartgrid_commands.reading_calls import PENDING
from smartgrid_commands.reading_items import rows_of_items
from smartgrid_commands.retracting import retract
from smartgrid_commands.sensing import configure_sensor
from smartgrid_domain.deciders.meter import ExchangeMeter
from smartgrid_domain.deciders.sensor import ConfigureSensor
from smartgrid_domain.readings import MeterReading, Place, SensorReading
from smartgrid_http.testing import FixedClock
from smartgrid_schemas.envelope import Metadata
from smartgrid_schemas.identity import PasswordChanged, UserChanged, UserRegistered

BEGIN = datetime(2026, 1, 15, tzinfo=UTC)
SENDER = Sender(actor="user:test", correlation_id="filling", operator=True)
PLACE = Place(41.3, 19.8)
_IDS = UUID("6f1c8a52-0c3a-4b53-8f0e-2a4f0c1d9e77")
_MOST_US = 2**62


def at(minutes: float) -> datetime:
    """Return the time *minutes* after the beginning."""
    return BEGIN + timedelta(minutes=minutes)


def voltage(sensor: str, minutes: float, value: float, **more: str) -> SensorReading:
    """Return a reading of a sensor."""
    made = SensorReading(
        sensor_id=sensor, sensor_type="voltage", value=value, timestamp=at(minutes).isoformat(), location=PLACE
    )
    for name, text in more.items():
        setattr(made, name, text)
    return made


def standing(meter: str, minutes: float, reading: float) -> MeterReading:
    """Return a reading of a meter [kWh]."""
    return MeterReading(meter_id=meter, reading=reading, timestamp=at(minutes).isoformat(), customer_id="c1")


def prepared(items: Sequence[SensorReading] | Sequence[MeterReading]) -> Prepared:
    """Return *items* on their way; all are good."""
    rows, bad = rows_of_items(items, np.arange(len(items)), 0, _MOST_US)
    assert not bad
    return Prepared(items=len(items), parts=[rows])


def states_of(outcome: Outcome) -> tuple[str, ...]:
    """Return what became of each item."""
    errors = {error.index: error.code for error in outcome.errors}
    names = ("pending", "accepted", "duplicate")
    told = outcome.states or bytes([PENDING] * outcome.items)
    return tuple(errors.get(index) or names[state] for index, state in enumerate(told))


def answer_of(outcome: Outcome) -> Answer:
    """Return what the client is told."""
    first, last = outcome.positions or (0, 0)
    return Answer(states=states_of(outcome), first=first, last=last)


async def fill(pool: Pool, store: PostgresEventStore, sealer: KeySealer) -> History:
    """Record about twenty events of the telemetry log and six of the identity log."""
    history = History()
    readings = PostgresReadingStore(pool, store, sealer=sealer)
    ingestion = Ingestion(readings, FixedClock(at(100_000)))
    ids: dict[tuple[str | int, ...], bytes] = {}

    async def record(*items: SensorReading | MeterReading) -> None:
        sensors = [item for item in items if isinstance(item, SensorReading)]
        meters = [item for item in items if isinstance(item, MeterReading)]
        kind = sensors or meters
        request = history.send([fact_of(item) for item in kind])
        outcome = await ingestion.record_many(prepared(sensors or meters), SENDER, atomic=False, verdicts=True)
        request.answers.append(answer_of(outcome))
        for number, fact in enumerate(request.facts):
            ids[fact.key] = outcome.event_ids[number * 16 : number * 16 + 16]

    async def take_back(item: SensorReading) -> None:
        event_id = UUID(bytes=ids[fact_of(item).key])
        request = history.send([Fact(("retraction", str(event_id)))])
        done = await retract(
            event_id, "was off", store, PostgresFacts(pool), metadata=Metadata(), commit_id=uuid5(_IDS, f"r{event_id}")
        )
        request.answers.append(Answer(states=("accepted",), first=done.position, last=done.position))

    async def configure(name: str, interval_s: float) -> None:
        request = history.send([Fact(("name", "s1", name))])
        done = await configure_sensor(
            ConfigureSensor(sensor_id="s1", name=name, expected_interval_s=interval_s),
            store,
            metadata=Metadata(),
            commit_id=uuid5(_IDS, name),
        )
        assert done.appended is not None
        request.answers.append(Answer(states=("accepted",), first=done.appended.first_position))

    await record(*(voltage("s1", 5 * n, 229.5 + n) for n in range(8)))
    await record(*(standing("m1", 60 * n, 100.0 + 1.5 * n) for n in range(4)))
    await configure("Feeder 7", 300.0)
    await record(voltage("s2", 3, 231.0), voltage("s1", 41, 240.25))
    await record(voltage("s1", 5, 230.0, corrects=_text(ids, voltage("s1", 5, 0)), reason="calibrated"))
    await take_back(voltage("s1", 10, 0))
    await record(standing("m1", 300, 111.0), standing("m1", 240, 108.0))
    await decide_on_meter(
        ExchangeMeter(
            meter_id="m1", register="1.8.0", at=at(270), old_final_wh=109_500, new_initial_wh=500, reason="worn"
        ),
        store,
        metadata=Metadata(),
        commit_id=uuid5(_IDS, "exchange"),
    )
    await record(voltage("s1", 1, 190.0), voltage("s2", 1500, 228.0))
    await record(standing("m1", 330, 4.0), standing("m2", 30, 7.5), standing("m2", 90, 9.25))
    await record(voltage("s1", 10, 235.0, corrects=_text(ids, voltage("s1", 10, 0)), reason="was not off"))
    await configure("Feeder 8", 600.0)
    await take_back(voltage("s2", 3, 0))
    await record(standing("m2", 60, 1.0))
    await _accounts(store)
    await readings.stop()
    return history


def _text(ids: dict[tuple[str | int, ...], bytes], item: SensorReading) -> str:
    return str(UUID(bytes=ids[fact_of(item).key]))


async def _accounts(store: PostgresEventStore) -> None:
    for user in ("u1", "u2"):
        events = [
            UserRegistered(
                user_id=user, username=user, email=f"{user}@example.com", role="viewer", customer_id="c1", via="self"
            ),
            PasswordChanged(user_id=user),
            UserChanged(user_id=user, email=f"{user}@example.org", role="operator", is_active=True),
        ]
        for version, event in enumerate(events):
            await store.append(
                "identity", [StreamWrite(stream=f"user:{user}", events=[event], expected_version=version)]
            )
