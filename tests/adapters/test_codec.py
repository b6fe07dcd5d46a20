import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_adapters.postgres.codec import (
    DamagedEvent,
    UndecodableEvent,
    UnknownEvent,
    decode,
    decode_metadata,
    encode,
    encode_metadata,
)
from smartgrid_schemas.envelope import Metadata
from smartgrid_schemas.event import Event
from smartgrid_schemas.identity import UserRegistered
from smartgrid_schemas.metering import MeterExchanged
from smartgrid_schemas.registry import EVENT_OF, name_of
from smartgrid_schemas.telemetry import ReadingsRecorded, SeriesKey

EXAMPLES: list[Event] = [
    ReadingsRecorded(
        shard=3,
        count=2,
        series=[SeriesKey("s1", "voltage", "L1", "V"), SeriesKey("s2", "power", None, "kW")],
        runs=[1, 1],
        measured_at=b"\x00" * 16,
        mantissas=b"\x01" * 16,
        exponents=b"\xff" * 2,
        metadata=[(0, {"firmware": "1.2", "ok": True, "rssi": -71.5, "none": None})],
    ),
    MeterExchanged(
        meter_id="m1",
        register="1.8.0",
        at=datetime(2026, 3, 29, 1, tzinfo=UTC),
        old_final_wh=10,
        new_initial_wh=0,
        reason="worn ë",
    ),
    UserRegistered(user_id="u", username="ana", email="a@b.example", role="viewer", via="self"),
]


@pytest.mark.parametrize("event", EXAMPLES, ids=name_of)
def test_what_was_encoded_decodes_to_the_same(event: Event) -> None:
    assert decode(name_of(event), encode(event)) == event


@pytest.mark.parametrize("event", EXAMPLES, ids=name_of)
def test_every_truncation_is_damage(event: Event) -> None:
    data = encode(event)

    for length in range(len(data)):
        with pytest.raises(DamagedEvent):
            decode(name_of(event), data[:length])
    with pytest.raises(DamagedEvent):
        decode(name_of(event), data + b"\x00")


@pytest.mark.parametrize("event", EXAMPLES, ids=name_of)
def test_every_flipped_bit_gives_an_event_or_damage(event: Event) -> None:
    data = encode(event)

    for at in range(len(data)):
        for bit in range(8):
            flipped = data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]
            with contextlib.suppress(DamagedEvent):
                assert type(decode(name_of(event), flipped)) is type(event)


@settings(max_examples=2000)
@given(name=st.sampled_from(sorted(EVENT_OF)), data=st.binary(max_size=64))
def test_any_bytes_give_nothing_but_an_event_or_damage(name: str, data: bytes) -> None:
    with contextlib.suppress(DamagedEvent):
        decode(name, data)


@pytest.mark.parametrize(
    "data", [b"\x91" * 100_000, b"\x81\xa1a" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xa1\xff"]
)
def test_depth_and_absurd_lengths_are_damage(data: bytes) -> None:
    for name in EVENT_OF:
        with pytest.raises(DamagedEvent):
            decode(name, data)


def test_the_bytes_of_another_event_are_damage() -> None:
    with pytest.raises(DamagedEvent):
        decode("metering.meter-reset.v1", encode(EXAMPLES[1]))


def test_a_name_of_no_event_is_unknown() -> None:
    with pytest.raises(UnknownEvent) as error:
        decode("telemetry.readings-recorded.v99", b"")

    assert isinstance(error.value, UndecodableEvent)
    assert error.value.name == "telemetry.readings-recorded.v99"


@given(
    st.builds(
        Metadata,
        actor=st.none() | st.text(),
        correlation_id=st.none() | st.text(),
        causation_id=st.none() | st.text(),
    )
)
def test_metadata_comes_back(metadata: Metadata) -> None:
    assert decode_metadata("x", encode_metadata(metadata)) == metadata


def test_empty_metadata_takes_no_bytes() -> None:
    assert encode_metadata(Metadata()) is None


@given(st.binary(max_size=40))
def test_any_bytes_give_nothing_but_metadata_or_damage(data: bytes) -> None:
    with contextlib.suppress(DamagedEvent):
        decode_metadata("x", data)
