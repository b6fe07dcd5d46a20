import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest

from smartgrid_adapters.memory.data_keys import MemoryDataKeys
from smartgrid_adapters.memory.event_store import MemoryEventStore
from smartgrid_adapters.sealing import KeySealer
from smartgrid_commands.metering import configure_meter
from smartgrid_commands.pipeline import Outcome, execute
from smartgrid_commands.ports import Appended, Effect, StreamWrite
from smartgrid_commands.sensing import configure_sensor
from smartgrid_domain.deciders.meter import METER, ConfigureMeter, Meter, MeterEvent
from smartgrid_domain.deciders.sensor import SENSOR, ConfigureSensor, Sensor, SensorEvent
from smartgrid_domain.errors import Conflict, Invalid, NotFound
from smartgrid_schemas.envelope import Metadata
from smartgrid_schemas.metering import MeterRegistered
from smartgrid_schemas.telemetry import Location, SensorConfigured, SensorRegistered

SEEN = SensorRegistered(sensor_id="s1", location=Location(lat=41.0, lon=19.0))
WISH = ConfigureSensor(sensor_id="s1", nominal=230.0)
ANNA = Metadata(actor="user:anna", correlation_id="r1")


class Busy(MemoryEventStore):
    """Somebody else is faster *times* times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.attempts = 0

    async def append(
        self,
        log: str,
        writes: Sequence[StreamWrite],
        *,
        commit_id: UUID | None = None,
        effects: Sequence[Effect] = (),
    ) -> Appended:
        if writes[0].events[0] != SEEN:
            self.attempts += 1
            if self.attempts <= self.times:
                other = SensorConfigured(sensor_id="s1", nominal=float(self.attempts))
                version = writes[0].expected_version
                rival = StreamWrite(stream="sensor:s1", events=[other], expected_version=version)
                await super().append(log, [rival])
        return await super().append(log, writes, commit_id=commit_id, effects=effects)


async def seen(store: MemoryEventStore) -> None:
    await store.append("telemetry", [StreamWrite(stream="sensor:s1", events=[SEEN], expected_version=0)])


async def configured(
    store: MemoryEventStore, command: ConfigureSensor = WISH, versions: frozenset[int] | None = None
) -> Outcome[SensorEvent, Sensor]:
    return await configure_sensor(command, store, metadata=ANNA, commit_id=uuid4(), expected_versions=versions)


async def test_a_command_becomes_an_event_with_its_cause() -> None:
    store = MemoryEventStore()
    await seen(store)

    outcome = await configured(store)

    (_, recorded) = await store.read_stream("telemetry", "sensor:s1")
    assert (recorded.version, recorded.metadata) == (2, ANNA)
    assert outcome.events == (recorded.event,)
    assert outcome.appended is not None
    assert outcome.appended.first_position == recorded.position
    assert outcome.state.settings == recorded.event
    assert outcome.version == 2


async def test_a_command_that_changes_nothing_appends_nothing() -> None:
    store = MemoryEventStore()
    await seen(store)
    await configured(store)

    outcome = await configured(store)

    assert (outcome.appended, outcome.events, outcome.version) == (None, (), 2)
    assert await store.head("telemetry") == 2


async def test_a_lost_race_is_decided_anew_three_times() -> None:
    store = Busy(3)
    await seen(store)

    outcome = await configured(store)

    assert (outcome.version, store.attempts) == (5, 4)
    assert outcome.state.settings == SensorConfigured(sensor_id="s1", nominal=230.0)


async def test_after_that_it_is_a_conflict() -> None:
    store = Busy(4)
    await seen(store)

    with pytest.raises(Conflict) as refused:
        await configured(store)

    assert (refused.value.code, store.attempts) == ("version_conflict", 4)


async def test_who_names_the_version_does_not_race() -> None:
    store = Busy(1)
    await seen(store)

    with pytest.raises(Conflict) as refused:
        await configured(store, versions=frozenset({1}))

    assert (refused.value.code, store.attempts) == ("etag_mismatch", 1)


async def test_what_does_not_exist_or_cannot_be_is_told_before_the_version() -> None:
    store = MemoryEventStore()

    with pytest.raises(NotFound):
        await configured(store, versions=frozenset({7}))
    await seen(store)
    with pytest.raises(Invalid):
        await configured(store, ConfigureSensor(sensor_id="s1", nominal=-1.0), frozenset({7}))


async def test_a_commit_id_is_carried_out_once() -> None:
    store = MemoryEventStore()
    await seen(store)
    commit_id = uuid4()

    first = await execute(store, SENSOR, "s1", WISH, metadata=ANNA, commit_id=commit_id)
    other = ConfigureSensor(sensor_id="s1", nominal=400.0)
    again = await execute(store, SENSOR, "s1", other, metadata=ANNA, commit_id=commit_id)

    assert first.appended == again.appended
    assert await store.head("telemetry") == 2


async def test_many_at_once_are_all_there_in_the_end() -> None:
    store = MemoryEventStore()
    await seen(store)

    results = await asyncio.gather(
        *(configured(store, ConfigureSensor(sensor_id="s1", nominal=float(n))) for n in range(1, 20)),
        return_exceptions=True,
    )

    done = [result for result in results if isinstance(result, Outcome)]
    assert all(isinstance(r, Outcome) or (isinstance(r, Conflict) and r.code == "version_conflict") for r in results)
    assert await store.head("telemetry") == 1 + len(done)


async def test_a_decision_sees_personal_fields_in_clear_and_the_log_does_not() -> None:
    sealer = KeySealer(MemoryDataKeys(), b"m" * 32)
    store = MemoryEventStore(sealer=sealer)
    first = MeterRegistered(meter_id="m1", customer_id="c1")
    await store.append("telemetry", [StreamWrite(stream="meter:m1", events=[first], expected_version=0)])

    async def configure(command: ConfigureMeter) -> Outcome[MeterEvent, Meter]:
        return await configure_meter(command, store, sealer=sealer, metadata=ANNA, commit_id=uuid4())

    same = await configure(ConfigureMeter(meter_id="m1", customer_id="c1"))
    changed = await configure(ConfigureMeter(meter_id="m1", name="Flat 3"))

    assert same.events == ()
    assert changed.state.settings is not None
    assert (changed.state.settings.customer_id, changed.state.settings.name) == ("c1", "Flat 3")
    assert b"Flat 3" not in repr(await store.read_stream("telemetry", "meter:m1")).encode()
    assert METER.log == "telemetry"


async def test_a_destroyed_key_leaves_nobody() -> None:
    keys = MemoryDataKeys()
    sealer = KeySealer(keys, b"m" * 32)
    store = MemoryEventStore(sealer=sealer)
    first = MeterRegistered(meter_id="m1", customer_id="c1")
    await store.append("telemetry", [StreamWrite(stream="meter:m1", events=[first], expected_version=0)])
    keys.destroy("meter:m1")
    sealer.forget("meter:m1")

    command = ConfigureMeter(meter_id="m1", rollover_at_wh=1000)
    outcome = await configure_meter(command, store, sealer=sealer, metadata=ANNA, commit_id=uuid4())

    assert outcome.state.settings is not None
    assert outcome.state.settings.customer_id is None
