"""
Ends requests that are past their deadline.

One timer for all: a timer per request costs more than everything else that the front does on a hot path.
"""

import asyncio
from time import monotonic

from smartgrid_http.call import Call

TICK_S = 0.05


class Deadlines:
    """The requests that are worked on. A task that is past its deadline is cancelled, once."""

    def __init__(self) -> None:
        self._open: dict[asyncio.Task[object], Call] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, call: Call) -> asyncio.Task[object]:
        """Watch the running task until :meth:`leave`; ``call.deadline`` may move meanwhile."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request needs a task")  # a mistake of the server, never of a client
        self._open[task] = call
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        return task

    def leave(self, task: asyncio.Task[object]) -> None:
        """Stop watching *task*."""
        self._open.pop(task, None)
        self._expired.discard(task)

    def expired(self, task: asyncio.Task[object]) -> bool:
        """Return whether *task* was cancelled for its deadline and nothing else, and take that cancellation back."""
        return task in self._expired and task.uncancel() == 0

    def _tick(self) -> None:
        self._timer = None
        now = monotonic()
        for task, call in self._open.items():
            if call.deadline <= now and task not in self._expired:
                self._expired.add(task)
                task.cancel()
        if self._open:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
