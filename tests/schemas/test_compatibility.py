from typing import Annotated

import msgspec
import pytest
from msgspec import Meta, Struct

from smartgrid_schemas.compatibility import breaks, same


class Inner(Struct, frozen=True, tag="inner", array_like=True):
    a: int
    b: str | None = None


class Before(Struct, tag="fact.v1"):
    a: int
    b: str
    c: Inner | None = None
    d: list[int] = []  # msgspec copies it


class Reordered(Struct, tag="fact.v1"):
    d: list[int] = []
    c: Inner | None = None
    b: str = ""
    a: int = 0


class WithMore(Struct, tag="fact.v1"):
    a: int | float | None
    b: str
    c: Inner | str | None = None
    d: list[int | str] = []
    e: str | None = None


class WithRequired(Struct, tag="fact.v1"):
    a: int
    b: str
    e: str
    c: Inner | None = None
    d: list[int] = []


class Without(Struct, tag="fact.v1"):
    a: int
    b: str


class Narrower(Struct, tag="fact.v1"):
    a: Annotated[int, Meta(ge=0)]
    b: str
    c: Inner | None = None
    d: list[int] = []


class OtherType(Struct, tag="fact.v1"):
    a: int
    b: int
    c: Inner | None = None
    d: list[int] = []


class OtherName(Struct, tag="fact.v2"):
    a: int
    b: str
    c: Inner | None = None
    d: list[int] = []


class OtherDefault(Struct, tag="fact.v1"):
    a: int
    b: str
    c: Inner | None = Inner(1)
    d: list[int] = []


class OtherItems(Struct, tag="fact.v1"):
    a: int
    b: str
    c: Inner | None = None
    d: list[str] = []


class Row(Struct, array_like=True):
    a: int
    b: str = ""


class LongerRow(Struct, array_like=True):
    a: int
    b: str = ""
    c: int = 0


class SwappedRow(Struct, array_like=True):
    b: str
    a: int = 0


class StricterRow(Struct, array_like=True):
    a: int
    b: str


class ShorterRow(Struct, array_like=True):
    a: int


@pytest.mark.parametrize(
    ("old", "new"), [(Before, Before), (Before, Reordered), (Before, WithMore), (Row, Row), (Row, LongerRow)]
)
def test_these_read_all_that_was_stored(old: type[Struct], new: type[Struct]) -> None:
    assert breaks(msgspec.json.schema(old), msgspec.json.schema(new)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Before, WithRequired),
        (Before, Without),
        (Before, Narrower),
        (Before, OtherType),
        (Before, OtherName),
        (Before, OtherDefault),
        (Before, OtherItems),
        (WithMore, Before),
        (Row, SwappedRow),
        (Row, StricterRow),
        (Row, ShorterRow),
    ],
)
def test_these_do_not(old: type[Struct], new: type[Struct]) -> None:
    assert breaks(msgspec.json.schema(old), msgspec.json.schema(new))


class WithOneMore(Struct, tag="fact.v1"):
    a: int
    b: str
    c: Inner | None = None
    d: list[int] = []
    e: str | None = None


class LessRequired(Struct, tag="fact.v1"):
    a: int
    b: str = ""
    c: Inner | None = None
    d: list[int] = []


class WiderItems(Struct, tag="fact.v1"):
    a: int
    b: str
    c: Inner | None = None
    d: list[int | str] = []


class WithPlaces(Struct, array_like=True):
    row: Row


class WithLongerPlaces(Struct, array_like=True):
    row: LongerRow
    more: int = 0


@pytest.mark.parametrize(
    ("old", "new"), [(Before, Before), (Before, WithOneMore), (Row, LongerRow), (WithPlaces, WithLongerPlaces)]
)
def test_code_of_then_reads_what_these_write(old: type[Struct], new: type[Struct]) -> None:
    assert breaks(msgspec.json.schema(old), msgspec.json.schema(new), readers=True) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (Before, LessRequired, "$.b: is not always written now; keep it required"),
        (Before, WiderItems, "$.d[]: string may be written now"),
        (StricterRow, Row, "$: has 1 required places instead of 2; keep them required"),
    ],
)
def test_code_of_then_does_not_read_these_though_todays_reads_both(
    old: type[Struct], new: type[Struct], told: str
) -> None:
    before, after = msgspec.json.schema(old), msgspec.json.schema(new)

    assert breaks(before, after) == []
    (problem,) = breaks(before, after, readers=True)
    assert problem.startswith(told)


def test_a_name_is_no_promise_but_a_default_is() -> None:
    class Other(Struct, array_like=True):
        a: int
        b: str = ""

    class OtherDefault(Struct, array_like=True):
        a: int
        b: str = "x"

    assert same(msgspec.json.schema(Row), msgspec.json.schema(Other))
    assert not same(msgspec.json.schema(Row), msgspec.json.schema(OtherDefault))
