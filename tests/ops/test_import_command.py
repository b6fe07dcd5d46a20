from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from tests.ops.fake_ingest import PASSWORD, TOKEN, FakeIngest
from typer.testing import CliRunner, Result

from smartgrid_ops.cli import importing

MAPPING = """
location = {lat = 41.3275, lon = 19.8187}
[time]
columns = ["t"]
[[sensors]]
column = "v"
sensor_id = "s1"
sensor_type = "voltage"
unit = "V"
"""
ROWS = [(f"2026-01-01T00:{minute:02}:00Z", f"{230 + minute / 10:.3f}") for minute in range(60)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.toml").write_text(MAPPING)
    (tmp_path / "rows.csv").write_text("t,v\n" + "".join(f"{t},{v}\n" for t, v in ROWS))
    return tmp_path


def run(*arguments: str | Path, env: dict[str, str] | None = None, stdin: str | None = None) -> Result:
    app = typer.Typer()
    importing.register(app)
    return CliRunner(env={"SGA_TOKEN": TOKEN, **(env or {})}).invoke(app, [str(a) for a in arguments], input=stdin)


def imported(folder: Path, address: str, *more: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    result = run(
        folder / "rows.csv",
        "-m",
        folder / "m.toml",
        "--url",
        address,
        "--output",
        "json",
        "--batch-size",
        "7",
        *more,
        env=env,
    )
    assert result.exit_code in {0, 1}, result.output
    summary: dict[str, Any] = msgspec.json.decode(result.stdout)
    return {**summary, "exit": result.exit_code}


def test_what_is_sent_has_the_digits_of_the_file(folder: Path, address: str, fake: FakeIngest) -> None:
    summary = imported(folder, address, "--wire", "json")

    assert (summary["accepted"], summary["duplicates"], summary["rejected"], summary["exit"]) == (60, 0, 0, 0)
    assert sorted(fake.stored.values()) == sorted(v for _, v in ROWS)
    assert set(fake.content_types) == {"application/json"}


def test_columns_bring_the_same_readings(folder: Path, address: str, fake: FakeIngest) -> None:
    summary = imported(folder, address)
    again = imported(folder, address, "--wire", "json")

    assert (summary["accepted"], again["accepted"], again["duplicates"]) == (60, 0, 60)
    assert fake.content_types[0] == "application/vnd.smartgrid.columns+msgpack"


def test_importing_shuffled_stores_the_same(folder: Path, address: str, fake: FakeIngest) -> None:
    imported(folder, address, "--shuffle", "4")

    assert list(fake.stored.values()) != [repr(float(v)) for _, v in ROWS]
    assert sorted(float(v) for v in fake.stored.values()) == [float(v) for _, v in ROWS]


@pytest.mark.parametrize("trouble", [503, 504, 502, 429, 0])
def test_a_batch_without_an_answer_is_sent_again(folder: Path, address: str, fake: FakeIngest, trouble: int) -> None:
    fake.troubles = [200, trouble, 200, trouble]

    summary = imported(folder, address, "--parallel", "1")

    assert len(fake.stored) == 60
    assert summary["accepted"] + summary["duplicates"] == 60
    assert summary["resent_batches"] == 2
    assert (summary["duplicates"] > 0) == (trouble == 0)


def test_a_body_that_is_too_large_is_halved(folder: Path, address: str, fake: FakeIngest) -> None:
    fake.most_items = 2

    assert imported(folder, address)["accepted"] == 60


def test_refusals_are_grouped_and_exit_with_1(folder: Path, address: str) -> None:
    rows = (folder / "rows.csv").read_text().splitlines()
    imported(folder, address)
    (folder / "rows.csv").write_text("\n".join([*rows[:2], rows[2].replace(",2", ",3"), "2026-01-01,?", "never,1"]))

    result = run(folder / "rows.csv", "-m", folder / "m.toml", "--url", address)

    assert result.exit_code == 1
    assert "accepted 0  duplicates 1  rejected 2" in result.stdout
    assert "missing values, not sent: 1" in result.stdout
    assert "1 times bad_time in t, line 5" in result.stdout
    assert "1 times reading_conflict in v, line 3" in result.stdout


def test_findings_of_the_server_are_told_with_lines(folder: Path, address: str, fake: FakeIngest) -> None:
    fake.refused_ids = {"s1"}

    summary = imported(folder, address, "--parallel", "1")

    assert summary["exit"] == 1
    assert summary["reasons"] == [
        {
            "code": "out_of_physical_range",
            "column": "v",
            "count": 60,
            "message": "/value: too high",
            "lines": [2, 3, 4, 5, 6],
        }
    ]


def test_a_login_is_renewed_when_its_token_runs_out(folder: Path, address: str, fake: FakeIngest) -> None:
    fake.troubles = [200, 200, 401]

    summary = imported(folder, address, "--username", "operator", "--parallel", "1", env={"SGA_PASSWORD": PASSWORD})

    assert (summary["accepted"], fake.logins) == (60, 2)


def test_the_password_is_asked_for(folder: Path, address: str) -> None:
    result = run(
        folder / "rows.csv", "-m", folder / "m.toml", "--url", address, "--username", "operator", stdin=PASSWORD + "\n"
    )

    assert result.exit_code == 0, result.output
    assert PASSWORD not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["rows.csv"],
        ["none.csv", "-m", "m.toml"],
        ["rows.csv", "-m", "none.toml"],
        ["rows.csv", "-m", "m.toml", "--token", "old"],
        ["rows.csv", "-m", "m.toml", "--username", "operator", "--password", "wrong"],
        ["rows.csv", "-m", "m.toml", "--token-file", "none"],
    ],
)
def test_what_cannot_be_used_exits_with_2(
    folder: Path, address: str, fake: FakeIngest, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)

    result = run(*arguments, "--url", address)

    assert result.exit_code == 2, result.output
    assert result.stderr
    assert not fake.stored


def test_nobody_answering_exits_with_3(folder: Path) -> None:
    result = run(folder / "rows.csv", "-m", folder / "m.toml", "--url", "http://127.0.0.1:9", "--patience", "0")

    assert result.exit_code == 3
    assert "goes on from there" in result.stderr


def test_lines_in_the_form_of_the_api_need_no_mapping(tmp_path: Path, address: str, fake: FakeIngest) -> None:
    lines = ['{"sensor_id":"a","sensor_type":"power","value":1.50,"timestamp":"2026-01-01T00:00:00Z"}', "", "  "]
    (tmp_path / "rows.ndjson").write_text("\n".join(lines))

    result = run(tmp_path / "rows.ndjson", "--url", address)

    assert result.exit_code == 0, result.output
    assert list(fake.stored.values()) == ["1.50"]
