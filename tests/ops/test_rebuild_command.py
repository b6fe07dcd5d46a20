"""``smartgrid projections`` and ``smartgrid rebuild`` on a database without a worker."""

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from smartgrid_ops.cli import rebuilding


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    rebuilding.register(app)
    return app


@pytest.fixture
def run(app: typer.Typer, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("SMARTGRID_HOME", str(tmp_path))
    monkeypatch.setenv("SMARTGRID_PG_URL", database)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    return invoke


def test_a_rebuild_that_is_waited_for_needs_no_other_worker_and_is_switched_to(run: Callable[..., Result]) -> None:
    built = run("rebuild", "aggregates", "--wait", "--auto-switch")
    listed = run("projections")

    assert (built.exit_code, listed.exit_code) == (0, 0), built.output
    assert "switched: 0 rows, 0 in use, 0 differ by 0 at most" in built.output
    assert "aggregates   version 2  active   telemetry@0          up to date" in listed.output


def test_a_second_rebuild_is_refused_and_an_unknown_read_model_too(run: Callable[..., Result]) -> None:
    first, second, unknown = run("rebuild", "users"), run("rebuild", "users"), run("rebuild", "forecast")

    assert (first.exit_code, second.exit_code, unknown.exit_code) == (0, 1, 2)
    assert "is under way" in second.output
