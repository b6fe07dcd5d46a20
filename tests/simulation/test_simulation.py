"""Seeds over the shipped code: nothing is lost, doubled or torn, and each seed replays bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.kit.shares import shard
from tests.simulation.__main__ import search
from tests.simulation.run import run

SEEDS = [
    pytest.param(int(os.environ.get("SGA_TEST_SEEDS", "500")), marks=pytest.mark.faults, id="smoke"),
    pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(7_200)], id="soak"),
]
FIRST = int(os.environ.get("SGA_TEST_FIRST_SEED", "0"))
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seeds", SEEDS)
def test_no_seed_breaks_an_invariant_and_each_replays(
    seeds: int, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    part, of = shard(request.config)
    first = FIRST + seeds * (part - 1) // of

    failed = search(first, FIRST + seeds * part // of)

    text = capsys.readouterr().out
    with capsys.disabled():
        print(f"\n{text}", end="")  # counts to show
    assert failed == []


@pytest.mark.faults
def test_a_seed_is_the_same_in_another_process() -> None:
    program = "from tests.simulation.run import run; print(*[run(seed).trace for seed in range(5)])"

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == [run(seed).trace for seed in range(5)]


@pytest.mark.faults
def test_every_kind_of_fault_happens() -> None:
    kinds = {kind for seed in range(30) for kind in run(seed).faults}

    assert kinds == {"crash", "unavailable", "unknown", "freeze", "drop", "repeat", "slow"}
