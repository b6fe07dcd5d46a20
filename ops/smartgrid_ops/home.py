"""The state folder: who uses it, and which processes belong to it."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

MARK = "--lifeline-fd"
"""An argument that every child of a supervisor carries, by which the next one knows it again."""


class HomeInUse(Exception):
    """Another ``smartgrid up`` runs in this folder."""


class HomeUnusable(Exception):
    """The folder cannot be used; the text says why."""


class Pids(msgspec.Struct, kw_only=True):
    """
    What ``run/pids.json`` tells.

    Attributes:
        supervisor: The process of ``smartgrid up``.
        api: Processes that answer requests.
        worker: Processes that fold the log.
        postgres: The embedded server; None when it is external or down.
    """

    supervisor: int
    api: list[int] = []
    worker: list[int] = []
    postgres: int | None = None


class Home:
    """
    The state folder of one running product.

    Args:
        path: Made (0700) if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pids_file = path / "run" / "pids.json"
        self._lock: int | None = None

    @property
    def was_left(self) -> bool:
        """Whether an earlier run had no chance to tidy up."""
        return self.pids_file.exists()

    @property
    def claimed(self) -> bool:
        """Whether it is ours."""
        return self._lock is not None

    def claim(self) -> None:
        """
        Take the folder for this process; the kernel gives it back when the process ends.

        Raises:
            HomeInUse: Somebody has it; nothing was changed.
            HomeUnusable: It cannot be made, or is not ours.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / "run").mkdir(mode=0o700, exist_ok=True)
            lock = os.open(self.path / "run" / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise HomeUnusable(f"{self.path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise HomeInUse(f"{self.path} is in use by another smartgrid up") from error
        self._lock = lock
        try:
            self.path.chmod(0o700)
        except OSError as error:
            raise HomeUnusable(f"{self.path} belongs to somebody else") from error

    def write_pids(self, pids: Pids) -> None:
        """Publish *pids*; a reader sees the old file or the new one, never half of one."""
        new = self.pids_file.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(pids) + b"\n")
        new.replace(self.pids_file)

    def forget_pids(self) -> None:
        """Remove the file: nothing of ours runs."""
        self.pids_file.unlink(missing_ok=True)

    def end_left_over(self, limit_s: float = 10.0) -> list[int]:
        """
        Wait until the children of a killed supervisor are gone, and end those that are not after 1 s.

        Returns:
            The processes that had to be ended.
        """
        try:
            pids = msgspec.json.decode(self.pids_file.read_bytes(), type=Pids)
        except (OSError, msgspec.DecodeError):
            return []
        children = [pid for pid in (*pids.api, *pids.worker) if _is_child(pid)]
        if _wait(lambda: all(map(is_gone, children)), 1.0):
            return []
        ended = [pid for pid in children if _is_child(pid)]
        for pid in ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not _wait(lambda: all(map(is_gone, ended)), limit_s):
            raise HomeUnusable(f"processes {ended} of an earlier run do not end")
        return ended


def is_gone(pid: int) -> bool:
    """Return whether *pid* has ended, its files and sockets closed; somebody may have to collect it yet."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
        except (OSError, IndexError):
            return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _is_child(pid: int) -> bool:
    """Return whether *pid* is a child of some supervisor, not somebody who got its number since."""
    return pid > 1 and MARK in _command_of(pid)


def _command_of(pid: int) -> Sequence[str]:
    if sys.platform == "linux":
        try:
            return [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
        except OSError:
            return ()
    ps = ["/bin/ps", "-o", "command=", "-p", str(pid)]
    return subprocess.run(ps, capture_output=True, text=True, check=False).stdout.split()  # noqa: S603 - a constant


def _wait(done: Callable[[], bool], limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
