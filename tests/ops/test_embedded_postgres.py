"""The embedded server starts wherever a home lies, heals what was left behind, and never outlives its owner."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import psycopg
import pytest

from smartgrid_ops.embedded_postgres import SETTINGS, EmbeddedPostgres, PostgresUnusable, attach
from smartgrid_ops.postgres_programs import NOBODY, opened, usable, wheel_binaries

SMALL = {"shared_buffers": "16MB"}
DEBIAN = Path("/usr/lib/postgresql/15/bin")
BINARIES = [pytest.param(None, id="wheel"), *([pytest.param(DEBIAN, id="debian-15")] if DEBIAN.exists() else [])]


def eventually(true: Callable[[], bool], limit_s: float = 10.0) -> bool:
    end = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return True


def asked(url: str, query: str) -> object:
    with psycopg.connect(url) as conn:
        row = conn.execute(query.encode()).fetchone()
    return row and row[0]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """Return a server for tests that only look at it."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("running") / "home", settings=SMALL)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "home", settings=SMALL)
    yield server
    server.stop()


@pytest.mark.parametrize("binaries", BINARIES)
def test_it_starts_below_a_closed_folder_with_a_long_name_and_finds_its_data_again(
    tmp_path: Path, binaries: Path | None
) -> None:
    closed = tmp_path / ("x" * 120)
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "home", settings=SMALL, binaries=binaries)
    try:
        with psycopg.connect(server.start()) as conn:
            conn.execute("CREATE TABLE kept AS SELECT 7 AS seven")
        server.stop()

        assert asked(server.start(), "SELECT seven FROM kept") == 7
    finally:
        server.stop()


def test_nothing_answered_can_be_lost_with_the_settings_it_has(running: EmbeddedPostgres) -> None:
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        assert asked(running.url, f"SHOW {name}") == "on"
        assert SETTINGS[name] == "on"
    assert asked(running.url, "SHOW data_checksums") == "on"


def test_it_listens_on_no_network_and_only_its_user_may_come_near_the_socket(running: EmbeddedPostgres) -> None:
    assert asked(running.url, "SHOW listen_addresses") == ""
    assert running.data.stat().st_mode & 0o777 == 0o700
    assert running.data.stat().st_uid == (NOBODY if os.geteuid() == 0 else os.geteuid())
    assert running.home.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_refused_even_with_the_way_to_the_socket_open(running: EmbeddedPostgres) -> None:
    psql = usable(wheel_binaries()) / "psql"
    with opened(running.data) as (way, descriptors):
        done = subprocess.run(
            [psql, "-h", way, "-U", "postgres", "-c", "SELECT 1"],
            pass_fds=descriptors,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    assert done.returncode != 0
    assert "Peer authentication failed" in done.stderr


def test_two_homes_run_side_by_side(running: EmbeddedPostgres, server: EmbeddedPostgres) -> None:
    urls = running.url, server.start()

    assert len({asked(url, "SELECT system_identifier FROM pg_control_system()") for url in urls}) == 2


def test_the_home_of_a_running_server_is_refused(running: EmbeddedPostgres) -> None:
    with pytest.raises(PostgresUnusable, match="another process"):
        EmbeddedPostgres(running.home).start()

    assert attach(running.home) == running.url


def test_it_starts_again_at_once_after_kill_9_with_sessions_open(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.start(), autocommit=True) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 7 AS seven")
        killed = server.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        server.wait()

        assert server.pid is None
        assert attach(server.home) is None
        assert asked(server.start(), "SELECT seven FROM kept") == 7
        assert server.pid != killed


def test_a_lock_file_with_the_number_of_somebody_else_is_no_obstacle(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    stranger = subprocess.Popen(["/bin/sleep", "60"])
    try:
        lines = [str(stranger.pid), str(server.data), "0", "5432", ".", "", "0 0", "ready"]
        (server.data / "postmaster.pid").write_text("\n".join(lines) + "\n")

        assert attach(server.home) is None
        assert asked(server.start(), "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_half_made_folder_is_made_anew(server: EmbeddedPostgres) -> None:
    (server.home / "pg.new" / "base").mkdir(parents=True)

    assert asked(server.start(), "SELECT 1") == 1
    assert not (server.home / "pg.new").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(server: EmbeddedPostgres) -> None:
    server.data.mkdir(parents=True)
    (server.data / "thesis.txt").write_text("the only copy")

    with pytest.raises(PostgresUnusable, match=r"pg"):
        server.start()

    assert (server.data / "thesis.txt").read_text() == "the only copy"


def test_data_of_another_version_are_refused_with_both_versions_named(server: EmbeddedPostgres) -> None:
    server.data.mkdir(parents=True)
    (server.data / "PG_VERSION").write_text("9\n")

    with pytest.raises(PostgresUnusable, match=r"made by PostgreSQL 9, the binaries are of 1\d"):
        server.start()


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(PostgresUnusable, match=rf"{tmp_path}/file/home .*choose another home"):
        EmbeddedPostgres(tmp_path / "file" / "home").start()


def test_a_setting_that_postgres_refuses_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(PostgresUnusable, match="shared_buffers"):
        EmbeddedPostgres(tmp_path / "home", settings={"shared_buffers": "many"}).start()


OWNER = """
import sys, time
from pathlib import Path
from smartgrid_ops.embedded_postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), settings={"shared_buffers": "16MB"})
server.start()
print(server.pid, flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def killed_owner(home: Path) -> Generator[int, None, None]:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(home)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with contextlib.closing(owner.stdout):
        pid = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    yield pid


def test_it_ends_with_its_owner_and_the_next_owner_finds_everything_in_order(server: EmbeddedPostgres) -> None:
    with killed_owner(server.home) as pid:
        server.start()  # at once: it waits for the old one, or ends it

    assert gone(pid)
    assert asked(server.url, "SELECT 1") == 1


def test_it_is_gone_soon_after_its_owner_without_anybody_looking_after_it(tmp_path: Path) -> None:
    with killed_owner(tmp_path / "home") as pid:
        assert eventually(lambda: gone(pid))


def test_it_ends_with_the_process_it_was_told_to_watch(tmp_path: Path) -> None:
    watched = subprocess.Popen(["/bin/sleep", "60"])
    server = EmbeddedPostgres(tmp_path / "home", settings=SMALL, watched_pid=watched.pid)
    try:
        server.start()
        watched.kill()
        watched.wait()

        assert eventually(lambda: server.pid is None)
    finally:
        server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs its programs where somebody else can run them")
def test_programs_below_a_closed_folder_are_copied_to_where_they_can_run(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    shutil.copytree(wheel_binaries().parent, closed / "install", symlinks=True)

    found = usable(closed / "install" / "bin")
    try:
        assert found != closed / "install" / "bin"
        assert found.parent.stat().st_mode & 0o777 == 0o755
        assert usable(closed / "install" / "bin") == found
    finally:
        shutil.rmtree(found.parent)
