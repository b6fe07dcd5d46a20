"""Processes that die, freeze and lose what they asked for, at every call of a port, as a seed says."""

import asyncio
import hashlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from msgspec import Struct

T = TypeVar("T")


class Died(BaseException):
    """The end of a process: no code of ours handles it."""


class Odds(Struct, frozen=True, kw_only=True):
    """
    How often what happens at a port call.

    Attributes:
        crash: The process dies, before or after the call.
        unavailable: The call is not made, and says so.
        unknown: The call is made, and its answer is lost.
        freeze: The process stands still for longer than a lease.
        drop: A request or an answer between client and server is lost.
        repeat: A request arrives twice.
        slow: A call takes a hundred times as long.
    """

    crash: float = 0.0
    unavailable: float = 0.0
    unknown: float = 0.0
    freeze: float = 0.0
    drop: float = 0.0
    repeat: float = 0.0
    slow: float = 0.0


CALM = Odds()


class Chance:
    """
    Decides everything that is left open, and keeps a hash of all that happened.

    Args:
        seed: Of all decisions.

    Attributes:
        odds: What may go wrong at present.
        draw: The decisions.
        steps: How many things happened.
        kinds: How often each fault happened.
    """

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(f"simulation {seed}")
        self.odds = CALM
        self.steps = 0
        self.kinds: dict[str, int] = {}
        self._hash = hashlib.sha256()
        self.lines: list[str] | None = None

    def note(self, *what: object) -> None:
        """Put a step into the trace."""
        self.steps += 1
        line = f"{asyncio.get_running_loop().time():.9f} {what!r}"
        self._hash.update(line.encode())
        if self.lines is not None:
            self.lines.append(line)

    @property
    def trace(self) -> str:
        """Hash of all steps so far."""
        return self._hash.hexdigest()

    def happens(self, kind: str) -> bool:
        """Return whether *kind* happens now."""
        odds: float = getattr(self.odds, kind)
        if odds <= 0 or self.draw.random() >= odds:
            return False
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        return True

    async def wait(self) -> None:
        """Take some time, so that others come first or last."""
        longest = 0.3 if self.happens("slow") else 0.003
        await asyncio.sleep(self.draw.random() * longest)


class Process:
    """
    What dies as one.

    Args:
        name: For the trace.
        chance: When.
        after_call: Called after each port call of it, wherever that led.
    """

    def __init__(self, name: str, chance: Chance, after_call: Callable[[], Awaitable[None]]) -> None:
        self.name = name
        self.chance = chance
        self.dead = False
        self.ended = asyncio.Event()
        self._frozen_until = 0.0
        self._after_call = after_call
        self.on_death: list[Callable[[], None]] = []

    def die(self) -> None:
        """End now: nothing of it runs on, and its connections are gone."""
        if not self.dead:
            self.dead = True
            self.chance.note(self.name, "dies")
            for drop in self.on_death:
                drop()
            self.ended.set()
        raise Died

    async def alive(self) -> None:
        """Go on, unless dead; wait while frozen."""
        loop = asyncio.get_running_loop()
        while not self.dead and loop.time() < self._frozen_until:
            await asyncio.sleep(self._frozen_until - loop.time())
        if self.dead:
            raise Died

    async def call(
        self,
        name: str,
        make: Callable[[], Awaitable[T]],
        unavailable: Callable[[str], Exception],
        unknown: Callable[[str], Exception] | None = None,
    ) -> T:
        """
        Make a port call, with whatever goes wrong.

        Args:
            name: For the trace.
            make: The call.
            unavailable: What is raised when it was not made.
            unknown: What is raised when its answer was lost; absent: the same.
        """
        chance = self.chance
        await self.alive()
        chance.note(self.name, name)
        await chance.wait()
        await self.alive()
        self._strike()
        if chance.happens("unavailable"):
            raise unavailable(f"{name} was not reached")
        result = await make()
        await self._after_call()
        self._strike()
        if chance.happens("unknown"):
            raise (unknown or unavailable)(f"the answer of {name} was lost")
        await chance.wait()
        await self.alive()
        return result

    def _strike(self) -> None:
        if self.chance.happens("crash"):
            self.die()
        if self.chance.happens("freeze"):
            self._frozen_until = asyncio.get_running_loop().time() + 1.0 + 6.0 * self.chance.draw.random()


class Port:
    """
    A port as a process sees it: every call of it goes through :meth:`Process.call`.

    Args:
        target: What is behind it.
        process: Whose it is.
        name: For the trace.
        unavailable: What its calls raise when nothing was done.
        unknown: What they raise when nobody knows; absent: the same.
    """

    def __init__(
        self,
        target: object,
        process: Process,
        name: str,
        unavailable: Callable[[str], Exception],
        unknown: Callable[[str], Exception] | None = None,
    ) -> None:
        self._target = target
        self._process = process
        self._name = name
        self._unavailable = unavailable
        self._unknown = unknown

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._target, attribute)
        name = f"{self._name}.{attribute}"
        if not callable(value):
            return self._inner(value, name)

        def call(*args: object, **kwargs: object) -> Any:
            result: Any = value(*args, **kwargs)
            if hasattr(result, "__aenter__"):
                return self._context(result, name)
            if asyncio.iscoroutine(result):
                return self._call(result, name)
            return result

        return call

    def _inner(self, value: object, name: str) -> object:
        return Port(value, self._process, name, self._unavailable, self._unknown)

    async def _call(self, coroutine: Any, name: str) -> Any:
        try:
            return await self._process.call(name, lambda: coroutine, self._unavailable, self._unknown)
        finally:
            coroutine.close()  # does nothing to one that ran

    @asynccontextmanager
    async def _context(self, context: AbstractAsyncContextManager[Any], name: str) -> AsyncGenerator[Any]:
        entered = False

        async def enter() -> Any:
            nonlocal entered
            value = await context.__aenter__()
            entered = True
            return value

        try:
            value = await self._process.call(f"{name}.enter", enter, self._unavailable, self._unknown)
            yield self._inner(value, name)
            await self._process.alive()
        except BaseException as error:
            if entered:
                await context.__aexit__(type(error), error, error.__traceback__)
            raise
        left = False

        async def leave() -> None:
            nonlocal left
            left = True
            await context.__aexit__(None, None, None)

        try:
            await self._process.call(f"{name}.exit", leave, self._unavailable, self._unknown)
        except BaseException as error:
            if not left:
                await context.__aexit__(type(error), error, error.__traceback__)
            raise
