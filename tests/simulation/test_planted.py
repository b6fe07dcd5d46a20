"""The simulation finds what it is for: each planted bug, and each only by the checkers that are on."""

import os

import pytest
from tests.simulation.__main__ import catch
from tests.simulation.planted import ONLY_BY, PLANTED
from tests.simulation.run import ALL

WITHOUT = int(os.environ.get("SGA_TEST_SEEDS", "20"))
"""So many seeds from the catching one on find nothing once the checker is off."""

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught(bug: str, capsys: pytest.CaptureFixture[str]) -> None:
    caught = catch(bug)

    with capsys.disabled():
        print(f"\n  {bug}: seed {caught.seed}, {caught.by}", end="")  # the list to show
    assert caught.seed is not None


@pytest.mark.parametrize(("invariant", "bug"), ONLY_BY.items())
def test_a_bug_escapes_when_its_checker_is_switched_off(invariant: str, bug: str) -> None:
    caught = catch(bug)
    assert (caught.by, caught.seed is not None) == (invariant, True)

    first = caught.seed or 0
    assert catch(bug, checks=ALL - {invariant}, seeds=range(first, first + WITHOUT)).seed is None
