"""Query parameters are read strictly, and everything wrong with them is told at once."""

from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct, field

from smartgrid_http.findings import TimeText
from smartgrid_http.params import NoParameters, parse_query
from smartgrid_http.problems import Problem


class Query(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    share: float | None = None
    order: Literal["asc", "desc"] = "asc"
    deep: bool = False
    start: TimeText | None = field(default=None, name="from")


def findings(query: bytes) -> list[tuple[str, str]]:
    with pytest.raises(Problem) as caught:
        parse_query(query, Query)
    assert (caught.value.status, caught.value.code) == (400, "validation_failed")
    return [(finding.pointer, finding.code) for finding in caught.value.findings]


def test_good_parameters_come_out_typed() -> None:
    query = b"name=a%20b%2Bc&limit=5&share=0.5&order=desc&deep=true&from=2026-01-15T10%3A30%3A00%2B01:00"

    assert parse_query(query, Query) == Query("a b+c", 5, 0.5, "desc", deep=True, start="2026-01-15T10:30:00+01:00")
    assert parse_query(b"name=", Query) == Query("")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", [("?name", "missing_field")]),
        (b"name=a&name=b", [("?name", "duplicate_parameter")]),
        (b"name=a&n%61me=b", [("?name", "duplicate_parameter")]),
        (b"name=a&x=1", [("?x", "unknown_parameter")]),
        (b"name=a&", [("?", "unknown_parameter")]),
        (b"name=a&start=2026-01-15T10:30:00Z", [("?start", "unknown_parameter")]),
        (b"name=a&limit=0", [("?limit", "out_of_range")]),
        (b"name=a&limit=101", [("?limit", "out_of_range")]),
        (b"name=a&limit=1.0", [("?limit", "wrong_type")]),
        (b"name=a&limit=", [("?limit", "wrong_type")]),
        (b"name=a&limit=+5", [("?limit", "wrong_type")]),
        (b"name=a&limit=0x1", [("?limit", "wrong_type")]),
        (b"name=a&limit=%D9%A1", [("?limit", "wrong_type")]),
        (b"name=a&limit=" + b"9" * 400, [("?limit", "wrong_type")]),
        (b"name=a&share=nan", [("?share", "wrong_type")]),
        (b"name=a&share=1e400", [("?share", "wrong_type")]),
        (b"name=a&order=up", [("?order", "unknown_value")]),
        (b"name=a&deep=yes", [("?deep", "wrong_type")]),
        (b"name=a&deep=1", [("?deep", "wrong_type")]),
        (b"name=a&from=2026-01-15T10:30:00", [("?from", "timestamp_without_offset")]),
        (b"name=a&from=2026-01-15T10:30:00+01:00", [("?from", "bad_format")]),
        (b"name=%ff", [("?", "bad_format"), ("?name", "missing_field")]),
        (b"name=a%00b", [("?name", "bad_format"), ("?name", "missing_field")]),
        (
            b"limit=x&order=y&z=1",
            [
                ("?z", "unknown_parameter"),
                ("?name", "missing_field"),
                ("?limit", "wrong_type"),
                ("?order", "unknown_value"),
            ],
        ),
    ],
)
def test_each_rule_has_its_code(query: bytes, expected: list[tuple[str, str]]) -> None:
    assert findings(query) == expected


pieces = st.sampled_from([b"name=a", b"limit=", b"&", b"=", b"%", b"5", b"from=2026"])


@given(st.binary(max_size=100) | st.lists(pieces).map(b"".join))
def test_any_bytes_give_parameters_or_a_problem(query: bytes) -> None:
    problems: list[Problem] = []
    for wanted in (Query, NoParameters):
        try:
            parse_query(query, wanted)
        except Problem as problem:
            problems.append(problem)

    assert all(problem.status == 400 and problem.findings for problem in problems)
