"""What the probes answer: results of checks that run beside the requests, never inside of them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

Check = Callable[[], Awaitable[bool]]

INTERVAL_S = 1.0
LIMIT_S = 1.0
MAX_LOOP_LAG_S = 0.5


@dataclass(kw_only=True)
class HealthBoard:
    """
    The newest result of each check.

    Attributes:
        needed: Checks that make this process ready, by name: ``store``, ``migrations``.
        wanted: Checks that only degrade it: ``bus``, ``cache``.
        results: Newest results; a check that never ran has none.
        draining: Whether this process is on its way out.
        loop_lag_s: How late the last tick came [s].
        service: Name of this process in ``/health``.
        services: Services that answer here, or through here.
    """

    needed: dict[str, Check] = field(default_factory=dict[str, Check])
    wanted: dict[str, Check] = field(default_factory=dict[str, Check])
    results: dict[str, bool] = field(default_factory=dict[str, bool])
    draining: bool = False
    loop_lag_s: float = 0.0
    service: str = "gateway"
    services: tuple[str, ...] = ("ingestion", "analytics", "notification", "users")

    def checks(self) -> Mapping[str, str]:
        """Return what ``/health/ready`` tells: ``ok`` or ``failing`` by name."""
        told = {name: "ok" if self.results.get(name) else "failing" for name in self.needed}
        told["event_loop"] = "ok" if self.loop_lag_s < MAX_LOOP_LAG_S else "failing"
        if self.draining:
            told["draining"] = "failing"
        return told

    @property
    def usable(self) -> bool:
        """Whether every needed dependency is there."""
        return all(self.results.get(name) for name in self.needed)

    @property
    def ready(self) -> bool:
        """Whether this process should get requests."""
        return all(told == "ok" for told in self.checks().values())

    async def tick(self) -> None:
        """Run every check once, at most 1 s each, side by side."""
        names = [*self.needed, *self.wanted]
        done = await asyncio.gather(*(_passes(check) for check in (*self.needed.values(), *self.wanted.values())))
        self.results.update(zip(names, done, strict=True))

    async def run(self) -> None:
        """Tick each second until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self.tick()
            due = loop.time() + INTERVAL_S
            await asyncio.sleep(INTERVAL_S)
            self.loop_lag_s = max(0.0, loop.time() - due)


async def _passes(check: Check) -> bool:
    try:
        async with asyncio.timeout(LIMIT_S):
            return await check()
    except Exception:  # noqa: BLE001  # whatever it is, the dependency is not usable; the result is the report
        return False
