"""The numbers of ``/metrics`` are those of the logs and projections, under the names of the contract."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from smartgrid_adapters.memory.event_store import MemoryEventStore
from smartgrid_commands.ports import ANY_VERSION, StreamWrite
from smartgrid_http.metrics import Source, exposition
from smartgrid_ops.system import SystemClock
from smartgrid_ops.telemetry import Appends, Build, Heads, Verdicts
from smartgrid_projections.ports import Standing, Unavailable
from smartgrid_schemas.identity import SessionEnded


class Standings:
    def __init__(self) -> None:
        self.down = False

    async def standings(self) -> Sequence[Standing]:
        if self.down:
            raise Unavailable("no database")
        return [
            Standing(
                name="users",
                version=1,
                positions={"identity": 1},
                next_recorded_at={"identity": datetime.now(UTC) - timedelta(seconds=5)},
                rate_per_s=0.0,
                parked_keys=2,
                last_error=None,
                owned=True,
            )
        ]

    async def positions(self) -> Mapping[str, Mapping[str, int]]:
        return {"users": {"identity": 1}}


def told(*sources: Source) -> dict[str, float]:
    lines = exposition(sources).decode().splitlines()
    return {name: float(value) for name, _, value in (ln.rpartition(" ") for ln in lines if not ln.startswith("#"))}


async def test_heads_and_lags_are_told_and_stay_while_the_store_is_away() -> None:
    store, standings = MemoryEventStore(), Standings()
    event = SessionEnded(session_id="s", user_id="u", reason="logout")
    write = StreamWrite(stream="session:s", events=[event, event, event], expected_version=ANY_VERSION)
    await store.append("identity", [write])
    heads = Heads(standings, store, SystemClock())

    await heads.refresh()
    standings.down = True
    await heads.refresh()
    numbers = told(heads)

    assert numbers['smartgrid_log_head_position{log="identity"}'] == 3
    assert numbers['smartgrid_events_appended_total{log="identity"}'] == 3
    assert numbers['smartgrid_log_head_position{log="telemetry"}'] == 0
    assert numbers['smartgrid_projection_position{log="identity",projection="users"}'] == 1
    assert numbers['smartgrid_projection_lag_events{projection="users"}'] == 2
    assert 4 < numbers['smartgrid_projection_lag_seconds{projection="users"}'] < 60
    assert numbers['smartgrid_projection_parked_keys{projection="users"}'] == 2


def test_appends_are_counted_by_duration() -> None:
    appends = Appends()
    appends.add("telemetry", 0.002)
    appends.add("telemetry", 60.0)

    numbers = told(appends)

    assert numbers['smartgrid_append_duration_seconds_bucket{le="0.0025",log="telemetry"}'] == 1
    assert numbers['smartgrid_append_duration_seconds_bucket{le="+Inf",log="telemetry"}'] == 2
    assert numbers['smartgrid_append_duration_seconds_sum{log="telemetry"}'] == 60.002


def test_every_reading_has_one_of_three_verdicts_from_the_start() -> None:
    verdicts = Verdicts()
    verdicts.add("accepted", 5)
    verdicts.add("conflict", 2)

    assert told(verdicts) == {
        'smartgrid_readings_total{verdict="accepted"}': 5,
        'smartgrid_readings_total{verdict="duplicate"}': 0,
        'smartgrid_readings_total{verdict="rejected"}': 2,
    }


def test_the_version_is_told() -> None:
    assert list(told(Build()).values()) == [1]
