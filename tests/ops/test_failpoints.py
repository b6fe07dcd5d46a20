"""Every call of a port is a place to fail, found by itself."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from smartgrid_ops.failpoints import Calls, How, When, calls_of, counted, parse


class Died(BaseException):
    """What stands for the end of a process."""


def die() -> None:
    raise Died


@dataclass
class Inner:
    done: list[str] = field(default_factory=list[str])

    async def look(self) -> int:
        self.done.append("look")
        return 1


@dataclass
class Tables:
    inner: Inner = field(default_factory=Inner)
    size: int = 3

    async def add(self, number: int) -> None:
        self.inner.done.append(f"add {number}")

    def packed(self) -> bytes:
        return b"packed"


@dataclass
class Port:
    tables: Tables = field(default_factory=Tables)

    @asynccontextmanager
    async def step(self) -> AsyncGenerator[Tables]:
        self.tables.inner.done.append("begin")
        try:
            yield self.tables
        except BaseException:
            self.tables.inner.done.append("rollback")
            raise
        self.tables.inner.done.append("commit")


CALLS = ["port.step.enter", "port.step.packed", "port.step.add", "port.step.inner.look", "port.step.exit"]
DONE = ["begin", "add 3", "look", "commit"]


async def scenario(port: Port, calls: Calls) -> None:
    async with calls.wrap(port, "port").step() as tables:
        assert tables.packed() == b"packed"
        await tables.add(tables.size)
        assert await tables.inner.look() == 1


def failing(number: int, when: When, how: How) -> Calls:
    return Calls(parse(f"c:{number}:{when}:{how}"), error=OSError, die=die)


async def test_all_calls_are_counted_those_of_what_ports_yield_and_have_too() -> None:
    port, calls = Port(), Calls(None, error=OSError)

    await scenario(port, calls)

    assert calls.names == CALLS
    assert port.tables.inner.done == DONE


@pytest.mark.parametrize(("how", "error"), [("die", Died), ("raise", OSError)])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, len(CALLS) + 1))
async def test_it_fails_at_its_call_and_nowhere_else(
    number: int, when: When, how: How, error: type[BaseException]
) -> None:
    port, calls = Port(), failing(number, when, how)

    with pytest.raises(error):
        await scenario(port, calls)

    assert calls.names == CALLS[:number]
    committed = number == len(CALLS) and when == "after"
    assert ("commit" in port.tables.inner.done) == committed
    assert ("rollback" in port.tables.inner.done) == (not committed and (number, when) != (1, "before"))


async def test_the_dead_make_no_more_calls() -> None:
    port, calls = Port(), failing(1, "before", "die")
    with pytest.raises(Died):
        await scenario(port, calls)

    with pytest.raises(Died):
        await scenario(port, calls)

    assert port.tables.inner.done == []


async def test_a_hanging_call_never_returns() -> None:
    port = Port()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(scenario(port, failing(3, "after", "hang")), 0.05)

    assert port.tables.inner.done == ["begin", "add 3", "rollback"]


def test_only_the_component_that_is_named_is_counted() -> None:
    port = Port()
    calls = calls_of("projections:1:after:raise", "projections", OSError)

    assert counted(calls, port, "port") is not port
    assert counted(calls_of("projections:1:after:raise", "ingestion", OSError), port, "port") is port
    assert counted(calls_of(None, "projections", OSError), port, "port") is port


def test_dying_leaves_no_time_for_anything() -> None:
    code = "import atexit; from smartgrid_ops.failpoints import end_process; atexit.register(print, 1); end_process()"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
