"""What a row of a log shows by itself of not being what was written: bytes that are no event, another register."""

from typing import Final

import numpy as np

from smartgrid_adapters.postgres.codec import UndecodableEvent, decode, decode_metadata
from smartgrid_domain.maths.columns import DamagedColumn, unpack
from smartgrid_domain.maths.quantities import MEASURANDS, METER_UNITS, Ints, converts
from smartgrid_schemas.event import Event
from smartgrid_schemas.metering import MeterReadingsRecorded
from smartgrid_schemas.telemetry import ReadingsRecorded

REGISTERED: Final = """
    SELECT r.position, string_agg(
        int8send((extract(epoch FROM r.measured_at) * 1000000)::bigint) || int8send(r.seq) || int8send(r.mantissa)
            || int8send(r.exponent), ''::bytea)
    FROM reading_register r WHERE r.position > %(after)s AND r.position <= %(up_to)s GROUP BY r.position
"""
"""The readings of the register by position, as bytes: time [µs since 1970], seq, mantissa, exponent."""


def is_plausible(topic: str, state: bytes, metadata: bytes | None, registered: bytes | None) -> bool:
    """
    Tell whether a row may be what was written.

    Args:
        topic: As stored.
        state: As stored.
        metadata: As stored.
        registered: What :data:`REGISTERED` holds of its position.
    """
    if ":" in topic:
        return True  # an event of the eventsourcing library, whose bytes are its own
    try:
        decode_metadata(topic, metadata)
        readings = _readings_of(decode(topic, state))
    except (UndecodableEvent, DamagedColumn, KeyError):
        return False
    there = np.frombuffer(registered or b"", ">i8").astype(np.int64).reshape(-1, 4)
    return _sorted(there) == _sorted(readings)


def _sorted(rows: Ints) -> list[list[int]]:
    numbers: list[list[int]] = rows.tolist()
    return sorted(numbers)


def _readings_of(event: Event) -> Ints:
    """Return time, seq, mantissa and exponent of each reading, in the canonical unit."""
    match event:
        case ReadingsRecorded():
            shifts = [MEASURANDS[key.sensor_type].units[key.unit] for key in event.series]
        case MeterReadingsRecorded():
            shifts = [METER_UNITS[key.unit] for key in event.series]
        case _:
            return np.zeros((0, 4), np.int64)
    rows = unpack(event)
    mantissas, exponents = converts(rows.mantissa, rows.exponent, np.array(shifts, np.int64)[rows.series_index])
    return np.stack((rows.measured_at_us, rows.seq, mantissas, exponents.astype(np.int64)), axis=1)
