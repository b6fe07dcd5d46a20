"""What was answered at a time is what is answered later as of that time, byte for byte, on every route that can."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal, NamedTuple
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from tests.http.reads.filling import Pool

from smartgrid_adapters.postgres.checkpoints import PostgresCheckpoints, PostgresStandings
from smartgrid_adapters.postgres.consumption import PostgresConsumption
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.flush import PostgresReadingStore
from smartgrid_adapters.postgres.pool import conninfo_of
from smartgrid_adapters.postgres.rollups import PostgresRollups
from smartgrid_adapters.postgres.stats import PostgresStats
from smartgrid_adapters.postgres.trends import PostgresTrends
from smartgrid_adapters.sealing import KeySealer
from smartgrid_commands.ingestion import Ingestion
from smartgrid_domain.instants import rfc3339
from smartgrid_http.app import build_app
from smartgrid_http.services import Services
from smartgrid_http.testing import EPOCH, AsgiClient, FixedClock, Reply
from smartgrid_projections.queries.standing import Waiting
from smartgrid_projections.read_models.aggregates import AGGREGATES
from smartgrid_projections.read_models.consumption import CONSUMPTION
from smartgrid_projections.runtime.runner import Pace, Runner

LOG = "telemetry"
Kind = Literal["sensor", "meter", "correct", "retract", "set sensor", "set meter", "exchange", "reset", "look"]
WORLDS = count()


class Act(NamedTuple):
    """One thing that a client does; *which* and *value* are read as the kind needs them."""

    kind: Kind
    which: int
    minute: int
    value: int


OFTEN: dict[Kind, int] = {"sensor": 4, "meter": 5, "correct": 2, "retract": 3, "set meter": 2}
ONCE: list[Kind] = ["set sensor", "exchange", "reset", "look"]
KINDS = [*ONCE, *(kind for kind, times in OFTEN.items() for _ in range(times))]
ACTS = st.builds(Act, st.sampled_from(KINDS), st.integers(0, 7), st.integers(0, 60 * 24), st.integers(0, 40))


@dataclass
class World:
    """
    Real services on a real database, with projections that fold when they are told to.

    Attributes:
        catch_up: Folds all there is.
    """

    client: AsgiClient
    clock: FixedClock
    store: PostgresEventStore
    catch_up: Callable[[], Awaitable[None]]
    prefix: str = ""
    start: datetime = EPOCH
    posted: list[tuple[str, dict[str, Any], str]] = field(default_factory=list[tuple[str, dict[str, Any], str]])

    def begin(self) -> None:
        """Forget what was posted; new names."""
        self.prefix = f"w{next(WORLDS)}-"
        self.start = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=20)
        self.posted.clear()

    async def act(self, act: Act) -> None:
        self.clock.time = datetime.now(UTC)
        operator = self.client.signed_in("operator")
        time = rfc3339(self.start + timedelta(minutes=act.minute))
        sensor, meter = f"{self.prefix}s{act.which % 2}", f"{self.prefix}m{act.which % 2}"
        match act.kind:
            case "sensor":
                await self.post(
                    "sensor",
                    {
                        "sensor_id": sensor,
                        "sensor_type": ["voltage", "power"][act.which // 4],
                        "value": act.value * 5.5,
                        "location": {"lat": 41.0, "lon": 19.0},
                        "timestamp": time,
                        **({"phase": "L1"} if act.which & 2 else {}),
                    },
                )
            case "meter":
                grown = act.minute / 10 if act.which < 6 else 0  # now and then a register falls
                body = {"meter_id": meter, "reading": grown + act.value / 8, "timestamp": time}
                await self.post("meter", body | {"customer_id": ["c1", "c2"][act.which % 3 % 2]})
            case "correct" if self.posted:
                kind, body, event_id = self.posted[act.minute % len(self.posted)]
                name = "value" if kind == "sensor" else "reading"
                await self.post(kind, body | {name: act.value + 0.125, "corrects": event_id, "reason": "better"})
            case "retract" if self.posted:
                event_id = self.posted[act.minute % len(self.posted)][2]
                await operator.post(f"/api/v1/readings/{event_id}/retract", {"reason": "wrong"})
            case "set sensor":
                await operator.put(f"/api/v1/sensors/{sensor}", {"expected_interval_s": [None, 60, 900][act.value % 3]})
            case "set meter":
                change = [
                    {"customer_id": "c1"},
                    {"customer_id": "c2"},
                    {"customer_id": None},
                    {"rollover_at": 20},
                    {"rollover_at": None},
                    {"expected_interval_s": 900},
                ][act.value % 6]
                await operator.put(f"/api/v1/meters/{meter}", change)
            case "exchange" | "reset":
                body = {"at": time, "reason": "worn out"}
                if act.kind == "exchange":
                    body |= {"old_final": act.minute / 10 + 1, "new_initial": act.value}
                reply = await operator.post(f"/api/v1/meters/{meter}/{act.kind}", body)
                if reply.status == 201:
                    self.posted.append(("meter", {"meter_id": meter, "timestamp": time}, reply.json()["event_id"]))
            case _:
                pass

    async def post(self, kind: str, body: dict[str, Any]) -> None:
        reply = await self.client.signed_in("operator").post(f"/api/v1/ingest/{kind}", body)
        if reply.status == 201:
            plain = {name: value for name, value in body.items() if name not in ("corrects", "reason")}
            self.posted.append((kind, plain, reply.json()["event_id"]))

    def questions(self) -> list[tuple[str, str, dict[str, str]]]:
        """Return (token, path, headers) of reads of every route that can look back."""
        p = self.prefix
        csv = {"accept": "text/csv"}
        fixed = f"from={rfc3339(self.start)}&to={rfc3339(self.start + timedelta(hours=30))}"
        stats, trends = "/api/v1/analytics/sensor/stats", "/api/v1/analytics/consumption/trends"
        asked: list[tuple[str, str, dict[str, str]]] = [
            ("viewer", f"/api/v1/readings?sensor_id={p}s0", {}),
            ("viewer", f"/api/v1/readings?sensor_id={p}s0&versions=all&order=desc&{fixed}", {}),
            ("viewer", f"/api/v1/readings?sensor_id={p}s1&sensor_type=voltage&{fixed}", csv),
            ("viewer", f"/api/v1/sensors/{p}s0/latest?wait_ms=0", {}),
            ("viewer", f"/api/v1/sensors/{p}s1/latest?wait_ms=0", {}),
            ("viewer", f"{stats}?wait_ms=0", {}),
            ("viewer", f"{stats}?hours=7&sensor_id={p}s0", {}),
            ("viewer", f"{stats}?sensor_id={p}s0&phase=L1&interval=1h&{fixed}", {}),
            ("viewer", f"{stats}?sensor_id={p}s1&interval=15m&{fixed}", csv),
            ("viewer", f"{stats}?sensor_id={p}s0&interval=1m&{fixed}", {}),
            ("viewer", f"{stats}?sensor_id={p}s0&interval=1d&tz=Asia/Kolkata&hours=100", {}),
            ("analyst", f"{trends}?customer_id=c2&interval=1d", {}),
            ("viewer-of-c1", f"{trends}?customer_id=c1&interval=1h&tz=Asia/Kolkata&compare=previous&{fixed}", {}),
        ]
        for meter in (f"{p}m0", f"{p}m1"):
            for token in ("analyst", "viewer-of-c1"):
                asked += [
                    (token, f"/api/v1/meters/{meter}/latest?wait_ms=0", {}),
                    (token, f"/api/v1/meters/{meter}/readings?wait_ms=0", {}),
                    (token, f"/api/v1/meters/{meter}/readings?versions=all&{fixed}", csv),
                    (token, f"{trends}?meter_id={meter}&interval=1h&days=2", {}),
                    (token, f"{trends}?meter_id={meter}&interval=1d&tz=Europe/Tirane&compare=year_ago", csv),
                ]
        return asked

    async def answers(self, as_of: str | None = None) -> list[tuple[str, int, bytes, str | None]]:
        more = "" if as_of is None else f"&as_of={quote(as_of)}"
        result: list[tuple[str, int, bytes, str | None]] = []
        for token, path, headers in self.questions():
            reply: Reply = await self.client.signed_in(token).get(path + more, headers=headers)
            assert reply.status in (200, 404), (path, reply.body)
            body = reply.body if reply.status == 200 else b""  # a problem tells the id of its request
            result.append((f"{token} {path}", reply.status, body, reply.headers.get("x-event-position")))
        return result


@pytest.fixture
async def world(database: str, services: Services, pool: Pool, sealer: KeySealer) -> AsyncIterator[World]:
    store, clock = services.store, services.clock
    assert isinstance(store, PostgresEventStore)
    assert isinstance(clock, FixedClock)

    async def connect() -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(conninfo_of(database), autocommit=True)

    readings = PostgresReadingStore(pool, store, sealer=sealer)
    services.ingestion = Ingestion(readings, services.clock)
    services.stats, services.trends = PostgresStats(pool), PostgresTrends(pool, sealer)
    services.waiting = Waiting(PostgresStandings(pool))
    owner = uuid4().hex
    rollups = PostgresCheckpoints(connect, name="aggregates", version=1, owner=owner, tables=PostgresRollups)
    consumption = PostgresCheckpoints(
        connect, name="consumption", version=1, owner=owner, tables=lambda conn: PostgresConsumption(conn, sealer)
    )
    pace = Pace(batch_events=7)
    runners = (Runner(AGGREGATES, store, rollups, pace), Runner(CONSUMPTION, store, consumption, pace))

    async def catch_up() -> None:
        head = await store.head(LOG)
        for runner in runners:
            while runner.positions.get(LOG, 0) < head:
                await runner.step()

    yield World(AsgiClient(build_app(services)), clock, store, catch_up)
    await rollups.close()
    await consumption.close()
    await readings.stop()


@dataclass
class Look:
    """What was answered at a position, when the clock showed its recorded time and when it showed a later one."""

    position: int
    time: datetime
    by_position: list[tuple[str, int, bytes, str | None]]
    by_time: list[tuple[str, int, bytes, str | None]]


async def look(world: World) -> Look:
    await world.catch_up()
    position = await world.store.head(LOG)
    world.clock.time = (await world.store.read_log(LOG, after=position - 1))[0].recorded_at
    by_position = await world.answers()
    world.clock.time = time = datetime.now(UTC)
    return Look(position, time, by_position, await world.answers())


@example(acts=[Act("look", 0, 0, 0), Act("retract", 0, 0, 0)], lag=False)
@settings(
    max_examples=4,
    phases=[Phase.explicit, Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(acts=st.lists(ACTS, min_size=4, max_size=40), lag=st.booleans())
async def test_what_was_answered_then_is_answered_as_of_then(world: World, acts: list[Act], lag: bool) -> None:  # noqa: FBT001  # drawn
    world.begin()
    await world.act(Act("sensor", 0, 60, 1))
    looks: list[Look] = []
    for act in [*acts[: len(acts) // 2], Act("look", 0, 0, 0), *acts[len(acts) // 2 :]]:
        await world.act(act)
        if act.kind == "look":
            looks.append(await look(world))
    if not lag:
        await world.catch_up()
    world.clock.time = datetime.now(UTC)

    for then in looks:
        for as_of, told in ((f"{LOG}@{then.position}", then.by_position), (rfc3339(then.time), then.by_time)):
            for now, before in zip(await world.answers(as_of), told, strict=True):
                assert now == before
