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

from smartgrid_commands.reading_rows import READING_NAMESPACE, Rows, joined, rows_of_items, rows_of_one
from smartgrid_commands.reading_times import ABSENT, BAD, times_of
from smartgrid_domain.errors import Invalid
from smartgrid_domain.instants import BadInstant
from smartgrid_domain.readings import Item, MeterReading, Place, SensorReading, item_of, time_of
from smartgrid_domain.strict_json import JSON_LIMITS
from smartgrid_http.hot.bodies import Clocked, from_json, sensor_body
from smartgrid_http.problems import Problem

NOW = 1_768_473_000_000_000
LATEST = NOW + 300_000_000
WHEN = Clocked(NOW, LATEST, JSON_LIMITS, 10_000)

instants = st.datetimes(
    datetime(1969, 12, 31),
    datetime(2101, 1, 2),
    timezones=st.just(UTC),  # noqa: DTZ001  # bounds are naive
)
offsets = st.sampled_from(["Z", "z", "+00:00", "-00:00", "+01:00", "-11:30", "+23:59", "+24:00", "+01:60", ""])


@st.composite
def texts(draw: st.DrawFn) -> str:
    text = draw(instants).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    text += draw(st.sampled_from(["", ".0", ".5", ".123", ".123456", ".1234567", "."])) + draw(offsets)
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + draw(st.sampled_from(list("0123456789-+:.TZt é\0"))) + text[at + 1 :]
    return text


def slow_time(text: str | None) -> int:
    if not isinstance(text, str):
        return ABSENT
    try:
        return time_of(text, LATEST)
    except BadInstant:
        return BAD


@settings(max_examples=300)
@given(sent=st.lists(texts() | st.none(), min_size=1, max_size=6))
def test_many_times_are_read_as_one(sent: list[str | None]) -> None:
    assert times_of(sent, LATEST).tolist() == [slow_time(text) for text in sent]


@settings(max_examples=100)
@given(start=instants, seconds=st.lists(st.integers(-(10**8), 10**8), min_size=1, max_size=20))
def test_times_of_one_form_are_read_as_one(start: datetime, seconds: list[int]) -> None:
    sent = [(start + timedelta(seconds=s)).strftime("%Y-%m-%dT%H:%M:%SZ") for s in seconds if -(10**8) <= s]

    assert times_of(sent, LATEST).tolist() == [slow_time(text) for text in sent]


maybe_text = st.sampled_from(["", "x", "V", "mV", "kW", "L1", "N", "total", "measured", "suspect", "corrected"])
optional: dict[str, st.SearchStrategy[Any]] = {
    "timestamp": st.sampled_from(["2026-01-15T10:30:00Z", "2026-01-15T10:30:00.5+01:00", "x", "", None]),
    "unit": st.sampled_from(["V", "mV", "kW", "kWh", "Wh", "", None]),
    "quality": st.sampled_from(["measured", "suspect", "corrected", "", None]),
    "seq": st.sampled_from([None, 0, 1, -1, 2**53, 2**70]),
    "metadata": st.sampled_from([None, {}, {"a": 1}, {"a": "\0"}, {"a": 2**70}, {str(n): n for n in range(17)}]),
    "corrects": st.sampled_from([None, "", "x", "0f8c0000-0000-5000-8000-000000000000"]),
    "reason": st.sampled_from([None, "", "because", "x" * 501]),
}
numbers = st.sampled_from([0.0, -0.0, 220.5, 1e5, 1.5e6, 1.6e6, -1.0, 1e13, float("nan"), float("inf"), 0.1 + 0.2])
ids = st.sampled_from(["s1", "s2", "", "a b", "a" * 129])


def some(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


places = st.none() | st.builds(Place, st.sampled_from([0.0, 91.0, float("nan")]), st.sampled_from([0.0, -181.0]))
sensor_items = st.builds(
    lambda key, kind, value, more: SensorReading(sensor_id=key, sensor_type=kind, value=value, **more),
    ids,
    st.sampled_from(["voltage", "power", "x"]),
    numbers,
    some({**optional, "phase": st.sampled_from(["L1", "total", "x", "", None]), "location": places}),
)
meter_items = st.builds(
    lambda key, value, more: MeterReading(meter_id=key, reading=value, **more),
    ids,
    numbers,
    some(
        {**optional, "register": st.sampled_from(["1.8.0", "", "\n", "x" * 33, None]), "customer_id": ids | st.none()}
    ),
)


def plain(rows: Rows) -> list[tuple[object, ...]]:
    return [
        (
            rows.sources[rows.source_of[row]],
            int(rows.measured_at[row]),
            int(rows.seq[row]),
            int(rows.mantissa[row]),
            int(rows.exponent[row]),
            int(rows.quality[row]),
            int(rows.item[row]),
            rows.untimed is not None and bool(rows.untimed[row]),
            rows.corrects.get(row),
            rows.metadata.get(row),
        )
        for row in range(len(rows))
    ]


@settings(max_examples=200)
@given(
    items=st.lists(sensor_items, min_size=1, max_size=6) | st.lists(meter_items, min_size=1, max_size=6),
)
def test_many_items_are_judged_as_one_by_one(items: list[Any]) -> None:
    rows, bad = rows_of_items(items, np.arange(len(items)), NOW, LATEST)

    parts: list[Rows] = []
    for index, item in enumerate(items):
        one = rows_of_one(item, NOW, LATEST)
        if isinstance(one, Rows):
            one.item[:] = index
            parts.append(one)
        else:
            assert bad.pop(index) == one
    assert bad == {}
    assert plain(rows) == plain(joined(parts))
    assert {owner: place for owner, (_, place) in rows.places.items()} == {
        owner: place for owner, (_, place) in joined(parts).places.items()
    }


@given(item=sensor_items | meter_items)
def test_item_as_struct_is_judged_as_its_plain_value(item: Item) -> None:
    value = {name: getattr(item, name) for name in item.__struct_fields__ if getattr(item, name) is not UNSET}
    if isinstance(value.get("location"), Place):
        value["location"] = {"lat": item.location.lat, "lon": item.location.lon}  # type: ignore[union-attr]

    made, found = item_of(value, LATEST)
    one = rows_of_one(item, NOW, LATEST)

    if made is None:
        assert sorted(found, key=repr) == sorted(one, key=repr)  # type: ignore[arg-type]
    else:
        again = rows_of_one(made, NOW, LATEST)
        assert isinstance(one, Rows)
        assert isinstance(again, Rows)
        assert plain(one) == plain(again)


names = st.sampled_from(["sensor_id", "sensor_type", "value", "unit", "metadata", "location", "lat", "x"])
members = st.lists(
    st.tuples(
        names, st.sampled_from(['"s1"', '"voltage"', "1", '{"a":1}', '{"a":1,"a":1}', '{"lat":1,"lon":2}', '":"'])
    ),
    max_size=6,
)


@settings(max_examples=300)
@given(pairs=members, blank=st.sampled_from(["", " "]))
def test_key_that_comes_twice_never_passes(pairs: list[tuple[str, str]], blank: str) -> None:
    body = "{" + ",".join(f'"{name}"{blank}:{value}' for name, value in pairs) + "}"
    doubled = len({name for name, _ in pairs}) < len(pairs) or any(value == '{"a":1,"a":1}' for _, value in pairs)

    for read, text in ((sensor_body, body), (from_json, f'{{"readings":[{body}]}}')):
        try:
            read(text.encode(), WHEN)
        except Invalid as error:
            assert (error.code == "duplicate_key") == doubled
        except Problem:
            raise
        else:
            assert not doubled


@given(key=st.sampled_from(["s1", "b-7"]), at=st.integers(0, 2**52), seq=st.sampled_from([None, 0, 2**53 - 1]))
def test_event_id_is_the_uuid_of_the_natural_key(key: str, at: int, seq: int | None) -> None:
    from smartgrid_commands.reading_rows import reading_ids, sensor_source

    source = sensor_source(key, "voltage", "L1", None)
    assert source is not None
    made = reading_ids([source], np.array([0]), np.array([at]), np.array([-1 if seq is None else seq]))

    name = f"sensor|{key}|voltage|L1|{at}|{'-' if seq is None else seq}"
    assert UUID(bytes=made[0].tobytes()) == uuid5(READING_NAMESPACE, name)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_body_of_one_kind_and_of_two_are_read_alike(count: int) -> None:
    sensors = [{"sensor_id": "s1", "sensor_type": "voltage", "value": n, "seq": n} for n in range(count)]
    meters = [{"meter_id": "m1", "reading": n, "seq": n} for n in range(count)]

    apart = [from_json(json.dumps({"readings": items}).encode(), WHEN) for items in (sensors, meters)]
    mixed = from_json(json.dumps({"readings": [*sensors, *meters]}).encode(), WHEN)

    assert [row[:6] for part in apart for row in plain(joined(part.parts))] == [
        row[:6] for row in plain(joined(mixed.parts))
    ]
