"""An import goes on when the API is killed under it, and a second one finds nothing left to do."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.system.product import NAME, PROGRAM, Product

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

ROWS = 60_000
MAPPING = """
location = {lat = 41.3275, lon = 19.8187}
[time]
columns = ["t"]
formats = ["unix-s"]
[[sensors]]
column = "v"
sensor_id = "s"
sensor_type = "voltage"
unit = "V"
"""
COUNT = "SELECT count(*) FROM reading_register"


def test_an_import_survives_the_death_of_the_api(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(MAPPING)
    rows = (f"{1_750_000_000 + i},{220 + i % 2000 / 100:.2f}\n" for i in range(ROWS))
    (tmp_path / "rows.csv").write_text("t,v\n" + "".join(rows))

    with Product(tmp_path / "home") as product:
        product.token()
        command: list[str | Path] = [
            PROGRAM,
            "import",
            tmp_path / "rows.csv",
            "--mapping",
            tmp_path / "m.toml",
            "--url",
            product.url,
        ]
        importing = subprocess.Popen(
            [*command, "--username", NAME, "--output", "json", "--wire", "json", "--batch-size", "500"],
            env={**product.environment, "SGA_PASSWORD": product.password},
            stdout=subprocess.PIPE,
        )
        while product.rows(COUNT)[0][0] < ROWS // 10:
            assert importing.poll() is None
            time.sleep(0.01)
        for pid in product.pids_of("api"):
            os.kill(pid, signal.SIGKILL)
        output, _ = importing.communicate(timeout=200)
        again = product.import_file(tmp_path / "rows.csv", tmp_path / "m.toml")
        stored = product.rows(COUNT)[0][0]

    summary = json.loads(output)
    assert importing.returncode == 0
    assert summary["accepted"] + summary["duplicates"] == ROWS
    assert summary["resent_batches"] > 0
    assert (again["accepted"], again["duplicates"], stored) == (0, ROWS, ROWS)
