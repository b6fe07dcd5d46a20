"""How much of a long run is done here: all of it, or a part of it by ``--shard 2/8``."""

import os

import pytest


def share(config: pytest.Config, total: int) -> int:
    """Return how many of *total* rounds this shard does; every shard does at least one."""
    part, of = shard(config)
    return max(1, total // of + (part <= total % of))


def shard(config: pytest.Config) -> tuple[int, int]:
    """Return which shard this is, from 1, and of how many."""
    text = str(config.getoption("--shard") or "1/1")
    part, _, of = text.partition("/")
    return int(part), int(of or "1")


def seed_of(config: pytest.Config, name: str) -> int:
    """Return the seed of a test: ``SGA_TEST_SEED``, else one of its shard."""
    given = os.environ.get("SGA_TEST_SEED")
    part, _ = shard(config)
    return int(given) if given else 1_000 * part + sum(name.encode()) % 1_000
