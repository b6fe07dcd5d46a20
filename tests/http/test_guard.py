"""Whatever the bytes are: a body comes out as the value that it says, or as a problem of the client."""

import json
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from smartgrid_domain.errors import Invalid, Rejected
from smartgrid_domain.strict_json import JsonLimits, key_count, strict_value
from smartgrid_http.findings import TimeText
from smartgrid_http.guard import decode_json
from smartgrid_http.problems import Problem, problem_of

Json: TypeAlias = "dict[str, Json] | list[Json] | str | float | bool | None"
CODES = {"malformed_json", "duplicate_key", "too_deep", "validation_failed"}


class Place(Struct, forbid_unknown_fields=True):
    lat: Annotated[float, Meta(ge=-90, le=90)]
    lon: Annotated[float, Meta(ge=-180, le=180)]


class Body(Struct, forbid_unknown_fields=True):
    """Something of every kind."""

    name: Annotated[str, Meta(min_length=1, max_length=8, pattern=r"^[a-z]+\Z")]
    value: float
    count: Annotated[int, Meta(ge=0, lt=2**53)] = 0
    place: Place | None = None
    kind: Literal["a", "b"] = "a"
    on: bool = False
    at: TimeText | None = None
    tags: Annotated[list[str], Meta(max_length=2)] = []
    extra: Annotated[dict[str, float | str | bool | None], Meta(max_length=2)] | None = None


def outcome(body: bytes) -> Body | Problem:
    """Return the value, or the problem as the front would answer it."""
    try:
        return decode_json(body, Body)
    except (Problem, Rejected) as error:
        problem = problem_of(error)
        assert problem is not None
        return problem


json_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | json_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_text, inner, max_size=4),
    max_leaves=12,
)
spellings = st.sampled_from(
    [{}, {"ensure_ascii": False}, {"indent": 1}, {"separators": (",", ":")}, {"separators": (", ", " : ")}]
)


@given(st.binary(max_size=200))
@example(b"\xff")
@example(b'{"name":"\xff"}')
@example(b"\xef\xbb\xbf{}")
@example(b"[" * 100_000)
@example(b'{"a":' * 5_000)
@example(b'"\\ud800"')
@example(b"1e400")
@example(b"9" * 5_000)
def test_any_bytes_give_a_value_or_a_problem(body: bytes) -> None:
    result = outcome(body)

    if isinstance(result, Problem):
        assert (result.status, result.code in CODES) == (400, True)
    else:
        assert isinstance(result, Body)


@given(json_values, spellings, st.data())
def test_mutilated_json_gives_a_value_or_a_problem(
    value: object, spelling: dict[str, Any], data: st.DataObject
) -> None:
    body = bytearray(json.dumps(value, **spelling).encode())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))

    result = outcome(bytes(body))
    assert not isinstance(result, Problem) or (result.status == 400 and result.code in CODES)


@given(json_values, spellings)
def test_good_json_comes_out_as_it_is(value: object, spelling: dict[str, Any]) -> None:
    assert strict_value(json.dumps(value, **spelling).encode()) == value


@st.composite
def doubled(draw: st.DrawFn) -> bytes:
    """Return a document in which one object has a key twice, one of them perhaps escaped."""
    key = draw(st.text(st.characters(min_codepoint=32, max_codepoint=0x24F), max_size=4))
    others = draw(st.dictionaries(json_text, json_values, max_size=3))
    others.pop(key, None)
    plain = json.dumps(key, ensure_ascii=draw(st.booleans()))
    escaped = '"' + "".join(f"\\u{ord(char):04x}" for char in key) + '"'
    blank = draw(st.sampled_from(["", " ", "\n"]))
    members = [f"{json.dumps(name)}{blank}:{json.dumps(value)}" for name, value in others.items()]
    members += [f"{draw(st.sampled_from([plain, escaped]))}{blank}:{json.dumps(draw(json_values))}" for _ in range(2)]
    text = "{" + ",".join(draw(st.permutations(members))) + "}"
    for _ in range(draw(st.integers(0, 3))):
        text = draw(st.sampled_from(["[{}]", '{{"outer":{}}}', '{{":":":","x" :{}}}'])).format(text)
    return text.encode()


@given(doubled())
def test_a_key_twice_is_always_found(body: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        strict_value(body)
    assert caught.value.code == "duplicate_key"


def keys_of(value: Json) -> int:
    match value:
        case dict():
            return len(value) + sum(map(keys_of, value.values()))
        case list():
            return sum(map(keys_of, value))
        case _:
            return 0


def texts_of(value: Json) -> list[str]:
    match value:
        case dict():
            return [*value, *(text for member in value.values() for text in texts_of(member))]
        case list():
            return [text for item in value for text in texts_of(item)]
        case _:
            return [value] if isinstance(value, str) else []


@given(json_values, spellings)
def test_the_filter_counts_keys_exactly_or_not_at_all(value: Json, spelling: dict[str, Any]) -> None:
    count = key_count(json.dumps(value, **spelling).encode())

    assert count is None or count >= keys_of(value)
    if count is not None and not any(text.startswith(":") for text in texts_of(value)):
        assert count == keys_of(value)


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (b"", "malformed_json", None),
        (b"nonsense", "malformed_json", None),
        (b"{} {}", "malformed_json", None),
        (b'{"name":"a","value":1,}', "malformed_json", None),
        (b"\xef\xbb\xbf{}", "malformed_json", None),
        (b'{"name":"\xc3\x28"}', "malformed_json", None),
        (b'{"name":"\xed\xa0\x80"}', "malformed_json", None),
        (b'{"name":"\\ud800"}', "malformed_json", None),
        (b'{"\\udc00":1}', "malformed_json", None),
        (b'{"name":"a\0b"}', "malformed_json", None),
        (b'{"name":"a","value":NaN}', "malformed_json", "/value"),
        (b'{"name":"a","value":-Infinity}', "malformed_json", "/value"),
        (b'{"name":"a","value":1e999}', "validation_failed", "/value"),
        (b'{"name":"a","value":-1e999}', "validation_failed", "/value"),
        (b'{"name":"a\\u0000","value":1}', "validation_failed", "/name"),
        (b'{"name":"a","value":' + b"1" * 65 + b"}", "validation_failed", "/value"),
        (b'{"name":"a","value":0.' + b"1" * 63 + b"}", "validation_failed", "/value"),
        (b'{"name":"' + b"a" * 65_537 + b'","value":1}', "validation_failed", "/name"),
        (b'{"name":"a","name":"b","value":1}', "duplicate_key", None),
        (b'{"name":"a","n\\u0061me":"b","value":1}', "duplicate_key", None),
        (b'{"name":"a","value":1,"extra":{"x":1,"x":1}}', "duplicate_key", None),
        (b"[" * 33 + b"]" * 33, "too_deep", None),
        (b'{"name":"a","value":true}', "validation_failed", "/value"),
        (b'{"name":"a","value":"1"}', "validation_failed", "/value"),
        (b'{"name":null,"value":1}', "validation_failed", "/name"),
        (b'{"name":"a","value":1,"count":1.0}', "validation_failed", "/count"),
        (b'{"name":"a","value":1,"count":-1}', "validation_failed", "/count"),
        (b'{"name":"a","value":1,"count":99999999999999999999999999}', "validation_failed", "/count"),
        (b'{"name":"a","value":1,"on":1}', "validation_failed", "/on"),
        (b'{"name":"a","value":1,"kind":"c"}', "validation_failed", "/kind"),
        (b'{"name":"a","value":1,"place":{"lat":91,"lon":0}}', "validation_failed", "/place/lat"),
        (b'{"name":"a","value":1,"place":{"lat":1}}', "validation_failed", "/place/lon"),
        (b'{"name":"a","value":1,"tags":["a","b","c"]}', "validation_failed", "/tags"),
        (b'{"name":"a","value":1,"tags":["a",1]}', "validation_failed", "/tags/1"),
        (b'{"name":"a","value":1,"extra":{"x":[]}}', "validation_failed", "/extra/x"),
        (b'{"name":"a","value":1,"at":"2026-01-15T10:30:00"}', "validation_failed", "/at"),
        (b'{"name":"a\\n","value":1}', "validation_failed", "/name"),
        (b'{"name":"a","value":1,"new~/":1}', "validation_failed", "/new~0~1"),
        (b"[]", "validation_failed", ""),
        (b"null", "validation_failed", ""),
        (b"1", "validation_failed", ""),
    ],
)
def test_each_rule_has_its_code_and_place(body: bytes, code: str, pointer: str | None) -> None:
    problem = outcome(body)

    assert isinstance(problem, Problem)
    assert problem.code == code
    assert pointer in {finding.pointer for finding in problem.findings} | (set() if problem.findings else {None})


@pytest.mark.parametrize(
    ("at", "code"),
    [
        ("2026-01-15T10:30:00", "timestamp_without_offset"),
        ("2026-01-15T10:30:00.1234567Z", "timestamp_too_precise"),
        ("1969-12-31T23:59:59Z", "timestamp_out_of_range"),
        ("2101-01-01T00:00:00Z", "timestamp_out_of_range"),
        ("2026-02-30T00:00:00Z", "bad_format"),
        ("2026-01-15", "bad_format"),
        ("2026-01-15T10:30:00Z\n", "bad_format"),
        ("\u0662026-01-15T10:30:00Z", "bad_format"),
        ("2026-01-15T10:30:00+24:00", "bad_format"),
        ("0001-01-01T00:00:00+23:59", "bad_format"),
    ],
)
def test_times_have_codes_of_their_own(at: str, code: str) -> None:
    problem = outcome(msgspec.json.encode({"name": "a", "value": 1, "at": at}))

    assert isinstance(problem, Problem)
    assert [finding.code for finding in problem.findings] == [code]


def test_every_finding_is_told_at_once() -> None:
    body = b'{"name":"A","value":"x","count":-1,"place":{"lat":100,"lon":true,"alt":1},"new":1}'

    problem = outcome(body)

    assert isinstance(problem, Problem)
    assert [(finding.pointer, finding.code) for finding in problem.findings] == [
        ("/name", "bad_format"),
        ("/value", "wrong_type"),
        ("/count", "out_of_range"),
        ("/place/lat", "out_of_range"),
        ("/place/lon", "wrong_type"),
        ("/place/alt", "unknown_field"),
        ("/new", "unknown_field"),
    ]


def test_findings_are_at_most_a_hundred() -> None:
    problem = outcome(msgspec.json.encode({"name": "a", "value": 1, **{f"x{i}": 1 for i in range(500)}}))

    assert isinstance(problem, Problem)
    assert len(problem.findings) == 100


@given(
    st.dictionaries(
        st.sampled_from(["name", "value", "count", "place", "kind", "on", "at", "tags", "extra"]), json_values
    )
)
def test_whatever_is_refused_has_a_finding(members: dict[str, object]) -> None:
    result = outcome(json.dumps(members).encode())

    assert isinstance(result, Body) or result.findings


@pytest.mark.parametrize("depth", [1, 31, 32, 33, 900])
def test_depth_is_counted_in_levels(depth: int) -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}"), ('{"\\u0061":', "}")):
        body = (opening * depth + "1" + closing * depth).encode()
        if depth <= 32:
            strict_value(body)
        else:
            with pytest.raises(Invalid, match="nest at most 32"):
                strict_value(body)


def test_limits_hold_at_their_edge() -> None:
    limits = JsonLimits(depth=2, string_bytes=8, number_chars=4)

    assert strict_value('["12345678",1234,"éééé"]'.encode(), limits) == ["12345678", 1234, "éééé"]
    for body in ('["123456789"]', "[12345]", "[0.123]", '["ééééé"]'):
        with pytest.raises(Invalid):
            strict_value(body.encode(), limits)
