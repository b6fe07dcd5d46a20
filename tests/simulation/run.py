"""One seed: everything that happens, first with faults, then without."""

import asyncio
import shutil
import subprocess
import traceback
from collections.abc import Coroutine, Sequence
from typing import Any

import structlog
from msgspec import Struct
from tests.kit.checkers import Violated
from tests.simulation.actors import Client, Server, Worker
from tests.simulation.faults import CALM, Chance, Odds
from tests.simulation.loop import Stuck, simulate
from tests.simulation.world import Parts, World

ALL = frozenset({"I1", "I2", "I3", "I4", "I5", "I6", "I7"})
NONE: frozenset[str] = frozenset()
SETTLE_S = 120.0


class Options(Struct, frozen=True, kw_only=True):
    """
    What a seed makes of a run.

    Attributes:
        clients: How many send commands.
        commands: How many each.
        servers: Processes that answer.
        workers: Workers of each projection.
        odds: What may go wrong in the first phase.
    """

    clients: int
    commands: int
    servers: int
    workers: int
    odds: Odds


class Result(Struct, kw_only=True):
    """
    What became of a run.

    Attributes:
        seed: Which.
        options: Derived from it.
        trace: Hash of all that happened.
        steps: How many things happened.
        events: Length of the log at the end.
        faults: How often each kind of fault happened.
        violated: The invariant that did not hold; None if all did.
        text: In which way.
    """

    seed: int
    options: Options
    trace: str
    steps: int
    events: int
    faults: dict[str, int]
    violated: str | None = None
    text: str = ""

    def report(self) -> str:
        """Say how to see it again."""
        return (
            f"seed {self.seed}, commit {commit()}, {self.options}: {self.violated} after {self.steps} steps, "
            f"{self.events} events, faults {self.faults}: {self.text}\n"
            f"again: python -m tests.simulation seed {self.seed}"
        )


def commit() -> str:
    """Return the commit of the code."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    done = subprocess.run([git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def options_of(chance: Chance) -> Options:
    """Derive the options of a run; each kind of fault is absent in some."""
    draw = chance.draw

    def odds(most: float) -> float:
        return draw.choice((0.0, most / 4, most))

    return Options(
        clients=draw.randrange(1, 4),
        commands=draw.randrange(2, 6),
        servers=draw.randrange(1, 3),
        workers=draw.randrange(1, 3),
        odds=Odds(
            crash=odds(0.03),
            unavailable=odds(0.06),
            unknown=odds(0.06),
            freeze=odds(0.01),
            drop=odds(0.1),
            repeat=odds(0.2),
            slow=odds(0.05),
        ),
    )


def run(
    seed: int, parts: Parts | None = None, *, checks: frozenset[str] = ALL, lines: list[str] | None = None
) -> Result:
    """
    Run *seed*.

    Args:
        seed: Decides everything.
        parts: What the system is made of; absent: what is shipped.
        checks: The invariants to look at.
        lines: Gets a line for each step.
    """
    chance = Chance(seed)
    chance.lines = lines
    options = options_of(chance)
    result = Result(seed=seed, options=options, trace="", steps=0, events=0, faults={})
    with structlog.testing.capture_logs():
        try:
            simulate(_both_phases(chance, options, parts or Parts(), checks, result))
        except Violated as violated:
            result.violated, result.text = violated.invariant, str(violated)
        except Stuck as stuck:
            result.violated, result.text = "I7", str(stuck)
        except Exception as error:  # noqa: BLE001  # no invariant, but nothing that may happen either
            result.violated, result.text = "error", f"{type(error).__name__}: {error}"
            if lines is not None:
                lines += traceback.format_exception(error)
    result.trace, result.steps, result.faults = chance.trace, chance.steps, chance.kinds
    return result


async def _both_phases(chance: Chance, options: Options, parts: Parts, checks: frozenset[str], result: Result) -> None:
    world = World(chance, parts, checks)
    servers = [Server(world, f"server {number}") for number in range(options.servers)]
    stop = asyncio.Event()
    workers = [
        asyncio.create_task(Worker(world, name, number).run(stop))
        for name in world.stored
        for number in range(options.workers)
    ]
    watch = asyncio.create_task(_restart(world, servers, stop))
    broken = asyncio.create_task(_broken(world))
    clients = [
        asyncio.create_task(Client(world, servers, number).run(options.commands)) for number in range(options.clients)
    ]
    try:
        chance.odds = options.odds
        await _until(asyncio.sleep(2.0 + 4.0 * chance.draw.random()), [*workers, *clients, watch, broken])
        chance.odds = CALM
        chance.note("calm")
        await _until(_all(clients), [*workers, watch, broken])
        await _until(_caught_up(world), [*workers, watch, broken])
        await _until(_gone(world), [*workers, watch, broken])
        await _until(_caught_up(world), [*workers, watch, broken])
        stop.set()
        await asyncio.gather(*workers)
        await world.look_at_the_end()
    finally:
        result.events = len(world.log)


async def _until(done: Coroutine[Any, Any, object], others: Sequence["asyncio.Task[None]"]) -> None:
    """Wait for *done*, or for one of *others* to fail."""
    main = asyncio.create_task(done)
    going: set[asyncio.Task[Any]] = {main, *others}
    while not main.done():
        finished, going = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
        for task in finished:
            task.result()


async def _broken(world: World) -> None:
    await world.broken


async def _gone(world: World) -> None:
    await asyncio.gather(*world.ghosts, return_exceptions=True)


async def _all(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        await task


async def _caught_up(world: World) -> None:
    """Wait until all projections are at the head; give up after a while: the end will show it."""
    end = world.monotonic() + SETTLE_S
    while world.monotonic() < end:
        if all(stored.positions["telemetry"] == len(world.log) for stored in world.stored.values()):
            return
        await asyncio.sleep(0.5)


async def _restart(world: World, servers: list[Server], stop: asyncio.Event) -> None:
    """Start servers again that died."""
    while not stop.is_set():
        for place, server in enumerate(servers):
            if server.process.dead:
                servers[place] = Server(world, f"{server.process.name}'")
        await asyncio.sleep(0.3)
