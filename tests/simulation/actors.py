"""Who acts in the simulation: clients, the processes that answer them, and workers that are started again."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

from msgspec import Struct
from tests.kit.filling import PLACE, SENDER, answer_of, prepared
from tests.kit.history import STORED, Answer, Fact, Request, fact_of
from tests.simulation.faults import Died, Port, Process
from tests.simulation.world import BEGIN, LOG, World

from smartgrid_commands.idempotency import IdempotencyKeys, Kept, request_hash
from smartgrid_commands.ingestion import Ingestion, Outcome, decode_outcome
from smartgrid_commands.ports import ANY_VERSION, EventStore, OutcomeUnknown, StoreUnavailable, StreamWrite
from smartgrid_commands.reading_calls import Lease
from smartgrid_commands.retracting import Facts, retract
from smartgrid_commands.sensing import configure_sensor
from smartgrid_domain.deciders.sensor import ConfigureSensor
from smartgrid_domain.errors import Rejected
from smartgrid_domain.readings import MeterReading, SensorReading
from smartgrid_http.idempotency import held
from smartgrid_http.problems import Problem
from smartgrid_projections.ports import Unavailable
from smartgrid_projections.runtime.runner import Stopped
from smartgrid_schemas.envelope import Metadata
from smartgrid_schemas.telemetry import SensorConfigured

COMMITS = UUID("b5a3d5a8-2d8f-4a53-9d5a-1c0f2d6c7e11")
PATIENCE_S = 5.0
SENSORS = ("s1", "s2")
METERS = ("m1",)


class Wish(Struct, frozen=True, kw_only=True):
    """
    A command as a client means it.

    Attributes:
        request: What the history knows of it.
        items: Readings to record; none for the others.
        retracts: Id of a reading to take back.
        renames: A sensor to rename.
        name: Its name.
        appends: Whether the name is appended to a stream of its own, whatever it says by then.
    """

    request: Request
    items: Sequence[SensorReading] | Sequence[MeterReading] = ()
    retracts: UUID | None = None
    renames: str = ""
    name: str = ""
    appends: bool = False


class Server:
    """A process that answers; the shipped services over ports that fail."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.process = Process(name, world.chance, world.look)
        parts = world.parts
        self._store: EventStore = self._port(world.store, "store")
        self._keys: IdempotencyKeys = self._port(world.keys, "keys")
        self._facts: Facts = self._port(world, "facts")
        recording = parts.recording(world, self.process)
        self._ingestion = Ingestion(self._port(recording, "readings"), _Clock(world))

    def _port(self, target: object, name: str) -> Any:
        return Port(target, self.process, name, StoreUnavailable, OutcomeUnknown)

    async def answer(self, wish: Wish) -> Answer:
        """Carry out *wish* as the HTTP handlers do."""
        number = wish.request.number
        commit_id = uuid5(COMMITS, f"{number}")
        if wish.retracts is not None:
            done = await retract(
                wish.retracts, "why", self._store, self._facts, metadata=Metadata(), commit_id=commit_id
            )
            return Answer(states=("duplicate" if done.duplicate else "accepted",), first=done.position)
        if wish.appends:
            event = SensorConfigured(sensor_id=wish.renames, name=wish.name)
            write = StreamWrite(stream=f"sensor:{wish.renames}", events=[event], expected_version=ANY_VERSION)
            appended = await self._store.append(LOG, [write], commit_id=commit_id)
            return Answer(states=("accepted",), first=appended.first_position)
        if wish.renames:
            interval_s = float(60 + number)
            command = ConfigureSensor(sensor_id=wish.renames, name=wish.name, expected_interval_s=interval_s)
            outcome = await configure_sensor(command, self._store, metadata=Metadata(), commit_id=commit_id)
            return Answer(
                states=("accepted",), first=0 if outcome.appended is None else outcome.appended.first_position
            )
        return answer_of(await self._record(wish))

    async def _record(self, wish: Wish) -> Outcome:
        if wish.request.key is None:
            return await self._recorded(wish, None)
        request = request_hash("POST", "/ingest", repr(wish.items).encode())
        claim = await self._keys.claim("user:test", wish.request.key, request)
        if isinstance(claim, Kept):
            return decode_outcome(claim.answer, claim.first_position)
        async with held(self._keys, claim):
            return await self._recorded(wish, claim)

    async def _recorded(self, wish: Wish, lease: Lease | None) -> Outcome:
        return await self._ingestion.record_many(
            prepared(wish.items), SENDER, atomic=wish.request.atomic, verdicts=True, lease=lease
        )


class _Clock:
    def __init__(self, world: World) -> None:
        self.now = world.now
        self.monotonic = world.monotonic


class Client:
    """Sends commands one after the other, each until it is answered."""

    def __init__(self, world: World, servers: list[Server], number: int) -> None:
        self._world = world
        self._servers = servers
        self._number = number
        self._draw = world.chance.draw
        self._minutes = 7.0 * number
        self._levels = dict.fromkeys(METERS, 100.0)

    async def run(self, commands: int) -> None:
        """Send so many commands."""
        for turn in range(commands):
            await asyncio.sleep(self._draw.random() * 0.3)
            wish = self._wish(turn)
            while not await self._send(wish):
                await asyncio.sleep(0.2 + self._draw.random())

    async def _send(self, wish: Wish) -> bool:
        """Send *wish* once; return whether an answer came that ends it."""
        chance = self._world.chance
        chance.note(f"client {self._number}", "sends", wish.request.number)
        if chance.happens("repeat"):
            self._task(wish, self._draw.choice((0.0, 0.02, 5.0, 50.0)))
        if chance.happens("drop"):
            await asyncio.sleep(1.0)
            return False
        try:
            await asyncio.wait_for(asyncio.shield(self._task(wish, 0.0)), PATIENCE_S)
        except (StoreUnavailable, OutcomeUnknown, TimeoutError, Problem, Died):
            return False
        except Rejected as rejected:
            return rejected.code not in {"idempotency_in_progress", "version_conflict"}
        return not chance.happens("drop")

    def _task(self, wish: Wish, delay_s: float) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._deliver(wish, delay_s))
        task.add_done_callback(_forget)
        self._world.ghosts.append(task)
        return task

    async def _deliver(self, wish: Wish, delay_s: float) -> None:
        """Bring *wish* to a server; an answer counts from when it goes out, whoever still waits for it."""
        await asyncio.sleep(delay_s)
        chance = self._world.chance
        await chance.wait()
        answer = await self._draw.choice(self._servers).answer(wish)
        chance.note(f"client {self._number}", "is told", wish.request.number, answer.states, answer.first, answer.last)
        wish.request.answers.append(answer)

    def _wish(self, turn: int) -> Wish:
        kind = self._draw.random()
        told = [
            (fact, request)
            for request in self._world.history.requests
            for answer in request.answers[:1]
            for fact, state in zip(request.facts, answer.states, strict=True)
            if state in STORED and fact.key[0] == "sensor"
        ]
        if kind < 0.1 and told:
            event_id = self._id_of(self._draw.choice(told)[0])
            if event_id is not None:
                return Wish(request=self._world.history.send([Fact(("retraction", str(event_id)))]), retracts=event_id)
        if kind < 0.17:
            name = f"note {self._number}.{turn}"
            request = self._world.history.send([Fact(("name", "raw", name))])
            return Wish(request=request, renames="raw", name=name, appends=True)
        if kind < 0.27 and told:
            sensor = str(told[0][0].key[1])
            name = f"name {self._number}.{turn}"
            return Wish(request=self._world.history.send([Fact(("name", sensor, name))]), renames=sensor, name=name)
        if kind < 0.4 and told:
            item = self._correction(self._draw.choice(told)[0])
            if item is not None:
                return self._readings([item])
        if kind < 0.55:
            return self._readings(self._of_a_meter())
        return self._readings([self._voltage() for _ in range(self._draw.choice((1, 1, 2, 4)))])

    def _readings(self, items: list[SensorReading] | list[MeterReading]) -> Wish:
        keyed = self._draw.random() < 0.4
        number = len(self._world.history.requests)
        request = self._world.history.send(
            [fact_of(item) for item in items],
            atomic=self._draw.random() < 0.4,
            key=f"key {number}" if keyed else None,
        )
        return Wish(request=request, items=items)

    def _voltage(self) -> SensorReading:
        """Draw a reading; now and then of a time that was used before, or long ago."""
        self._minutes += self._draw.choice((1.0, 5.0, 5.0, -20.0))
        minutes = self._minutes if self._draw.random() < 0.8 else float(self._draw.randrange(4))
        value = self._draw.choice((229.5, 230.0, 230.25, 231.125))
        return SensorReading(
            sensor_id=self._draw.choice(SENSORS),
            sensor_type="voltage",
            value=value,
            location=PLACE,
            timestamp=(BEGIN - timedelta(days=1) + timedelta(minutes=minutes)).isoformat(),
        )

    def _of_a_meter(self) -> list[MeterReading]:
        meter = self._draw.choice(METERS)
        items: list[MeterReading] = []
        for _ in range(self._draw.choice((1, 2))):
            self._minutes += self._draw.choice((15.0, 60.0, -90.0))
            self._levels[meter] += self._draw.choice((0.0, 1.25, 3.5, -40.0))
            at = BEGIN - timedelta(days=1) + timedelta(minutes=self._minutes, seconds=self._number)
            reading = max(0.0, self._levels[meter])
            items.append(MeterReading(meter_id=meter, reading=reading, timestamp=at.isoformat(), customer_id="c1"))
        return items

    def _id_of(self, fact: Fact) -> UUID | None:
        """Return the id of the newest reading of a key, as a client reads it before it takes it back."""
        for key, revisions in self._world.register.revisions.items():
            name = self._world.register.names[key.series_id][1]
            if (*name, key.measured_at_us, key.seq) == fact.key[1:]:
                return revisions[-1].event_id if revisions else None
        return None

    def _correction(self, fact: Fact) -> SensorReading | None:
        event_id = self._id_of(fact)
        if event_id is None:
            return None
        at = BEGIN.fromtimestamp(int(fact.key[4]) / 1e6, BEGIN.tzinfo)
        return SensorReading(
            sensor_id=str(fact.key[1]),
            sensor_type="voltage",
            value=self._draw.choice((225.0, 226.5, 240.75)),
            location=PLACE,
            timestamp=at.isoformat(),
            corrects=str(event_id),
            reason="why",
        )


def _forget(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        task.exception()  # nobody waits for it any more


class Worker:
    """A process that folds one projection, started again when it died."""

    def __init__(self, world: World, name: str, number: int) -> None:
        self._world = world
        self._name = name
        self._number = number

    async def run(self, stop: asyncio.Event) -> None:
        """Fold until *stop* is set."""
        starts = 0
        while not stop.is_set():
            starts += 1
            process = Process(f"{self._name} {self._number}.{starts}", self._world.chance, self._world.look)
            try:
                await self._live(process, stop)
            except Died:
                await asyncio.sleep(self._world.chance.draw.random())
            except Stopped:  # it does not converge, which the end shows
                await stop.wait()

    async def _live(self, process: Process, stop: asyncio.Event) -> None:
        world = self._world
        stored = world.stored[self._name]
        inner = world.parts.checkpoints(world, stored, process.name)
        process.on_death.append(lambda: _end_connection(world, self._name, process.name))
        projection = next(one for one in world.parts.projections if one.name == self._name)
        runner = world.parts.runner(
            projection,
            _port(world.parts.log(world), process, "log"),
            _port(_Claims(inner, world, self._name), process, "checkpoints"),
            world.pace(),
        )
        running = asyncio.create_task(runner.run(stop))
        dying = asyncio.create_task(process.ended.wait())
        await asyncio.wait([running, dying], return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        await asyncio.gather(running, dying, return_exceptions=True)
        if not running.cancelled() and (error := running.exception()) is not None:
            raise error
        if process.dead:
            raise Died


def _end_connection(world: World, name: str, owner: str) -> None:
    """Do what the database does when a connection ends: what its session owned is free."""
    stored = world.stored[name]
    if stored.owner == owner:
        stored.owner = None


class _Claims:
    """Checkpoints whose claims are told to the world, which compares them."""

    def __init__(self, inner: Any, world: World, name: str) -> None:
        self._inner = inner
        self._world = world
        self._name = name

    async def claim(self) -> Any:
        claim = await self._inner.claim()
        if claim is not None:
            self._world.claimed(self._name)
        return claim

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._inner, attribute)


def _port(target: object, process: Process, name: str) -> Any:
    return Port(target, process, name, Unavailable)
