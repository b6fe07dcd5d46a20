"""With ``SMARTGRID_PG_URL`` the product runs on a PostgreSQL of somebody else, from version 15 on, if that is safe."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.product import PROGRAM, Product, free_port

from smartgrid_ops.embedded_postgres import EmbeddedPostgres
from smartgrid_ops.postgres_programs import wheel_binaries

pytestmark = pytest.mark.timeout(240)

DEBIAN = Path("/usr/lib/postgresql/15/bin")
OLDER = DEBIAN if DEBIAN.exists() else wheel_binaries().parents[1] / "pginstall" / "bin"
"""Debian's PostgreSQL 15, or the older one of the wheel (16)."""


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "elsewhere", binaries=OLDER, settings={"shared_buffers": "32MB"})
    yield server
    server.stop()


def test_up_migrates_it_stores_there_and_leaves_it_running(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    url = postgres.start()
    with Product(tmp_path / "home", {"SMARTGRID_PG_URL": url}) as product:
        assert product.pids()["postgres"] is None
        reading = {"sensor_id": "s", "sensor_type": "power", "value": 1, "location": {"lat": 1, "lon": 1}}
        _, stored = product.request("POST", "/api/v1/ingest/sensor", reading)
        (row,) = product.get("/api/v1/analytics/sensor/stats", min_position=stored["position"], wait_ms=5000)["data"]

        assert row["count"] == 1
    assert postgres.pid is not None
    assert not (product.home / "pg").exists()


def test_up_refuses_one_that_may_lose_what_was_answered(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "elsewhere", settings={"fsync": "off", "shared_buffers": "32MB"})
    product = Product(tmp_path / "home", {"SMARTGRID_PG_URL": postgres.start(), "SMARTGRID_PORT": str(free_port())})
    try:
        done = subprocess.run(
            [PROGRAM, "up"], env=product.environment, capture_output=True, text=True, timeout=60, check=False
        )
        doctor = subprocess.run(
            [PROGRAM, "doctor"], env=product.environment, capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        postgres.stop()

    assert done.returncode == 2
    assert "fsync is off" in done.stderr
    assert doctor.returncode == 2
    assert "bad  fsync: off" in doctor.stdout
