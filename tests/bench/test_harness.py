import asyncio
from pathlib import Path

import pytest
from tests.bench import batch_load, load
from tests.bench.harness import Figure, compared, in_turns, quantile
from tests.bench.report import Report, as_markdown, update


def figure(number: str, value: float, better: str = "more") -> Figure:
    return Figure(
        number=number, what="a ÷ b", value=value, unit="x", better=better, floor=2, goal=4 if better == "more" else 1
    )


@pytest.mark.parametrize(
    ("value", "better", "verdict"),
    [
        (4, "more", "goal"),
        (2, "more", "floor"),
        (1.9, "more", "below"),
        (1, "less", "goal"),
        (2, "less", "floor"),
        (2.1, "less", "below"),
    ],
)
def test_a_figure_says_how_far_it_came(value: float, better: str, verdict: str) -> None:
    assert figure("1", value, better).verdict == verdict


def test_the_ratio_is_the_median_over_the_rounds() -> None:
    found = compared("1", "a ÷ b", [[2, 1], [9, 3], [8, 2]], ("a", "b"), "events/s", floor=2, goal=4)

    assert found.value == 3
    assert found.sides == {"a": "8 events/s", "b": "2 events/s"}


async def test_sides_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    async def side(name: str, value: float) -> float:
        order.append(name)
        await asyncio.sleep(0)
        return value

    rounds = await in_turns(lambda: side("a", len(order)), lambda: side("b", -len(order)), 2)

    assert order == ["a", "b", "b", "a", "a", "b"]
    assert rounds == [[3, -2], [4, -5]]


def test_a_quantile_is_the_value_of_its_rank() -> None:
    values = list(range(1, 101))

    assert [quantile(values, q) for q in (0.0, 0.01, 0.5, 0.99, 1.0)] == [1, 1, 50, 99, 100]


def test_a_later_run_replaces_its_own_figures_and_keeps_the_others(tmp_path: Path) -> None:
    update([figure("10", 1), figure("2", 2)], {"cpu": "one"}, tmp_path)
    update([figure("2", 3), figure("2 n=10", 5)], {"cpu": "two"}, tmp_path)

    text = (tmp_path / "figures.md").read_text()
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][1:] == [
        "2",
        "2 n=10",
        "10",
    ]
    assert "| 2 | a ÷ b | 3 |" in text
    assert "cpu: two" in text


def test_an_empty_report_is_a_table_without_rows() -> None:
    assert as_markdown(Report()).rstrip().endswith("|---|")


@pytest.mark.parametrize("form", ["json", "columns"])
def test_no_two_batches_hold_the_same_reading(form: str) -> None:
    plan = batch_load.BatchPlan(
        url="",
        token="",
        form="json" if form == "json" else "columns",
        since=0,
        requests=3,
        sensors=2,
        readings=4,  # none
    )

    assert len(set(batch_load.bodies(plan))) == plan.requests
    assert plan.items == 24


def test_requests_of_a_load_have_times_of_their_own() -> None:
    plan = load.Plan(host="h", port=1, path="/p", body='{"at":"{stamp}","n":{n}}', first=1999, since=0)

    first, second = (next(it) for it in [load.requests(plan)] * 2)

    assert first.endswith(b'{"at":"1970-01-01T00:00:01.999Z","n":1999}')
    assert second.endswith(b'{"at":"1970-01-01T00:00:02.000Z","n":2000}')
