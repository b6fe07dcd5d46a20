import hashlib
from collections import Counter, defaultdict
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.fake_ingest import TOKEN, FakeIngest
from typer.testing import CliRunner

from smartgrid_ops.cli import simulate
from smartgrid_ops.simulator.feeder import feeder, frequencies, loads, source_voltages, voltages
from smartgrid_ops.simulator.stream import Plan, readings

TIRANE = ZoneInfo("Europe/Tirane")
days = st.dates(date(2020, 1, 1), date(2035, 1, 1))


PLAN = Plan(seed=7, start=date(2026, 3, 28), days=2, houses=3, step_s=900)


def plan(**changes: Any) -> Plan:  # noqa: ANN401  # fields of the plan
    return msgspec.structs.replace(PLAN, **changes)


def lines(of: Plan) -> list[bytes]:
    return [reading.json() for reading in readings(of)]


@settings(max_examples=10)
@given(st.integers(0, 2**63), days, st.sampled_from([60, 900, 3600]))
def test_the_same_seed_makes_the_same_bytes_and_another_one_others(seed: int, start: date, step_s: int) -> None:
    one = lines(plan(seed=seed, start=start, step_s=step_s, days=1))

    assert lines(plan(seed=seed, start=start, step_s=step_s, days=1)) == one
    assert lines(plan(seed=seed + 1, start=start, step_s=step_s, days=1)) != one


@settings(max_examples=10)
@given(st.integers(0, 2**63), days)
def test_ranges_that_overlap_agree(seed: int, start: date) -> None:
    def sensed(start: date, days: int) -> set[bytes]:
        made = plan(seed=seed, start=start, days=days, late=0, duplicates=0)
        return {line for line in lines(made) if b"sensor_id" in line}

    later = sensed(start + timedelta(days=1), 1)

    assert later <= sensed(start, 2)


@settings(max_examples=25)
@given(st.integers(0, 2**63), days, st.integers(1, 40))
def test_values_stay_in_what_a_feeder_can_do(seed: int, day: date, houses: int) -> None:
    it = feeder(seed, houses, TIRANE)
    load = loads(it, day)
    volts = voltages(it, load, source_voltages(it, day))
    hertz = frequencies(it, day, 10)

    assert 0 < load.min() <= load.max() < 20_000
    assert 150 < volts.min() <= volts.max() < 253
    assert abs(hertz - 50).max() < 0.2


def test_a_feeder_of_usual_size_keeps_the_voltage_band() -> None:
    it = feeder(1, 12, TIRANE)
    volts = [
        voltages(it, loads(it, day), source_voltages(it, day))
        for day in (date(2026, 1, 1) + timedelta(days=offset) for offset in range(28))
    ]

    assert 207 < np.min(volts) <= np.max(volts) < 253


@given(st.integers(0, 2**63), st.integers(0, 11), st.floats(1, 10_000))
def test_voltage_falls_as_load_rises(seed: int, house: int, more_w: float) -> None:
    it = feeder(seed, 12, TIRANE)
    load = np.full((1, 12), 500.0)
    source = np.array([235.0])
    heavier = load.copy()
    heavier[0, house] += more_w

    change = voltages(it, heavier, source)[0] - voltages(it, load, source)[0]

    on_phase = np.array([it.phase(i) == it.phase(house) for i in range(12)])
    assert (change[on_phase] < 0).all()
    assert (change[~on_phase] == 0).all()


def test_voltage_at_the_end_of_the_cable_is_the_lowest() -> None:
    it = feeder(3, 12, TIRANE)

    volts = voltages(it, np.full((1, 12), 1000.0), np.array([235.0]))[0]

    assert all(volts[i] > volts[i + 3] for i in range(9))


def test_frequency_wanders_by_20_mhz() -> None:
    it = feeder(1, 1, TIRANE)
    hertz = np.concatenate([frequencies(it, date(2026, 1, 1) + timedelta(days=d), 10) for d in range(20)])

    assert 0.018 < hertz.std() < 0.022
    assert abs(hertz.mean() - 50) < 0.002


def test_evenings_outweigh_nights_and_follow_the_clock_across_its_change() -> None:
    it = feeder(1, 200, TIRANE)

    def peak_hour(day: date) -> int:
        return int(loads(it, day).sum(axis=1).reshape(24, 60).sum(axis=1).argmax())

    winter, summer = loads(it, date(2026, 1, 14)), loads(it, date(2026, 7, 15))
    assert (peak_hour(date(2026, 3, 27)), peak_hour(date(2026, 3, 31))) in {(19, 18), (18, 17)}
    assert winter[19 * 60 : 20 * 60].mean() > 2 * winter[2 * 60 : 3 * 60].mean()
    assert winter.mean() > summer.mean()


def test_weekends_have_no_early_morning_peak() -> None:
    it = feeder(1, 200, TIRANE)
    monday, sunday = loads(it, date(2026, 1, 12)), loads(it, date(2026, 1, 11))

    assert monday[6 * 60 : 7 * 60].mean() > 1.15 * sunday[6 * 60 : 7 * 60].mean()


def test_registers_only_count_up_and_begin_where_the_last_day_ended() -> None:
    standing: dict[str, list[float]] = defaultdict(list)
    for line in lines(plan(late=0, duplicates=0, days=3)):
        item = msgspec.json.decode(line)
        if "meter_id" in item:
            standing[item["meter_id"]].append(item["reading"])

    assert len(standing) == 3
    assert {len(values) for values in standing.values()} == {3 * 96}
    assert all(0 < b - a < 5 for values in standing.values() for a, b in pairwise(values))


def test_local_times_change_their_offset_in_the_night_of_the_clock_change() -> None:
    stamps = [
        msgspec.json.decode(line)["timestamp"] for line in lines(plan(late=0, duplicates=0, start=date(2026, 3, 29)))
    ]

    assert "2026-03-29T01:45:00+01:00" in stamps
    assert "2026-03-29T03:00:00+02:00" in stamps
    assert not any(stamp.startswith("2026-03-29T02") for stamp in stamps)


def test_late_and_repeated_readings_are_as_many_as_asked() -> None:
    clean = lines(plan(late=0, duplicates=0, houses=12))
    noisy = lines(plan(late=0.1, duplicates=0.05, houses=12))

    counts = Counter(noisy)
    assert set(counts) == set(clean)
    assert 0.04 < sum(count - 1 for count in counts.values()) / len(clean) < 0.06
    assert [line for line in noisy if counts[line] == 1] != [line for line in clean if counts[line] == 1]


def run(*arguments: str) -> "tuple[int, bytes, str]":
    app = typer.Typer()
    simulate.register(app)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout_bytes, result.stderr


def test_the_command_writes_the_same_to_a_file_and_to_stdout(tmp_path: Path) -> None:
    asked = ["--seed", "5", "--start", "2026-01-01", "--houses", "2", "--step", "3600"]

    code, stdout, _ = run(*asked, "--output", "-")
    run(*asked, "--output", str(tmp_path / "sim.ndjson"))

    assert code == 0
    assert (tmp_path / "sim.ndjson").read_bytes() == stdout
    assert all(msgspec.json.decode(line) for line in stdout.splitlines())


def test_a_seed_makes_these_bytes_on_every_machine() -> None:
    made = b"\n".join(lines(plan(seed=1, days=1, step_s=3600)))

    assert hashlib.sha256(made).hexdigest()[:16] == "6931774bf2339021"


@pytest.mark.parametrize("bad", [("--step", "7"), ("--step", "90"), ("--zone", "Mars"), ("--step", "60")])
def test_what_cannot_be_simulated_or_sent_exits_with_2(bad: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SGA_TOKEN", raising=False)
    code, _, said = run(*bad)

    assert code == 2
    assert said


def test_what_is_simulated_arrives_once(address: str, fake: FakeIngest) -> None:
    asked = ["--start", "2026-01-01", "--houses", "2", "--step", "3600", "--url", address, "--token", TOKEN]

    codes = [run(*asked, "--duplicates", "0.1")[0] for _ in range(2)]

    assert codes == [0, 0]
    assert len(fake.stored) == len(set(lines(plan(seed=1, start=date(2026, 1, 1), days=1, houses=2, step_s=3600))))
