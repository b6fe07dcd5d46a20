"""Stored bytes that something damaged: a disk, a cable, a program, somebody who knows the check sums."""

import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
from msgspec import Struct, msgpack
from msgspec.structs import replace
from tests.schemas.examples import SCHEMAS

from smartgrid_adapters.postgres.codec import DamagedEvent, UnknownEvent, decode, encode
from smartgrid_domain.maths.columns import DamagedColumn, pack_meter_readings, pack_readings, rows_of, unpack
from smartgrid_schemas.event import Event
from smartgrid_schemas.metering import MeterReadingsRecorded, RegisterKey
from smartgrid_schemas.registry import EVENT_OF, name_of
from smartgrid_schemas.telemetry import Corrects, ReadingsRecorded, SeriesKey

Readings = ReadingsRecorded | MeterReadingsRecorded
COLUMNS = ("measured_at", "mantissas", "exponents", "qualities", "seqs", "request_of")
ODD_NUMBERS = (-(2**63), -1, 0, 1, 255, 4096, 4097, 2**31, 2**63 - 1, 2**64 - 1)


class State(Struct, frozen=True):
    """
    A row of a log, damaged.

    Attributes:
        way: What happened to it.
        name: Event name beside it.
        data: The bytes.
        whole: The bytes before.
    """

    way: str
    name: str
    data: bytes
    whole: bytes


def whole_states() -> list[tuple[str, bytes]]:
    """Return every stored example, and events of readings of many sizes and forms."""
    stored = [(path.parent.name, path.read_bytes()) for path in sorted(SCHEMAS.glob("golden/*/*.msgpack"))]
    return stored + [(name_of(event), encode(event)) for event in _readings()]


def _readings() -> Iterator[Readings]:
    random_numbers = np.random.default_rng(7)
    for count in (1, 2, 7, 60, 100, 999, 4096):
        times = 1_767_225_600_000_000 + np.arange(count) * 1_000_000
        noisy = times + random_numbers.integers(0, 1000, count)
        values = random_numbers.integers(2_200_000, 2_400_000, count)
        wild = random_numbers.integers(-(2**62), 2**62, count)
        exponents = random_numbers.integers(-6, 3, count)
        yield pack_readings(
            1, [SeriesKey("s", "voltage", "L1", "V")], rows_of([0] * count, times, values, [-4] * count)
        )
        yield pack_meter_readings(
            2,
            [RegisterKey("m", "1.8.0", "kWh"), RegisterKey("n", "1.8.0", "Wh")][: min(2, count)],
            rows_of(
                [min(1, row) for row in range(count)],
                noisy,
                wild,
                exponents,
                quality=random_numbers.integers(0, 5, count),
                seq=random_numbers.integers(-1, 2**53, count),
                corrects=[Corrects(count - 1, bytes(16), "read again")],
                metadata=[(0, {"reader": "a", "n": 1, "x": 0.5, "none": None})],
                requests=["r-1", "r-2"],
                request_of=random_numbers.integers(0, 2, count),
            ),
        )


def damaged_states(seed: int, number: int) -> Iterator[State]:
    """Return *number* states, each damaged in a way drawn from *seed*."""
    draw = random.Random(seed)
    states = whole_states()
    readings = [(name, data) for name, data in states if name.endswith(".readings-recorded.v1")]
    for _ in range(number):
        way = draw.choice(list(WAYS))
        name, data = draw.choice(readings if way in INSIDE else states)
        yield WAYS[way](draw, way, name, data)


def _flipped(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _truncated(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.randrange(len(data))]


def _overwritten(draw: random.Random, data: bytes) -> bytes:
    at, length = draw.randrange(len(data)), draw.choice((1, 4, 16, 512))
    filling = draw.choice((bytes(length), b"\xff" * length, draw.randbytes(length)))
    return data[:at] + filling[: len(data) - at] + data[at + length :]


def _shifted(draw: random.Random, data: bytes) -> bytes:
    at, length = draw.randrange(len(data)), draw.randrange(1, 9)
    return draw.choice((data[:at] + data[at + length :], data[:at] + draw.randbytes(length) + data[at:]))


def _outside(change: Callable[[random.Random, bytes], bytes]) -> Callable[[random.Random, str, str, bytes], State]:
    return lambda draw, way, name, data: State(way, name, change(draw, data), data)


def _another_name(draw: random.Random, way: str, name: str, data: bytes) -> State:
    names = [*EVENT_OF, name[:-1] + "9", name.replace("e", "f", 1), ""]
    return State(way, draw.choice(names), data, data)


def _in_column(draw: random.Random, way: str, name: str, data: bytes) -> State:
    """Damage a column in an event that is whole otherwise."""
    event = cast("Readings", decode(name, data))
    column = draw.choice([column for column in COLUMNS if getattr(event, column)])
    changed = draw.choice((_flipped, _truncated, _overwritten))(draw, getattr(event, column))
    return State(way, name, encode(replace(event, **{column: changed})), data)


def _in_column_with_its_check_sum(draw: random.Random, way: str, name: str, data: bytes) -> State:
    """As :func:`_in_column`, by somebody who knows how a column is checked."""
    event = cast("Readings", decode(name, data))
    column = draw.choice([column for column in COLUMNS if getattr(event, column)])
    body = draw.choice((_flipped, _truncated, _overwritten, _shifted))(draw, getattr(event, column)[:-4])
    closed = body + zlib.crc32(body, event.count).to_bytes(4, "little")
    return State(way, name, encode(replace(event, **{column: closed})), data)


def _in_numbers(draw: random.Random, way: str, name: str, data: bytes) -> State:
    """Put an odd number where another one is."""
    places = msgpack.decode(data)
    at = draw.choice((1, 2, 4))  # shard, count, runs
    places[at] = [draw.choice(ODD_NUMBERS) for _ in places[at]] if at == 4 else draw.choice(ODD_NUMBERS)
    return State(way, name, msgpack.encode(places), data)


INSIDE = {
    "column": _in_column,
    "column, check sum right": _in_column_with_its_check_sum,
    "numbers": _in_numbers,
}
WAYS: dict[str, Callable[[random.Random, str, str, bytes], State]] = {
    "flipped": _outside(_flipped),
    "truncated": _outside(_truncated),
    "overwritten": _outside(_overwritten),
    "shifted": _outside(_shifted),
    "another name": _another_name,
    **INSIDE,
}


def outcome_of(state: State) -> str:
    """
    Read *state* as the product does, columns included, and return what came of it.

    Whatever is raised but the typed errors comes out of here as it is.
    """
    try:
        event: Event = decode(state.name, state.data)
        if isinstance(event, ReadingsRecorded | MeterReadingsRecorded):
            rows = unpack(event)
            if len(rows) != event.count or len(unpack(event, normal=False)) != event.count:
                return "rows are missing"
    except (DamagedEvent, UnknownEvent, DamagedColumn) as error:
        return type(error).__name__
    return "the same" if state.data == state.whole else "another event"


def outcomes(seed: int, number: int) -> Counter[tuple[str, str]]:
    """Return how often each way of damage had each outcome."""
    return Counter((state.way, outcome_of(state)) for state in damaged_states(seed, number))
