"""
PostgreSQL below the state folder, from the binaries of a wheel, for one machine and one owner.

The server's folder is ``<home>/pg``. Three things are settled here on purpose:

* **It runs wherever the home lies.** PostgreSQL refuses to be root, so root hands the folder to uid 65534 and starts
  the server as that user, whose way to the folder may be barred (a home is 0700, and so may be the folders above it).
  The server therefore inherits the opened folder and is told to use ``/proc/self/fd/<n>``: no permission above it is
  needed.
* **Who may connect** is decided by the kernel: no TCP, one socket inside the 0700 folder, and ``peer`` authentication
  that maps the operating-system user who started it to any role. There is no password to keep or to leak.
* **It never outlives its owner.** A small shell holds one end of a pipe; when the owner is gone, however it went, the
  pipe closes and the shell stops the server.
"""

import contextlib
import fcntl
import os
import pwd
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from smartgrid_ops.postgres_folder import DATABASE, alive, attach, pid_in, status_of, url_of, works_in
from smartgrid_ops.postgres_programs import (
    ENVIRONMENT,
    NOBODY,
    PostgresUnusable,
    checked,
    identity,
    major_version,
    opened,
    usable,
    wheel_binaries,
)

__all__ = ["DATABASE", "SETTINGS", "EmbeddedPostgres", "PostgresUnusable", "attach", "url_of"]

SETTINGS: Mapping[str, str] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "max_connections": "60",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "pglz",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "log",  # a refused statement is answered to its sender; its values do not belong into a log
    "log_checkpoints": "off",
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "cluster_name": "smartgrid",
}
"""What the server is started with."""

_ROLES = ("postgres", "smartgrid_owner", "smartgrid_app", "smartgrid_reader", "smartgrid_eraser")
_HEAL_S = 10.0
_START_S = 300.0
_FAST_STOP_S = 20.0
_LEFT_OVER = re.compile("pre-existing shared memory block|lock file .* already exists|is another postmaster")

# $1 pid of the server, $2 its lock file, $3 empty or the pid to watch. The pid is compared with the lock file first, so
# that a number the kernel gave to somebody else in the meantime is never signalled.
_WATCH = """
if [ -n "$3" ]; then while kill -0 "$3" 2>/dev/null; do sleep 1; done; else read -r _; fi
ours() { [ "$(head -n 1 "$2" 2>/dev/null)" = "$1" ]; }
ours "$@" && kill -INT "$1" 2>/dev/null
for _ in 1 2 3 4 5 6; do ours "$@" && kill -0 "$1" 2>/dev/null || exit 0; sleep 1; done
ours "$@" && kill -QUIT "$1" 2>/dev/null
exit 0
"""


class EmbeddedPostgres:
    """
    One PostgreSQL server below *home*.

    Args:
        home: The state folder; made (0700) if it does not exist. The server keeps its files in ``<home>/pg``.
        settings: PostgreSQL settings that take the place of those in :data:`SETTINGS`.
        binaries: Folder of ``postgres`` and ``initdb``; those of the wheel if absent.
        watched_pid: The server ends with this process; with the one that calls :meth:`start` if absent.
        on_launch: Called when the server has a process id but may still be recovering.
    """

    def __init__(
        self,
        home: Path,
        *,
        settings: Mapping[str, str] | None = None,
        binaries: Path | None = None,
        watched_pid: int | None = None,
        on_launch: Callable[[], None] = lambda: None,
    ) -> None:
        self.home = Path(os.path.realpath(home))
        self.data = self.home / "pg"
        self.log_file = self.home / "run" / "postgres.log"
        self._settings = {**SETTINGS, **(settings or {})}
        self._binaries = binaries
        self._watched_pid = watched_pid
        self._on_launch = on_launch
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None
        self._lock: int | None = None
        self._mutex = threading.RLock()
        self._stop_wanted = threading.Event()

    @property
    def pid(self) -> int | None:
        """Process id of the server, None when it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def url(self) -> str:
        """Where the server listens."""
        return url_of(self.home)

    def start(self) -> str:
        """
        Start the server, making its folder at the first time, and return its URL once it takes connections.

        What an earlier owner left behind (a server, its last sessions, its lock file) is stopped or removed first.

        Raises:
            PostgresUnusable: The text says why and what to change.
        """
        with self._mutex:
            if self.pid is None:
                self._start()
        return self.url

    def _start(self) -> None:
        self._end_watcher()  # of a server that was killed
        self._claim()
        try:
            binaries = usable(self._binaries or wheel_binaries())
            version = major_version(binaries)
            if not (self.data / "PG_VERSION").exists():
                self._make_cluster(binaries, version)
            self._check_version(version)
            self._stop_left_over()
            self._write_access_rules(version)
            self._run_until_ready(binaries)
        except OSError as error:
            self._stop()
            raise PostgresUnusable(f"{error.filename or self.data}: {error.strerror}") from error
        except BaseException:
            self._stop()
            raise

    def stop(self) -> None:
        """
        Stop the server: sessions are cut, everything committed is on disk.

        Nothing happens if it does not run; a start that another thread waits for is given up.
        """
        self._stop_wanted.set()
        with self._mutex:
            self._stop_wanted.clear()
            self._stop()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            for number, wait_s in ((signal.SIGINT, _FAST_STOP_S), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
                if process.poll() is not None:
                    break
                process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(wait_s)
        self._end_watcher()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def wait(self) -> None:
        """Return when the server has ended."""
        if (process := self._process) is not None:
            process.wait()

    def _check_version(self, version: int) -> None:
        found = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        if found != str(version):
            raise PostgresUnusable(f"{self.data} was made by PostgreSQL {found}, the binaries are of {version}")

    def _end_watcher(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        if self._watcher is not None:
            if self._watched_pid is not None:
                self._watcher.kill()
            self._watcher.wait()
            self._watcher = None

    def _claim(self) -> None:
        """Make the folders and take the lock, which the kernel gives back when this process ends."""
        if self._lock is not None:
            return
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.home / "run").mkdir(mode=0o700, exist_ok=True)
            lock = os.open(self.home / "run" / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise PostgresUnusable(f"{self.home} cannot be used: {error.strerror}; choose another home") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise PostgresUnusable(f"another process runs the PostgreSQL of {self.home}") from error
        self._lock = lock

    def _make_cluster(self, binaries: Path, version: int) -> None:
        """Make the folder beside its place and rename it, so that a crash half-way leaves nothing that looks whole."""
        new = self.home / "pg.new"
        shutil.rmtree(new, ignore_errors=True)
        try:
            new.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(new, NOBODY, NOBODY)
        except OSError as error:
            raise PostgresUnusable(f"{new} cannot be made and given to uid {NOBODY}: {error.strerror}") from error
        with opened(new) as (name, fds):
            command = [str(binaries / "initdb"), "-D", name, "-U", "postgres", "-E", "UTF8", "--locale=C"]
            command += ["--auth=reject", "--no-instructions", "--data-checksums"]
            if self._settings["fsync"] == "off":
                command.append("--no-sync")
            checked(command, new, pass_fds=fds)
            create = [str(binaries / "postgres"), "--single", "-D", name]
            create += ["-c", f"fsync={self._settings['fsync']}", "postgres"]
            checked(create, new, stdin=f"CREATE DATABASE {DATABASE}\n", pass_fds=fds)
        if version != int((new / "PG_VERSION").read_text(encoding="ascii")):
            raise PostgresUnusable(f"initdb in {binaries} is of another version than postgres")
        new.rename(self.data)  # takes the place of an empty folder, never of a full one

    def _write_access_rules(self, version: int) -> None:
        try:
            me = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError as error:
            raise PostgresUnusable(f"uid {os.geteuid()} has no name in the user database; give it one") from error
        roles = ("all",) if version >= 16 else _ROLES  # noqa: PLR2004 - older servers know no "all" here
        self._write("pg_hba.conf", "local all all peer map=home\nlocal replication all peer map=home\n")
        self._write("pg_ident.conf", "".join(f'home "{me}" {role}\n' for role in roles))

    def _write(self, name: str, text: str) -> None:
        # As the server's user: root following a link that this user planted would write anywhere.
        checked(["/bin/sh", "-c", 'cat >"$1"', "sh", name], self.data, stdin=text)

    def _stop_left_over(self) -> None:
        lock_file = self.data / "postmaster.pid"
        pid = pid_in(lock_file)
        if pid is None or not alive(pid):
            return  # PostgreSQL removes the file of a process that is gone
        if not works_in(pid, self.data):
            lock_file.unlink(missing_ok=True)  # the number belongs to somebody else by now
            return
        for number, wait_s in ((signal.SIGINT, _HEAL_S), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            if _wait(lambda: not alive(pid) or pid_in(lock_file) != pid, wait_s):
                return
        raise PostgresUnusable(f"PostgreSQL {pid} of an earlier run does not end; end it and start again")

    def _run_until_ready(self, binaries: Path) -> None:
        give_up = time.monotonic() + _HEAL_S
        while True:
            if self._stop_wanted.is_set():
                raise PostgresUnusable("PostgreSQL was stopped while it started")
            self._launch(binaries)
            self._on_launch()
            if self._ready():
                return
            tail = self._log_tail()
            if not _LEFT_OVER.search(tail) or time.monotonic() > give_up:
                raise PostgresUnusable(f"PostgreSQL did not start in {self.data}: {tail or 'it said nothing'}")
            self._end_watcher()
            time.sleep(0.2)  # the last sessions of a killed server still hold its memory

    def _launch(self, binaries: Path) -> None:
        settings = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        log = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            with opened(self.data) as (name, fds):
                self._process = subprocess.Popen(  # noqa: S603 - our own binary, our own arguments
                    [str(binaries / "postgres"), "-D", name, *settings],
                    cwd=self.data,
                    env=ENVIRONMENT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=fds,
                    start_new_session=True,  # Ctrl-C in the terminal is the owner's to handle
                    **identity(),
                )
        finally:
            os.close(log)
        lifeline, self._lifeline = os.pipe()
        watched = "" if self._watched_pid is None else str(self._watched_pid)
        try:
            self._watcher = subprocess.Popen(  # noqa: S603 - a constant script
                ["/bin/sh", "-c", _WATCH, "sh", str(self._process.pid), str(self.data / "postmaster.pid"), watched],
                stdin=lifeline,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(lifeline)

    def _ready(self) -> bool:
        """Wait until the server says so in its lock file; False if it ended."""
        process = self._process
        if process is None:
            return False

        def settled() -> bool:
            ended = process.poll() is not None or self._stop_wanted.is_set()
            return ended or status_of(self.data, process.pid) == "ready"

        _wait(settled, _START_S)
        if self._stop_wanted.is_set():
            raise PostgresUnusable("PostgreSQL was stopped while it started")
        if process.poll() is None and status_of(self.data, process.pid) != "ready":
            raise PostgresUnusable(f"PostgreSQL in {self.data} was not ready after {_START_S:.0f} s")
        return process.poll() is None

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return " ".join(self.log_file.read_text(encoding="utf-8", errors="replace").split())[-600:]
        return ""


def _wait(done: Callable[[], bool], limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
