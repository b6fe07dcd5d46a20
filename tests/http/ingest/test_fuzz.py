"""Whatever bytes come, the answer is a refusal or a verdict, never a failure of ours."""

import json
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.http.ingest.kit import BATCH, COLUMNS, CSV, METER, NDJSON, SENSOR, World, meter_reading, reading

SLOW = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
AWKWARD: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    2**63,
    2**64,
    10**400,
    1e308,
    "",
    "\0",
    "\ud800",
    "é",
    "x" * 3000,
    "NaN",
    [],
    {},
    [[[[]]]],
    {"a": {"b": []}},
    "2026-01-15T10:30:00Z",
    "9999-12-31T23:59:59Z",
]
NAMES = [*reading(), *meter_reading(), "unit", "phase", "quality", "seq", "metadata", "corrects", "reason", "x", ""]

values = st.one_of(
    st.sampled_from(AWKWARD),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    ),
)
changes = st.dictionaries(st.sampled_from(NAMES), values, max_size=4)


@st.composite
def items(draw: st.DrawFn) -> dict[str, Any]:
    bases: list[dict[str, Any]] = [reading(), meter_reading(), {}]
    return {**draw(st.sampled_from(bases)), **draw(changes)}


def as_json(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def broken(draw: st.DrawFn, body: bytes) -> bytes:
    """Cut, flip or insert bytes now and then."""
    kind = draw(st.sampled_from(["whole", "whole", "cut", "flip", "insert"]))
    if not body or kind == "whole":
        return body
    at = draw(st.integers(0, len(body) - 1))
    match kind:
        case "cut":
            return body[:at]
        case "flip":
            return body[:at] + bytes([draw(st.integers(0, 255))]) + body[at + 1 :]
        case _:
            return body[:at] + draw(st.sampled_from([b"\xff", b'"', b"{", b"\\", b"\0", b"NaN", b"\n"])) + body[at:]


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes]:
    path = draw(st.sampled_from([SENSOR, METER, BATCH, f"{BATCH}?mode=atomic&verdicts=all"]))
    if path in (SENSOR, METER):
        return path, "application/json", broken(draw, as_json(draw(items())))
    several = draw(st.lists(items(), max_size=4))
    media_type = draw(st.sampled_from(["application/json", NDJSON, CSV, COLUMNS]))
    match media_type:
        case "application/json":
            body = as_json({"readings": several})
        case _ if media_type == NDJSON:
            body = b"\n".join(map(as_json, several))
        case _ if media_type == CSV:
            names = draw(st.lists(st.sampled_from(NAMES), max_size=6))
            cells = st.lists(st.text(max_size=6) | st.sampled_from(["1", "nan", "1e999", '"']), max_size=7)
            rows = draw(st.lists(cells, max_size=4))
            body = "\n".join(",".join(row) for row in [names, *rows]).encode("utf-8", "surrogatepass")
        case _:
            body = draw(columns())
    return path, media_type, broken(draw, body)


@st.composite
def columns(draw: st.DrawFn) -> bytes:
    numbers = st.integers(-(2**63), 2**64 - 1) | st.floats() | st.none() | st.booleans()
    whole = st.lists(st.integers(0, 2**62), max_size=3)
    series = st.fixed_dictionaries(
        {
            "sensor_id": st.sampled_from(["s1", "", "a b", 5]),
            "sensor_type": st.sampled_from(["voltage", "power", "x"]),
            "t": whole | st.lists(numbers, max_size=3) | st.none(),
            "v": st.lists(st.floats(), max_size=3) | st.lists(numbers, max_size=3),
        },
        optional={"location": st.none() | st.just({"lat": 1.0, "lon": 2.0}), "unit": st.text(max_size=2), "x": numbers},
    )
    return msgspec.msgpack.encode(draw(st.fixed_dictionaries({"series": st.lists(series, max_size=3)}) | numbers))


@SLOW
@given(sent=st.lists(requests(), min_size=1, max_size=4))
async def test_no_bytes_make_it_fail(world: World, sent: list[tuple[str, str, bytes]]) -> None:
    for path, media_type, body in sent:
        reply = await world.send(path, body, media_type)

        assert reply.status in {200, 201, 400, 404, 409, 413}
        if reply.status >= 400:
            assert reply.json()["code"]


@SLOW
@given(body=st.binary(max_size=60), media_type=st.sampled_from(["application/json", NDJSON, CSV, COLUMNS]))
async def test_no_noise_makes_it_fail(world: World, body: bytes, media_type: str) -> None:
    reply = await world.send(BATCH, body, media_type)

    assert reply.status in {200, 400}
