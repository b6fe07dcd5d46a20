"""The quick ways through ingestion judge as the slow ones do."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from smartgrid_commands.reading_calls import One
from smartgrid_commands.reading_items import one_of, rows_of_items, sensor_source
from smartgrid_commands.reading_rows import READING_NAMESPACE, Rows, reading_id, reading_ids
from smartgrid_commands.reading_times import ABSENT, BAD, times_of
from smartgrid_domain.errors import Invalid
from smartgrid_domain.instants import BadInstant
from smartgrid_domain.reading_values import item_of
from smartgrid_domain.readings import Item, MeterReading, Place, SensorReading, time_of
from smartgrid_domain.strict_json import JSON_LIMITS
from smartgrid_http.hot.bodies import Clocked, from_json, sensor_body
from smartgrid_schemas.telemetry import Location

NOW = 1_768_473_000_000_000
LATEST = NOW + 300_000_000
WHEN = Clocked(NOW, LATEST, JSON_LIMITS, 10_000)
FIRST = datetime(1969, 12, 31, tzinfo=UTC)
SPAN_S = 132 * 366 * 86_400
Fields = dict[str, Any]

instants = st.integers(0, SPAN_S).map(lambda seconds: FIRST + timedelta(seconds=seconds))
offsets = st.sampled_from(["Z", "z", "+00:00", "-00:00", "+01:00", "-11:30", "+23:59", "+24:00", "+01:60", ""])


@st.composite
def texts(draw: st.DrawFn) -> str:
    text = draw(instants).strftime("%Y-%m-%dT%H:%M:%S")
    text += draw(st.sampled_from(["", ".0", ".5", ".123", ".123456", ".1234567", "."])) + draw(offsets)
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + draw(st.sampled_from(list("0123456789-+:.TZt é\0"))) + text[at + 1 :]
    return text


def slow_time(text: str | None) -> int:
    if text is None:
        return ABSENT
    try:
        return time_of(text, LATEST)
    except BadInstant:
        return BAD


@settings(max_examples=200)
@given(sent=st.lists(texts() | st.none(), min_size=1, max_size=6))
def test_many_times_are_read_as_one(sent: list[str | None]) -> None:
    assert times_of(sent, LATEST).tolist() == [slow_time(text) for text in sent]


@given(sent=st.lists(instants, min_size=1, max_size=20), zone=offsets)
def test_times_of_one_form_are_read_as_one(sent: list[datetime], zone: str) -> None:
    alike = [moment.strftime("%Y-%m-%dT%H:%M:%S") + zone for moment in sent]

    assert times_of(alike, LATEST).tolist() == [slow_time(text) for text in alike]


OPTIONAL: dict[str, list[Any]] = {
    "timestamp": ["2026-01-15T10:30:00Z", "2026-01-15T10:30:00.5+01:00", "x", "", None],
    "unit": ["V", "mV", "kW", "kWh", "Wh", "", None],
    "quality": ["measured", "suspect", "corrected", "", None],
    "seq": [None, 0, 1, -1, 2**53, 2**70],
    "metadata": [None, {}, {"a": 1}, {"a": "\0"}, {"a": 2**70}, {str(n): n for n in range(17)}],
    "corrects": [None, "", "x", "0f8c0000-0000-5000-8000-000000000000"],
    "reason": [None, "", "because", "x" * 501],
}
NUMBERS = [0.0, -0.0, 220.5, 1e5, 1.5e6, 1.6e6, -1.0, 1e13, float("nan"), float("inf"), 0.1 + 0.2]
IDS = ["s1", "s2", "", "a b", "a" * 129]
PLACES = [Place(lat, lon) for lat in (0.0, 91.0, float("nan")) for lon in (0.0, -181.0)]


@st.composite
def sensor_items(draw: st.DrawFn) -> SensorReading:
    more = {**OPTIONAL, "phase": ["L1", "total", "x", "", None], "location": [None, *PLACES]}
    chosen = draw(st.sets(st.sampled_from(sorted(more)), max_size=4))
    fields: Fields = {name: draw(st.sampled_from(more[name])) for name in sorted(chosen)}
    fields["sensor_type"] = draw(st.sampled_from(["voltage", "power", "x"]))
    return SensorReading(sensor_id=draw(st.sampled_from(IDS)), value=draw(st.sampled_from(NUMBERS)), **fields)


@st.composite
def meter_items(draw: st.DrawFn) -> MeterReading:
    more = {**OPTIONAL, "register": ["1.8.0", "", "\n", "x" * 33, None], "customer_id": [None, *IDS]}
    chosen = draw(st.sets(st.sampled_from(sorted(more)), max_size=4))
    fields: Fields = {name: draw(st.sampled_from(more[name])) for name in sorted(chosen)}
    return MeterReading(meter_id=draw(st.sampled_from(IDS)), reading=draw(st.sampled_from(NUMBERS)), **fields)


def row_of(rows: Rows, row: int) -> tuple[object, ...]:
    source = rows.sources[int(rows.source_of[row])]
    value = int(rows.mantissa[row]), int(rows.exponent[row]), int(rows.quality[row])
    untimed = rows.untimed is not None and bool(rows.untimed[row])
    key = int(rows.measured_at[row]), int(rows.seq[row])
    return source, *key, *value, untimed, rows.corrects.get(row), rows.metadata.get(row)


def row_of_one(one: One) -> tuple[object, ...]:
    value = one.mantissa, one.exponent, one.quality
    return (one.source, one.measured_at, one.seq, *value, one.untimed, one.corrects, one.metadata)


@settings(max_examples=150)
@given(items=st.lists(sensor_items(), min_size=1, max_size=6) | st.lists(meter_items(), min_size=1, max_size=6))
def test_many_items_are_judged_as_one_by_one(items: list[Any]) -> None:
    rows, bad = rows_of_items(items, np.arange(len(items)), NOW, LATEST)

    alone = [one_of(item, NOW, LATEST) for item in items]
    good = [(index, one) for index, one in enumerate(alone) if isinstance(one, One)]
    assert bad == {index: found for index, found in enumerate(alone) if not isinstance(found, One)}
    assert rows.item.tolist() == [index for index, _ in good]
    assert [row_of(rows, row) for row in range(len(rows))] == [row_of_one(one) for _, one in good]
    places: dict[object, Location | str] = {}
    for _, one in good:
        if one.place is not None:
            places.setdefault(one.source.owner, one.place)
    assert {owner: place for owner, (_, place) in rows.places.items()} == places


@given(item=sensor_items() | meter_items())
def test_item_as_struct_is_judged_as_its_plain_value(item: Item) -> None:
    value = {name: getattr(item, name) for name in item.__struct_fields__ if getattr(item, name) is not UNSET}
    if isinstance(place := value.get("location"), Place):
        value["location"] = {"lat": place.lat, "lon": place.lon}

    made, found = item_of(value, LATEST)
    alone = one_of(item, NOW, LATEST)

    if made is None:
        assert not isinstance(alone, One)
        assert sorted(found, key=repr) == sorted(alone, key=repr)
    else:
        again = one_of(made, NOW, LATEST)
        assert isinstance(alone, One)
        assert isinstance(again, One)
        assert row_of_one(alone) == row_of_one(again)


NAMES = ["sensor_id", "sensor_type", "value", "unit", "metadata", "location", "lat", "x"]
VALUES = ['"s1"', '"voltage"', "1", '{"a":1}', '{"a":1,"a":1}', '{"lat":1,"lon":2}', '":"']


@settings(max_examples=200)
@given(
    pairs=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=6),
    blank=st.sampled_from(["", " "]),
)
def test_key_that_comes_twice_never_passes(pairs: list[tuple[str, str]], blank: str) -> None:
    body = "{" + ",".join(f'"{name}"{blank}:{value}' for name, value in pairs) + "}"
    doubled = len({name for name, _ in pairs}) < len(pairs) or any(value == '{"a":1,"a":1}' for _, value in pairs)

    for read, text in ((sensor_body, body), (from_json, f'{{"readings":[{body}]}}')):
        code = None
        try:
            read(text.encode(), WHEN)
        except Invalid as error:
            code = error.code
        assert (code == "duplicate_key") == doubled


@given(key=st.sampled_from(["s1", "b-7"]), at=st.integers(0, 2**52), seq=st.sampled_from([None, 0, 2**53 - 1]))
def test_event_id_is_the_uuid_of_the_natural_key(key: str, at: int, seq: int | None) -> None:
    source = sensor_source(key, "voltage", "L1", None)
    assert source is not None
    number = -1 if seq is None else seq
    made = reading_ids([source], np.array([0]), np.array([at]), np.array([number]))[0].tobytes()

    name = f"sensor|{key}|voltage|L1|{at}|{'-' if seq is None else seq}"
    expected = uuid5(READING_NAMESPACE, name)
    assert UUID(bytes=made) == expected
    assert reading_id(source, at, number) == made
    assert UUID(bytes=reading_id(source, at, number, made)) == uuid5(READING_NAMESPACE, f"{name}|{expected}")


@pytest.mark.parametrize("count", [1, 2, 50])
def test_body_of_one_kind_and_of_two_are_read_alike(count: int) -> None:
    sensors: list[Fields] = [{"sensor_id": "s1", "sensor_type": "voltage", "value": n, "seq": n} for n in range(count)]
    meters: list[Fields] = [{"meter_id": "m1", "reading": n, "seq": n} for n in range(count)]

    apart = [from_json(json.dumps({"readings": items}).encode(), WHEN) for items in (sensors, meters)]
    mixed = from_json(json.dumps({"readings": [*sensors, *meters]}).encode(), WHEN)

    one_kind = [row_of(rows, row) for one in apart for rows in one.parts for row in range(len(rows))]
    two_kinds = [row_of(rows, row) for rows in mixed.parts for row in range(len(rows))]
    assert one_kind == two_kinds
