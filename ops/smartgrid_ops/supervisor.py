"""
``smartgrid up``: PostgreSQL, the API and the worker as children of one process that keeps them running.

The supervisor binds the port (so it knows at once whether that is free) and hands the socket on; while an API process
is replaced, new connections wait in its queue instead of being refused. It imports neither the web framework nor a
database driver: it must be small, quick, and the last thing that breaks.
"""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

import structlog

from smartgrid_ops import listener
from smartgrid_ops.embedded_postgres import EmbeddedPostgres, PostgresUnusable
from smartgrid_ops.exits import CRASH, DRAINED, HOME_IN_USE, PORT_IN_USE, SETTING, Exit
from smartgrid_ops.home import MARK, Home, HomeInUse, HomeUnusable, Pids
from smartgrid_ops.logs import configure
from smartgrid_ops.settings import PORTS, Settings

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 1.0
"""However often it dies, a child is back within 2 s, of which it needs about one to start [s]."""
STABLE_S = 30.0
"""A child that lived this long starts again without delay [s]."""

BUSY_S = 34.0
"""How long a drain may take after the drain delay [s]; then what is left is ended."""
WORKER_S = 5.0
LEFT_OVER_S = 5.0
SECOND_SIGNAL_S = 0.2
"""Two signals closer than this are one: a terminal and a shell may both pass on the same Ctrl-C."""

log = structlog.get_logger("smartgrid.supervisor")


class Child:
    """
    One process that is kept running.

    Attributes:
        name: ``api`` or ``worker``.
        command: Arguments after the interpreter.
        descriptors: What it inherits. The listening socket is for the API alone: a copy elsewhere would keep it open.
        process: The running one, None between two.
        due: When to start it again, on the monotonic clock [s]; None while it runs.
    """

    def __init__(self, name: str, command: Sequence[str], descriptors: Sequence[int]) -> None:
        self.name = name
        self.command = command
        self.descriptors = tuple(descriptors)
        self.process: subprocess.Popen[bytes] | None = None
        self.due: float | None = 0.0
        self._delay_s = FIRST_DELAY_S
        self._started = 0.0

    @property
    def pids(self) -> list[int]:
        """Its process id, while it runs."""
        return [self.process.pid] if self.process and self.process.poll() is None else []

    def start(self, environ: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start it in a session of its own: Ctrl-C in the terminal is for the supervisor alone."""
        again = ["--restarted"] if self._started and self.name == "api" else []
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own arguments
            [sys.executable, "-P", "-m", "smartgrid_ops.cli", *self.command, *again],
            stdin=subprocess.DEVNULL,
            pass_fds=self.descriptors,
            env=environ,
            start_new_session=True,
        )
        self.due = None
        self._started = time.monotonic()
        return self.process

    def ended(self) -> float:
        """Note that it ended; return how long to wait before the next start [s]."""
        now = time.monotonic()
        if now - self._started > STABLE_S:
            self._delay_s = FIRST_DELAY_S
        delay_s, self._delay_s = self._delay_s, min(LONGEST_DELAY_S, 2 * self._delay_s)
        self.due = now + delay_s
        return delay_s


class Supervisor:
    """
    Everything that runs on one machine.

    Args:
        settings: Where and how.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = Home(settings.home)
        self._events: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()
        self._postgres = None if settings.pg_url else EmbeddedPostgres(settings.home, on_launch=self._on_launch)
        self._children: list[Child] = []
        self._socket: socket.socket | None = None
        self._lifeline: tuple[int, int] | None = None
        self._signalled: float | None = None
        self._stopping = threading.Event()

    def run(self) -> int:
        """Run until a signal, and return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            self._home.claim()
            configure("supervisor", self._settings.logs)
            self._start()
            code = self._watch()
        except HomeInUse as error:
            return _told(HOME_IN_USE, error)
        except listener.PortInUse as error:
            code = _told(PORT_IN_USE, error)
        except (HomeUnusable, PostgresUnusable, OSError) as error:
            code = _told(SETTING, error)
        except Exit as end:
            code = end.code
        except Exception as error:  # whatever it is, nothing may be left running
            log.error("crash", exc_info=error)  # noqa: TRY400 - formatted like all others
            code = CRASH
        clean = self._drain()
        return code if clean or code else CRASH

    def _start(self) -> None:
        patience_s = LEFT_OVER_S if self._home.was_left else 0.0
        if ended := self._home.end_left_over():
            log.warning("ended what an earlier run left behind", count=len(ended))
        port = self._settings.port or PORTS["gateway"]
        self._socket = _bound(self._settings.host, port, patience_s)
        self._check_signal()
        if self._postgres is not None:
            self._postgres.start()
            self._publish()
            threading.Thread(target=self._keep_postgres, args=(self._postgres,), name="postgres", daemon=True).start()
        self._lifeline = os.pipe()
        listening, following = self._socket.fileno(), self._lifeline[0]
        api = ["serve", "gateway", "--listen-fd", str(listening), MARK, str(following)]
        self._children = [
            Child("api", api, (listening, following)),
            Child("worker", ["worker", MARK, str(following)], (following,)),
        ]
        log.info("starting", address=self._settings.host, port=port)

    def _on_launch(self) -> None:
        self._events.put(("postgres", None))

    def _keep_postgres(self, postgres: EmbeddedPostgres) -> None:
        """
        Start the server again whenever it ends.

        Recovery takes a while and a full disk longer; until then the children answer that the store is not there.
        """
        delay_s = FIRST_DELAY_S
        while True:
            postgres.wait()
            if self._stopping.is_set():
                return
            log.error("PostgreSQL ended")
            self._events.put(("postgres", None))
            try:
                postgres.start()
            except PostgresUnusable as error:
                if self._stopping.wait(delay_s):
                    return
                log.error("PostgreSQL does not start", delay_s=delay_s, exc_info=error)  # noqa: TRY400 - formatted like all others
                delay_s = min(LONGEST_DELAY_S, 2 * delay_s)
                continue
            delay_s = FIRST_DELAY_S
            log.info("PostgreSQL is back")

    def _watch(self) -> int:
        """Keep everything running until the first signal."""
        while True:
            self._check_signal()
            for child in self._children:
                if child.due is not None and child.due <= time.monotonic():
                    self._start_child(child)
            due = [child.due for child in self._children if child.due is not None]
            wait_s = max(0.0, min(due) - time.monotonic()) if due else None
            try:
                kind, what = self._events.get(timeout=wait_s)
            except queue.Empty:
                continue
            if kind == "postgres":
                self._publish()
            elif kind == "child" and isinstance(what, Child):
                self._on_end(what)

    def _start_child(self, child: Child) -> None:
        environ = {**os.environ, "SMARTGRID_HOME": str(self._settings.home)}
        process = child.start(environ)
        threading.Thread(target=self._follow, args=(child, process), name=child.name, daemon=True).start()
        self._publish()

    def _follow(self, child: Child, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._events.put(("child", child))

    def _on_end(self, child: Child) -> None:
        code = child.process.returncode if child.process else None
        if code in (SETTING, PORT_IN_USE):
            raise Exit(code)  # it said why on stderr, and starting it again would not help
        delay_s = child.ended()
        log.error("child ended", child=child.name, exit_code=code, delay_s=delay_s)
        self._publish()

    def _publish(self) -> None:
        by_name = {child.name: child.pids for child in self._children}
        postgres = self._postgres.pid if self._postgres else None
        self._home.write_pids(Pids(supervisor=os.getpid(), postgres=postgres, **by_name))

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signalled is None:
            self._signalled = now
            self._events.put(("signal", number))
        elif now - self._signalled > SECOND_SIGNAL_S:
            self._end_at_once()

    def _check_signal(self) -> None:
        if self._signalled is not None:
            raise Exit(DRAINED)

    def _end_at_once(self) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.kill()
        if self._postgres is not None and (pid := self._postgres.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)
        self._home.forget_pids()
        os._exit(CRASH)

    def _drain(self) -> bool:
        """
        Stop the API, then the worker its last answers may wait for, then PostgreSQL.

        Returns:
            Whether all of them ended by themselves.
        """
        if not self._home.claimed:
            return True
        self._stopping.set()
        log.info("stopping")
        if self._socket is not None:
            self._socket.close()  # the API's copy is the last one: it decides when to refuse
        end = time.monotonic() + self._settings.drain_delay_s + BUSY_S
        clean = True
        for child in self._children:
            limit_s = end - time.monotonic() - (WORKER_S if child.name == "api" else 0.0)
            clean = _stop(child, max(1.0, limit_s)) and clean
        if self._postgres is not None:
            self._postgres.stop()
        self._home.forget_pids()
        log.info("stopped")
        return clean


def _stop(child: Child, limit_s: float) -> bool:
    process = child.process
    if process is None or process.poll() is not None:
        return True
    process.terminate()
    try:
        return process.wait(limit_s) in (0, -signal.SIGTERM)  # the latter before it could handle signals
    except subprocess.TimeoutExpired:
        log.warning("child did not end in time", child=child.name, wait_s=round(limit_s, 1))
        process.kill()
        process.wait()
        return False


def _bound(host: str, port: int, patience_s: float) -> socket.socket:
    """Bind; a process that was ended this instant may hold the port until its last thread is gone."""
    end = time.monotonic() + patience_s
    while True:
        try:
            return listener.bind(host, port)
        except listener.PortInUse:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _told(code: int, error: Exception) -> int:
    sys.stderr.write(f"smartgrid: {error}\n")
    return code
