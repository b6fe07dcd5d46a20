"""Secrets that are made at the first start and kept in files that only their owner can read."""

import os
import secrets
from pathlib import Path

SECRET_BYTES = 32


def ensure_secret(path: Path) -> Path:
    """
    Return *path*, made with fresh random bytes if it does not exist.

    Guarantees:
        Processes that start together find the same bytes: the file appears whole, and once.
    """
    if path.exists():
        return path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            return path  # another process was quicker
    finally:
        fresh.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path
