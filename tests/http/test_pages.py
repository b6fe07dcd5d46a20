import csv
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, json

from smartgrid_http.app import build_app
from smartgrid_http.pages import Cursors, Form, Streamed, csv_lines, form_of, lines_of, scope_of
from smartgrid_http.principal import Principal
from smartgrid_http.problems import Problem
from smartgrid_http.testing import AsgiClient, FixedClock, fixed_services


class Place(Struct, frozen=True, array_like=True):
    key: str
    number: int


class Filters(Struct, frozen=True):
    prefix: str | None = None
    limit: int = 100
    cursor: str | None = None
    min_position: str | None = None
    wait_ms: int = 2000


ANNA = Principal(kind="user", id="u1", role="viewer")
BEN = Principal(kind="user", id="u2", role="viewer")
PLACE = Place("s1", 7)
SCOPE = scope_of(ANNA, "sensors", Filters())


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def cursors(clock: FixedClock) -> Cursors:
    return Cursors(b"secret", clock.now)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(Problem) as caught:
        call()
    assert caught.value.status == 400
    return caught.value.code


def refused_text(cursors: Cursors, text: str) -> str:
    return refused(lambda: cursors.open(text, SCOPE, Place))


@given(key=st.text(), number=st.integers(-(2**63), 2**63 - 1))
def test_a_cursor_tells_its_place(key: str, number: int) -> None:
    cursors = Cursors(b"secret", FixedClock().now)

    assert cursors.open(cursors.issue(SCOPE, Place(key, number)), SCOPE, Place) == Place(key, number)


def test_another_process_of_the_installation_opens_it(cursors: Cursors, clock: FixedClock) -> None:
    assert Cursors(b"secret", clock.now).open(cursors.issue(SCOPE, PLACE), SCOPE, Place) == PLACE


def test_a_cursor_of_another_installation_is_invalid(cursors: Cursors, clock: FixedClock) -> None:
    foreign = Cursors(b"other", clock.now).issue(SCOPE, PLACE)

    assert refused(lambda: cursors.open(foreign, SCOPE, Place)) == "invalid_cursor"


@pytest.mark.parametrize(
    "other",
    [
        scope_of(BEN, "sensors", Filters()),
        scope_of(ANNA, "meters", Filters()),
        scope_of(ANNA, "sensors", Filters(), "m1"),
        scope_of(ANNA, "sensors", Filters(prefix="b")),
    ],
)
def test_a_cursor_of_another_caller_route_or_filter_is_invalid(cursors: Cursors, other: str) -> None:
    assert refused(lambda: cursors.open(cursors.issue(SCOPE, PLACE), other, Place)) == "invalid_cursor"


def test_the_size_of_a_page_may_change_during_a_walk() -> None:
    assert scope_of(ANNA, "sensors", Filters(limit=5, cursor="x", min_position="telemetry@1", wait_ms=0)) == SCOPE


def test_a_cursor_lives_an_hour(cursors: Cursors, clock: FixedClock) -> None:
    cursor = cursors.issue(SCOPE, PLACE)

    clock.advance(3599)
    assert cursors.open(cursor, SCOPE, Place) == PLACE
    clock.advance(1)
    assert refused(lambda: cursors.open(cursor, SCOPE, Place)) == "invalid_cursor"


def test_every_change_of_a_character_is_noticed(cursors: Cursors) -> None:
    cursor = cursors.issue(SCOPE, PLACE)

    for i, old in enumerate(cursor):
        for new in {"A", "B", "g", "-", "~"} - {old}:
            changed = cursor[:i] + new + cursor[i + 1 :]
            assert refused_text(cursors, changed) == "invalid_cursor"


@given(text=st.text() | st.text(alphabet="AZaz09-_=", max_size=80))
def test_no_other_text_is_a_cursor(text: str) -> None:
    assert refused(lambda: Cursors(b"secret", FixedClock().now).open(text, SCOPE, Place)) == "invalid_cursor"


def test_a_cursor_of_another_form_is_invalid(cursors: Cursors) -> None:
    cursor = cursors.issue(SCOPE, PLACE)

    assert refused(lambda: cursors.open(cursor, SCOPE, Filters)) == "invalid_cursor"


def test_padding_and_length_are_part_of_a_cursor(cursors: Cursors) -> None:
    cursor = cursors.issue(SCOPE, PLACE)

    for changed in (cursor + "=", cursor + "==", cursor[:-1], cursor + "A", "A" * 5000, ""):
        assert refused_text(cursors, changed) == "invalid_cursor"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "json"),
        ("*/*", "json"),
        ("application/json", "json"),
        ("text/csv", "csv"),
        ("text/*", "csv"),
        ("application/x-ndjson", "ndjson"),
        ("text/html, text/csv;q=0.5, */*;q=0.1", "csv"),
        ("text/csv;q=0.2, application/json;q=0.9", "json"),
        ("TEXT/CSV", "csv"),
        ("application/json;q=0, text/csv", "csv"),
    ],
)
def test_the_form_is_what_accept_weighs_most(accept: str | None, form: Form) -> None:
    assert form_of(accept) == form


@pytest.mark.parametrize("accept", ["text/html", "image/*", "application/json;q=0", "text/csv;q=none", "nonsense"])
def test_no_other_form_is_acceptable(accept: str) -> None:
    with pytest.raises(Problem) as caught:
        form_of(accept)

    assert (caught.value.status, caught.value.code) == (406, "not_acceptable")


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(rows=st.lists(st.lists(texts, min_size=2, max_size=4), min_size=1))
def test_csv_reads_back_as_written_but_for_the_quote_of_formulas(rows: list[list[str]]) -> None:
    read = list(csv.reader(StringIO(csv_lines(rows).decode(), newline="")))

    assert [len(row) for row in read] == [len(row) for row in rows]
    for row, cells in zip(rows, read, strict=True):
        for sent, cell in zip(row, cells, strict=True):
            assert cell == (f"'{sent}" if sent[:1] in tuple("=+-@\t\r") else sent)


def test_numbers_times_and_absent_values_are_plain_in_csv() -> None:
    row = [-1.5, 10**15, True, None, datetime(2026, 1, 15, 10, 30, tzinfo=UTC), ["voltage", "power"], "-1.5"]

    assert csv_lines([row]) == b"-1.5,1000000000000000,true,,2026-01-15T10:30:00Z,voltage power,'-1.5\r\n"


class Spot(Struct, frozen=True):
    lat: float
    lon: float


class Line(Struct, frozen=True):
    name: str
    spot: Spot | None
    value: float


LINES = [Line("a", Spot(1.5, 2.0), 0.5), Line("b", None, -1.0)]


async def pages(*parts: Sequence[Struct]) -> AsyncIterator[Sequence[Struct]]:
    for part in parts:
        yield part


async def whole(form: Form, *parts: Sequence[Struct]) -> bytes:
    return b"".join([chunk async for chunk in lines_of(form, Line, pages(*parts))])


async def test_a_struct_inside_a_row_is_columns_of_its_own() -> None:
    assert await whole("csv", LINES[:1], LINES[1:]) == b"name,lat,lon,value\r\na,1.5,2.0,0.5\r\nb,,,-1.0\r\n"


async def test_an_empty_list_is_a_header_or_nothing() -> None:
    assert await whole("csv") == b"name,lat,lon,value\r\n"
    assert await whole("ndjson") == b""


async def test_newline_delimited_json_is_an_object_a_line() -> None:
    lines = (await whole("ndjson", LINES)).splitlines()

    assert [json.decode(line, type=Line) for line in lines] == LINES


async def sent(streamed: Streamed) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    await streamed({}, None, send)
    return messages


async def failing(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    raise OSError


async def test_a_list_that_fails_at_once_has_not_begun_to_answer() -> None:
    with pytest.raises(OSError):  # noqa: PT011  # the one raised above
        await sent(Streamed("csv", failing(), "telemetry@1"))


async def test_a_streamed_list_ends_with_an_empty_chunk() -> None:
    messages = await sent(Streamed("ndjson", lines_of("ndjson", Line, pages(LINES)), "telemetry@9"))

    assert messages[0]["status"] == 200
    assert (b"x-event-position", b"telemetry@9") in messages[0]["headers"]
    assert [m.get("more_body", False) for m in messages[1:]] == [True, True, False]


async def test_what_is_answered_as_json_is_refused_to_who_takes_none() -> None:
    client = AsgiClient(build_app(fixed_services()))

    refused = await client.get("/api/test", headers={"Accept": "text/html, text/csv"})
    browser = await client.get("/api/test", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    plain = await client.get("/metrics", headers={"Accept": "text/plain"})

    assert (refused.status, refused.json()["code"]) == (406, "not_acceptable")
    assert browser.status == plain.status == 200
