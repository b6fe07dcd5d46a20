"""An event loop without a clock, a socket or a thread: time passes when nothing else can happen."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

MOST_STEPS = 200_000
"""A run that takes more is stuck in a circle."""


class Stuck(Exception):
    """Nothing can happen any more, or the same things happen without end."""


class _Time:
    """Stands where a loop has its selector: it is asked to wait, and says that the time is over."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0

    def select(self, timeout: float | None) -> list[Any]:
        self.steps += 1
        if timeout is None:
            raise Stuck("nobody will ever wake up")
        if self.steps > MOST_STEPS:
            raise Stuck(f"{MOST_STEPS} steps")
        self.now += max(0.0, timeout)
        return []


class SimulatedLoop(asyncio.BaseEventLoop):
    """
    Runs callbacks in the order in which they became due, and jumps to the next timer.

    What happens when is decided by the waits that actors draw from their seed, and by nothing else.
    """

    def __init__(self) -> None:
        super().__init__()
        self._clock_resolution = 1e-9
        self._selector = _Time()

    def time(self) -> float:
        """Return the virtual time [s]."""
        return self._selector.now

    def end(self) -> None:
        """Cancel all tasks until none is left."""
        self.set_exception_handler(lambda _, __: None)
        for _ in range(100):
            tasks = asyncio.all_tasks(self)
            if not tasks:
                break
            self._selector.steps = 0
            for task in tasks:
                task.cancel()
            self.call_later(1000, self.stop)
            self.run_forever()
        self.close()

    def _process_events(self, event_list: list[Any]) -> None:
        """Do nothing: nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Do nothing: no other thread wakes us up."""


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* on a loop of its own; what it leaves running is cancelled."""
    loop = SimulatedLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.end()
