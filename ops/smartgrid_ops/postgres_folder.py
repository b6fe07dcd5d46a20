"""What the folder of a PostgreSQL server tells: whether one runs in it, and where it is reached."""

import contextlib
import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from smartgrid_ops.postgres_programs import PostgresUnusable

DATABASE = "smartgrid"

_SOCKET = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 100  # the kernel takes 107 bytes on Linux and 103 on macOS


def attach(home: Path) -> str | None:
    """Return the URL of the server that runs below *home*, None if none does."""
    home = Path(os.path.realpath(home))
    data = home / "pg"
    pid = pid_in(data / "postmaster.pid")
    if pid is None or not alive(pid) or not works_in(pid, data) or status_of(data, pid) != "ready":
        return None
    return url_of(home)


def url_of(home: Path) -> str:
    """Return the URL under which the server below *home* is reached while it runs."""
    folder = str(Path(os.path.realpath(home)) / "pg")
    if len(os.fsencode(f"{folder}/{_SOCKET}")) > _LONGEST_SOCKET_PATH:
        folder = _short_name_of(folder)
    return f"postgresql://postgres@/{DATABASE}?host={quote(folder, safe='')}&port=5432"


def _short_name_of(folder: str) -> str:
    """Return a short link to *folder*: the path of a socket must fit into about 100 bytes."""
    ours = Path(tempfile.gettempdir()) / f"smartgrid-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        ours.mkdir(mode=0o700)
    found = ours.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PostgresUnusable(f"{ours} is not a private folder of uid {os.geteuid()}; remove it")
    link = ours / hashlib.sha256(folder.encode()).hexdigest()[:16]
    with contextlib.suppress(FileExistsError):
        link.symlink_to(folder)
    if len(os.fsencode(f"{link}/{_SOCKET}")) > _LONGEST_SOCKET_PATH:
        raise PostgresUnusable(f"{folder} is too long for a socket and so is {link}; choose another home or TMPDIR")
    return str(link)


def pid_in(lock_file: Path) -> int | None:
    """Return the process that a lock file names, None if there is none."""
    try:
        return int(lock_file.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def status_of(data: Path, pid: int) -> str:
    """Return what the server *pid* says of itself in its lock file: the eighth line."""
    with contextlib.suppress(OSError):
        lines = (data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        if len(lines) > 7 and lines[0] == str(pid):  # noqa: PLR2004 - the eighth of eight lines
            return lines[7].strip()
    return ""


def alive(pid: int) -> bool:
    """Return whether *pid* still does something: one that has ended and waits to be collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except (OSError, IndexError):  # no /proc here, or it ended this instant
        return sys.platform != "linux"


def works_in(pid: int, folder: Path) -> bool:
    """Return whether *pid* is a server in *folder*; True where that cannot be told, the lock file says so after all."""
    if sys.platform != "linux":
        return True
    try:
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    except OSError:
        return False
