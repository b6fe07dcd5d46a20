"""``smartgrid events`` and ``smartgrid audit`` on a database."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import psycopg
import pytest
import typer
from typer.testing import CliRunner, Result

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import open_pool
from smartgrid_commands.ports import ANY_VERSION, StreamWrite
from smartgrid_ops.cli import logs
from smartgrid_schemas.envelope import Metadata
from smartgrid_schemas.telemetry import SensorConfigured

EVENTS = 12


@pytest.fixture
def filled(database: str) -> str:
    """Return the URL of a database with twelve events, each of a commit of its own."""

    async def fill() -> None:
        pool = await open_pool(database)
        store = PostgresEventStore(pool)
        for number in range(EVENTS):
            events = [SensorConfigured(sensor_id="s1", name=f"=name {number}")]
            metadata = Metadata(actor="user:u1", correlation_id=f"req-{number}")
            write = StreamWrite(
                stream=f"sensor:s{number % 2}", events=events, expected_version=ANY_VERSION, metadata=metadata
            )
            await store.append("telemetry", [write])
        await store.stop()
        await pool.close()

    asyncio.run(fill())
    return database


@pytest.fixture
def run(filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("SMARTGRID_HOME", str(tmp_path))
    monkeypatch.setenv("SMARTGRID_PG_URL", filled)
    app = typer.Typer()
    logs.register(app)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    return invoke


def positions(lines: str) -> list[str]:
    return [msgspec.json.decode(line)["position"] for line in lines.splitlines()]


def test_the_newest_events_are_printed(run: Callable[..., Result]) -> None:
    newest = run("events", "tail", "-n", "2")
    later = run("events", "tail", "--after", "9", "--stream", "sensor:s1")

    assert positions(newest.stdout) == ["telemetry@11", "telemetry@12"]
    assert positions(later.stdout) == ["telemetry@10", "telemetry@12"]
    assert msgspec.json.decode(newest.stdout.splitlines()[0])["causation_id"] == "req-10"


def test_a_log_is_exported_to_a_new_file(run: Callable[..., Result], tmp_path: Path) -> None:
    target = tmp_path / "events.csv"

    done = run("events", "export", str(target), "--format", "csv", "--after", "3", "--up-to", "5")
    again = run("events", "export", str(target))
    whole = run("events", "export", "-")

    assert (done.exit_code, again.exit_code, whole.exit_code) == (0, 1, 0)
    assert [line.split(",")[0] for line in target.read_text().splitlines()] == [
        "position",
        "telemetry@4",
        "telemetry@5",
    ]
    assert positions(whole.stdout) == [f"telemetry@{position}" for position in range(1, EVENTS + 1)]


def test_a_row_that_was_changed_is_named_and_fails_the_command(run: Callable[..., Result], filled: str) -> None:
    good = run("audit", "verify")
    with psycopg.connect(filled) as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute("UPDATE telemetry_events SET topic = 'telemetry.sensor-moved.v1' WHERE notification_id = 7")

    changed = run("audit", "verify")

    assert (good.exit_code, changed.exit_code) == (0, 1)
    assert msgspec.json.decode(good.stdout)["ok"] is True
    assert msgspec.json.decode(changed.stdout)["first_bad"]["position"] == 7
    assert "telemetry is not what was written at 7: altered" in changed.stderr
