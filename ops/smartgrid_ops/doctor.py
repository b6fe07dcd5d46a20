"""Is what we stand on fit for the promises we make? What starts asks too, and refuses where the answer is no."""

import platform
import statistics
import sys
import time
from collections.abc import Sequence

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from smartgrid_adapters.postgres.migrate import current_version, expected_version

OLDEST_POSTGRES = 15
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
"""Settings without which an answered write can be lost."""

ARGON2_MS = (50.0, 250.0)
"""How long hashing a password should take [ms]."""


class Finding(Struct, frozen=True, kw_only=True):
    """
    One thing looked at.

    Attributes:
        name: What.
        value: What was found.
        problem: What is wrong and what to do; None if nothing is.
        refuses: Whether nothing starts with this problem.
    """

    name: str
    value: str
    problem: str | None = None
    refuses: bool = False


async def examine_store(url: str) -> list[Finding]:
    """
    Return what there is to say about the database at *url*.

    Raises:
        psycopg.OperationalError: It cannot be reached.
    """
    async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=5) as conn:
        return [await _version(conn), *[await _durable(conn, name) for name in DURABLE]]


async def examine_migrations(url: str) -> Finding:
    """Return whether the tables are those this code works with."""
    async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=5) as conn:
        found, expected = await current_version(conn), expected_version()
    problem = None if found == expected else f"this code works with {expected}: run smartgrid migrate"
    return Finding(name="migrations", value=str(found), problem=problem)


def examine_host() -> list[Finding]:
    """Return what there is to say about this machine."""
    took_ms = _argon2_ms()
    low, high = ARGON2_MS
    problem = None
    if took_ms > high:
        problem = f"above {high:.0f} ms sign-in is slow: give the process more CPU"
    elif took_ms < low:
        problem = f"below {low:.0f} ms guessing is cheap: raise the parameters of the hash"
    return [
        Finding(name="python", value=f"{platform.python_version()} on {sys.platform}"),
        Finding(name="password hash", value=f"{took_ms:.0f} ms", problem=problem),
    ]


def refusal_of(findings: Sequence[Finding]) -> str | None:
    """Return why nothing may start with *findings*, None if it may."""
    said = [f"{finding.name} is {finding.value}: {finding.problem}" for finding in findings if finding.refuses]
    return "; ".join(said) or None


async def _version(conn: AsyncConnection[TupleRow]) -> Finding:
    value = await _shown(conn, "server_version")
    too_old = conn.info.server_version < OLDEST_POSTGRES * 10_000
    problem = f"PostgreSQL {OLDEST_POSTGRES} or newer is needed" if too_old else None
    return Finding(name="postgresql", value=value, problem=problem, refuses=too_old)


async def _durable(conn: AsyncConnection[TupleRow], name: str) -> Finding:
    value = await _shown(conn, name)
    off = value == "off"
    return Finding(
        name=name, value=value, problem="answered writes can be lost: turn it on" if off else None, refuses=off
    )


async def _shown(conn: AsyncConnection[TupleRow], name: str) -> str:
    row = await (await conn.execute("SELECT current_setting(%s)", (name,))).fetchone()
    return str(row[0]) if row else ""


def _argon2_ms() -> float:
    from argon2 import PasswordHasher  # noqa: PLC0415 - what serves needs only the store's part of this module

    hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
    took: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        hasher.hash("smartgrid doctor")
        took.append((time.perf_counter() - start) * 1000)
    return statistics.median(took)
