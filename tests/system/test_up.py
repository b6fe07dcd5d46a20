"""What ``smartgrid up`` leaves on disk, which exit codes it has, and that nothing stays behind."""

import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests.system.product import PROGRAM, Product, free_port

pytestmark = pytest.mark.timeout(240)

STOP_S = 10.0
"""The promise is 5 s idle on a machine of one's own; tests share theirs."""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def eventually(true: Callable[[], bool], limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def processes_of(product: Product) -> list[int]:
    return [pid for kind in ("supervisor", "api", "worker", "postgres") for pid in product.pids_of(kind)]


def run_up(environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "up"], env=dict(environment), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with Product(tmp_path_factory.mktemp("up") / "home") as product:
        yield product


def test_the_home_is_private_and_tells_who_runs(product: Product) -> None:
    assert stat.S_IMODE(product.home.stat().st_mode) == 0o700
    assert product.pids().keys() == {"supervisor", "api", "worker", "postgres"}
    assert all(alive(pid) for pid in processes_of(product))
    assert len(processes_of(product)) == 4


def test_a_second_up_on_a_used_home_ends_with_3_and_changes_nothing(product: Product) -> None:
    before = product.pids()

    done = run_up({**product.environment, "SMARTGRID_PORT": str(free_port())})

    assert done.returncode == 3
    assert str(product.home) in done.stderr
    assert product.pids() == before
    assert product.request("GET", "/health/ready", token=None)[0] == 200


def test_an_up_on_a_used_port_ends_with_4(product: Product, tmp_path: Path) -> None:
    done = run_up({**product.environment, "SMARTGRID_HOME": str(tmp_path / "other")})

    assert done.returncode == 4
    assert str(product.port) in done.stderr
    assert not (tmp_path / "other" / "run" / "pids.json").exists()


def test_an_unknown_setting_ends_it_with_2_and_is_named(tmp_path: Path) -> None:
    done = run_up({**os.environ, "SMARTGRID_HOME": str(tmp_path / "home"), "SMARTGRID_PROT": "5000"})

    assert done.returncode == 2
    assert "SMARTGRID_PROT" in done.stderr
    assert not (tmp_path / "home").exists()


def test_a_home_that_cannot_be_made_ends_it_with_2_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    done = run_up({**os.environ, "SMARTGRID_HOME": str(tmp_path / "file" / "home"), "SMARTGRID_PORT": str(free_port())})

    assert done.returncode == 2
    assert str(tmp_path / "file") in done.stderr


def test_doctor_finds_nothing_that_keeps_it_from_starting(product: Product) -> None:
    done = product.run("doctor")

    assert done.returncode == 0, done.stdout
    assert {"fsync: on", "full_page_writes: on", "synchronous_commit: on"} <= {
        line.removeprefix("ok   ") for line in done.stdout.splitlines()
    }


def test_two_migrators_at_a_time_find_nothing_left_to_do(product: Product) -> None:
    both = [
        subprocess.Popen([PROGRAM, "migrate"], env=product.environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [one.communicate(timeout=60)[0] for one in both]

    assert [one.returncode for one in both] == [0, 0]
    assert all(text.startswith("at version ") for text in said)


def test_every_line_of_the_logs_is_one_json_object(product: Product) -> None:
    import json  # noqa: PLC0415 - nothing else here reads JSON

    lines = [line for file in (product.home / "logs").iterdir() for line in file.read_text().splitlines()]

    assert lines
    assert all(isinstance(json.loads(line), dict) for line in lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_0_with_nothing_left_running_and_the_next_up_finds_the_data(
    product: Product, number: signal.Signals
) -> None:
    product.token()
    pids = processes_of(product)

    began = time.monotonic()
    assert product.stop(number) == 0
    took_s = time.monotonic() - began

    assert took_s < STOP_S
    assert not any(alive(pid) for pid in pids)
    assert not (product.home / "run" / "pids.json").exists()
    product.start()
    assert product.get("/api/v1/users/me")["user"]["username"] == "admin"
