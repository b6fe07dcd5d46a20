"""How readers learn of new events: LISTEN, then read, then wait, with a poll for the notification that got lost."""

import asyncio
import contextlib
from heapq import heappop, heappush

import psycopg
from psycopg import sql

from smartgrid_adapters.postgres.pool import Pool, dedicated, run_safely
from smartgrid_commands.ports import StoreUnavailable
from smartgrid_schemas.envelope import LOGS

CHANNEL = "smartgrid_log"
NOTIFY_PAUSE_S = 0.005
"""Least time between two notifications of this process [s]."""

POLL_S = 0.25
"""How long a waiting reader trusts in notifications before it looks [s]."""

_RECONNECT_S = 0.2
_CHECK_S = 1.0
_HEADS = sql.SQL(" UNION ALL ").join(
    sql.SQL("SELECT {}, coalesce((SELECT last_position FROM {} ORDER BY last_position DESC LIMIT 1), 0)").format(
        sql.Literal(log), sql.Identifier(f"{log}_commits")
    )
    for log in LOGS
)


class LogTail:
    """
    Knows how far each log is, in this process and from others.

    Attributes:
        listening: Whether notifications come in at present.

    Guarantees:
        A position it tells is visible to every later read.
    """

    def __init__(self, pool: Pool, *, poll_s: float = POLL_S) -> None:
        self._pool = pool
        self._poll_s = poll_s
        self._heads: dict[str, int] = dict.fromkeys(LOGS, 0)
        self._waiters: dict[str, list[tuple[int, int, asyncio.Future[None]]]] = {log: [] for log in LOGS}
        self._serial = 0
        self._to_notify: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._polling: dict[str, asyncio.Task[int]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.listening = False

    async def start(self) -> None:
        """Listen, and notify others, until :meth:`stop`."""
        self._tasks = [
            asyncio.create_task(self._listen_forever(), name="listen"),
            asyncio.create_task(self._notify_forever(), name="notify"),
        ]

    async def stop(self) -> None:
        """Stop listening and notifying."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def announce(self, log: str, position: int) -> None:
        """Tell everybody that *position* of *log* is committed; call it after the commit."""
        self._advance(log, position)
        self._to_notify[log] = max(position, self._to_notify.get(log, 0))
        self._wake.set()

    async def head(self, log: str) -> int:
        """Return the position of the newest visible event of *log*, read from the database."""
        heads = await run_safely(self._pool, _read_heads)
        for name, position in heads.items():
            self._advance(name, position)
        return heads[log]

    async def wait_for(self, log: str, position: int, *, timeout_s: float) -> bool:
        """Wait until *position* is visible; return whether it is."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        if not self.listening and self._heads[log] < position:
            await self._poll(log)
        while self._heads[log] < position:
            left_s = end - loop.time()
            if left_s <= 0:
                return False
            waiter: asyncio.Future[None] = loop.create_future()
            self._serial += 1
            heappush(self._waiters[log], (position, self._serial, waiter))
            try:
                async with asyncio.timeout(min(left_s, self._poll_s)):
                    await waiter
            except TimeoutError:
                with contextlib.suppress(StoreUnavailable):  # it may be back within the time given
                    await self._poll(log)
        return True

    async def _poll(self, log: str) -> None:
        """Look at the database; those who want to at the same time look together."""
        task = self._polling.get(log)
        if task is None or task.done():
            task = self._polling[log] = asyncio.create_task(self.head(log), name=f"poll {log}")
        await asyncio.shield(task)

    def _advance(self, log: str, position: int) -> None:
        if position <= self._heads[log]:
            return
        self._heads[log] = position
        waiters = self._waiters[log]
        while waiters and (waiters[0][0] <= position or waiters[0][2].done()):
            _, _, waiter = heappop(waiters)
            if not waiter.done():
                waiter.set_result(None)

    async def _listen_forever(self) -> None:
        connect = dedicated(self._pool)
        while True:
            with contextlib.suppress(psycopg.Error):
                async with await connect() as conn:
                    await conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                    while True:  # each round also shows whether the connection still lives
                        for log, position in (await _read_heads(conn)).items():
                            self._advance(log, position)
                        self.listening = True
                        async with contextlib.aclosing(conn.notifies(timeout=_CHECK_S)) as notifications:
                            async for notification in notifications:
                                self._hear(notification.payload)
            self.listening = False
            await asyncio.sleep(_RECONNECT_S)

    def _hear(self, payload: str) -> None:
        log, _, position = payload.partition(" ")
        if log in self._heads and position.isdecimal():
            self._advance(log, int(position))

    async def _notify_forever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            news, self._to_notify = self._to_notify, {}
            payloads = [f"{log} {position}" for log, position in news.items()]
            with contextlib.suppress(psycopg.Error):  # those who wait also poll
                async with self._pool.connection() as conn:
                    await conn.execute("SELECT pg_notify(%s, n) FROM unnest(%s::text[]) n", (CHANNEL, payloads))
            await asyncio.sleep(NOTIFY_PAUSE_S)


async def _read_heads(conn: psycopg.AsyncConnection[tuple[object, ...]]) -> dict[str, int]:
    cursor = await conn.execute(_HEADS)
    return {str(log): int(str(position)) for log, position in await cursor.fetchall()}
