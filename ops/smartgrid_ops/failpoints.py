"""
Dies, fails or hangs at the k-th call of a port, to show that nothing depends on where a process ends.

Only the composition root knows of it: it wraps what stands behind a port, and counts every method of it, of what its
methods yield (the tables of a step) and of the ports among its attributes. So a new call is covered the day it appears.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Literal, TypeVar, cast, get_args

from msgspec import Struct

T = TypeVar("T")

When = Literal["before", "after"]
How = Literal["die", "raise", "hang"]

_PLAIN = (str, bytes, int, float, bool, type(None), tuple, list, dict, set, frozenset, Struct)


class Failpoint(Struct, frozen=True, kw_only=True):
    """
    Where a component fails, and how.

    Attributes:
        component: ``ingestion`` or ``projections``.
        call: Number of the port call, from 1.
        when: Before the call is made or after it was carried out.
        how: ``die`` ends the process with no cleanup, ``raise`` is an outage at that call, ``hang`` never returns.
    """

    component: str
    call: int
    when: When
    how: How


def parse(text: str) -> Failpoint:
    """
    Read ``<component>:<k>:<before|after>:<die|raise|hang>``.

    Raises:
        ValueError: It reads otherwise.
    """
    component, call, when, how = text.split(":")
    if when not in get_args(When) or how not in get_args(How):
        raise ValueError(text)
    return Failpoint(component=component, call=int(call), when=cast("When", when), how=cast("How", how))


def end_process() -> None:
    """Die as from kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


class Calls:
    """
    The port calls of one component, counted.

    Args:
        point: Where to fail; None counts only.
        error: Makes what ``raise`` raises.
        die: Ends the process; tests that play one raise instead.

    Attributes:
        names: The calls so far, as ``port.method``, in order.
        blocking: Numbers of those that are not awaited: hanging there stops the whole process.
    """

    def __init__(
        self, point: Failpoint | None, *, error: Callable[[str], Exception], die: Callable[[], None] = end_process
    ) -> None:
        self._point = point
        self._error = error
        self._die = die
        self._dead = False
        self.names: list[str] = []
        self.blocking: set[int] = set()

    def wrap(self, port: T, name: str = "") -> T:
        """Return *port* with every call counted."""
        return cast("T", _Counted(port, self, name or type(port).__name__))

    def begin(self, name: str) -> int:
        """Count a call; return its number."""
        if self._dead:
            self._die()
        self.names.append(name)
        return len(self.names)

    async def reach(self, number: int, when: When) -> None:
        """Fail here if this is the place."""
        if self._fails(number, when) and self._point is not None and self._point.how == "hang":
            await asyncio.Event().wait()

    def reach_now(self, number: int, when: When) -> None:
        """Do so in a call that is not awaited."""
        self.blocking.add(number)
        if self._fails(number, when):
            while True:
                time.sleep(3600)

    def _fails(self, number: int, when: When) -> bool:
        point = self._point
        if point is None or point.call != number or point.when != when:
            return False
        if point.how == "die":
            self._dead = True
            self._die()
        if point.how == "raise":
            raise self._error(f"failpoint at call {number}, {self.names[number - 1]}")
        return True


def calls_of(text: str | None, component: str, error: Callable[[str], Exception]) -> Calls | None:
    """Return the counter of *component* if ``SMARTGRID_FAILPOINT`` says *text* and means it."""
    point = None if text is None else parse(text)
    return None if point is None or point.component != component else Calls(point, error=error)


def counted(calls: Calls | None, port: T, name: str) -> T:
    """Return *port*, counted if *calls* is there."""
    return port if calls is None else calls.wrap(port, name)


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN)


class _Counted:
    """A port, its calls counted."""

    def __init__(self, target: object, calls: Calls, name: str) -> None:
        self._target = target
        self._calls = calls
        self._name = name

    def __getattr__(self, attribute: str) -> Any:  # noqa: ANN401  # whatever the port has
        value = getattr(self._target, attribute)
        name = f"{self._name}.{attribute}"
        if callable(value):
            return _method(value, self._calls, name)
        return value if _is_plain(value) else _Counted(value, self._calls, name)


def _method(method: Callable[..., Any], calls: Calls, name: str) -> Callable[..., Any]:
    def call(*args: object, **kwargs: object) -> Any:  # noqa: ANN401  # whatever the method returns
        result = method(*args, **kwargs)
        if hasattr(result, "__aenter__"):
            return _CountedContext(result, calls, name)
        if hasattr(result, "__await__"):
            return _awaited(result, calls, name)
        number = calls.begin(name)
        calls.reach_now(number, "before")  # the result is thrown away: what is not awaited has no effect outside
        calls.reach_now(number, "after")
        return result

    return call


async def _awaited(result: Awaitable[T], calls: Calls, name: str) -> T:
    try:
        number = calls.begin(name)
        await calls.reach(number, "before")
    except BaseException:
        if asyncio.iscoroutine(result):
            result.close()
        raise
    done = await result
    await calls.reach(number, "after")
    return done


class _CountedContext:
    """A context of a port: entering and leaving are calls, what it yields is a port."""

    def __init__(self, context: Any, calls: Calls, name: str) -> None:  # noqa: ANN401  # an asynchronous context manager
        self._context = context
        self._calls = calls
        self._name = name

    async def __aenter__(self) -> object:
        number = self._calls.begin(f"{self._name}.enter")
        await self._calls.reach(number, "before")
        value = await self._context.__aenter__()
        try:
            await self._calls.reach(number, "after")
        except BaseException as error:
            await self._context.__aexit__(type(error), error, error.__traceback__)
            raise
        return value if _is_plain(value) else _Counted(value, self._calls, self._name)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if error is not None:
            suppressed: bool | None = await self._context.__aexit__(kind, error, trace)
            return suppressed
        number = self._calls.begin(f"{self._name}.exit")
        try:
            await self._calls.reach(number, "before")
        except BaseException as own:
            await self._context.__aexit__(type(own), own, own.__traceback__)
            raise
        await self._context.__aexit__(None, None, None)
        await self._calls.reach(number, "after")
        return None
