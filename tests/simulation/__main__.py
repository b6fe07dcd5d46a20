"""
Seeds, one by one or many, and the planted bugs.

Example::

    python -m tests.simulation seed 42         # again, bit for bit
    python -m tests.simulation search 0 10000  # look for a seed that fails
    python -m tests.simulation planted         # the seed that catches each planted bug
"""

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterable

from msgspec import Struct
from tests.simulation.planted import ELSEWHERE, NOT_YET, PLANTED, RECORDED
from tests.simulation.run import ALL, NONE, Result, run

MOST_SEEDS = 2_000


class Caught(Struct, frozen=True):
    """
    How a planted bug was found.

    Attributes:
        bug: Its name.
        seed: The first seed that found it; None if none did.
        by: The invariant that did not hold.
    """

    bug: str
    seed: int | None
    by: str | None


def catch(bug: str, *, checks: frozenset[str] = ALL, seeds: Iterable[int] | None = None) -> Caught:
    """
    Run seeds with *bug* until an invariant breaks; only invariants count.

    Args:
        bug: Which.
        checks: The invariants to look at.
        seeds: Which to try; absent: the recorded one, then all from 0.
    """
    for seed in itertools.chain([RECORDED.get(bug, 0)], range(MOST_SEEDS)) if seeds is None else seeds:
        result = run(seed, PLANTED[bug](), checks=checks)
        if result.violated in checks:
            return Caught(bug, seed, result.violated)
    return Caught(bug, None, None)


def twice(seed: int) -> Result:
    """
    Run *seed* twice, the second time without looking.

    Raises:
        AssertionError: The two differ.
    """
    first = run(seed)
    if first.violated is None:
        second = run(seed, checks=NONE)
        assert (first.trace, first.steps) == (second.trace, second.steps), f"seed {seed} does not replay"
    return first


def search(first: int, last: int) -> list[Result]:
    """Run seeds *first* … *last* - 1, each twice; return those that failed."""
    faults: Counter[str] = Counter()
    steps = events = 0
    failed: list[Result] = []
    began = time.monotonic()
    for seed in range(first, last):
        result = twice(seed)
        faults.update(result.faults)
        steps, events = steps + result.steps, events + result.events
        if result.violated is not None:
            failed.append(result)
            print(result.report())
    took = time.monotonic() - began
    print(
        f"seeds {first} … {last - 1}, each twice: {len(failed)} failed, {steps} port calls, {events} events,", end=" "
    )
    print(f"faults {dict(sorted(faults.items()))}, {took:.0f} s")
    return failed


def show_planted() -> bool:
    """Print how each planted bug was caught; return whether all were."""
    missed = 0
    for bug in PLANTED:
        caught = catch(bug)
        missed += caught.seed is None
        print(f"{bug:44} {f'seed {caught.seed}, {caught.by}' if caught.seed is not None else 'NOT CAUGHT'}", flush=True)
    for bug, test in ELSEWHERE.items():
        print(f"{bug:44} {test}")
    print(f"{len(PLANTED)} planted here, {missed} not caught; {len(ELSEWHERE)} in the tests named")
    print(f"not yet, since what they break does not exist: {', '.join(NOT_YET)}")
    return missed == 0


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("seed", help="run one seed and print its steps")
    one.add_argument("seed", type=int)
    one.add_argument("--bug", choices=sorted(PLANTED))
    many = commands.add_parser("search", help="run many seeds")
    many.add_argument("first", type=int)
    many.add_argument("last", type=int)
    commands.add_parser("planted", help="catch every planted bug")
    given = parser.parse_args()
    if given.command == "planted":
        return 0 if show_planted() else 1
    if given.command == "search":
        return 1 if search(given.first, given.last) else 0
    lines: list[str] = []
    result = run(given.seed, PLANTED[given.bug]() if given.bug else None, lines=lines)
    print("\n".join(lines))
    print(result.report() if result.violated else f"seed {given.seed}: {result.steps} steps, {result.trace}")
    return 1 if result.violated else 0


if __name__ == "__main__":
    sys.exit(main())
