"""
Examples of every event, as they are stored; ``python tests/schemas/examples.py`` writes those that are missing.

What is written never changes again: a new example is a new name here, and a new shape a new version of its event.
"""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import numpy as np

from smartgrid_adapters.postgres.codec import encode
from smartgrid_domain.maths.columns import pack_meter_readings, pack_readings, rows_of
from smartgrid_ops.schema_files import freeze, record_checksums
from smartgrid_schemas.event import Event, Sealed
from smartgrid_schemas.identity import PasswordChanged, SessionEnded, SessionStarted, UserChanged, UserRegistered
from smartgrid_schemas.metering import (
    MeterConfigured,
    MeterExchanged,
    MeterReadingRetracted,
    MeterRegistered,
    MeterReset,
    RegisterKey,
)
from smartgrid_schemas.registry import name_of
from smartgrid_schemas.telemetry import (
    Corrects,
    Location,
    ReadingRetracted,
    SensorConfigured,
    SensorRegistered,
    SeriesKey,
)

SCHEMAS = Path(__file__).parents[2] / "schemas"

_AT = datetime(2026, 3, 29, 0, 59, 59, 999999, tzinfo=UTC)
_MICROS = 1_774_745_999_999_999
_ID = str(UUID(int=7))


def _sealed(subject: str) -> Sealed:
    return Sealed(subject, bytes(range(12)), bytes(range(40)))


EXAMPLES: dict[str, list[Event]] = {
    "full": [
        pack_readings(
            3,
            [SeriesKey("b7-s1", "voltage", "L1", "V"), SeriesKey("b7-s2", "power", None, "kW")],
            rows_of(
                [0, 0, 1],
                [_MICROS, _MICROS + 60_000_001, _MICROS],
                [2205, -1, 9_007_199_254_740_993],
                [-1, -300, 2],
                quality=[0, 4, 3],
                seq=[-1, 7, 2**53 - 1],
                corrects=[Corrects(1, UUID(int=7).bytes, "typed wrongly, ë")],
                metadata=[(0, {"firmware": "1.2", "ok": True, "rssi": -71.5, "count": 3, "none": None})],
                requests=["r-1", "r-2"],
                request_of=[0, 1, 1],
            ),
        ),
        pack_meter_readings(
            15,
            [RegisterKey("m-1", "1.8.0", "kWh"), RegisterKey("m-1", "2.8.0", "Wh")],
            rows_of(
                [0, 1],
                [_MICROS, _MICROS],
                [12345678, 0],
                [-3, 0],
                quality=[4, 2],
                seq=[1, -1],
                corrects=[Corrects(0, UUID(int=7).bytes, "read again")],
                metadata=[(1, {"reader": "a"})],
                requests=["r-1", "r-2"],
                request_of=[1, 0],
            ),
        ),
        ReadingRetracted(
            event_id=_ID, sensor_id="b7-s1", sensor_type="voltage", phase="L1", measured_at=_AT, seq=7, reason="test"
        ),
        SensorRegistered(sensor_id="b7-s1", location=Location(41.3275, 19.8187)),
        SensorConfigured(
            sensor_id="b7-s1",
            location=Location(-90.0, 180.0),
            nominal=230.0,
            expected_interval_s=60.0,
            name="Transformer ë",
            feeder="f-7",
        ),
        MeterReadingRetracted(
            event_id=_ID,
            kind="reading",
            meter_id="m-1",
            register="1.8.0",
            measured_at=_AT,
            seq=1,
            reason="wrong meter",
        ),
        MeterRegistered(meter_id="m-1", customer_id=_sealed("meter:m-1")),
        MeterConfigured(
            meter_id="m-1",
            customer_id=_sealed("meter:m-1"),
            rollover_at_wh=1_000_000_000,
            nominal_w=11_000.0,
            expected_interval_s=900.0,
            name=_sealed("meter:m-1"),
        ),
        MeterExchanged(
            meter_id="m-1", register="1.8.0", at=_AT, old_final_wh=12_345_678, new_initial_wh=0, reason="end of life"
        ),
        MeterReset(meter_id="m-1", register="1.8.0", at=_AT, reason="firmware"),
        UserRegistered(
            user_id="u-1",
            username=_sealed("user:u-1"),
            email=_sealed("user:u-1"),
            role="viewer",
            customer_id=_sealed("user:u-1"),
            via="admin",
        ),
        UserChanged(
            user_id="u-1",
            email=_sealed("user:u-1"),
            role="operator",
            customer_id=_sealed("user:u-1"),
            is_active=False,
        ),
        PasswordChanged(user_id="u-1"),
        SessionStarted(
            session_id="s-1",
            user_id="u-1",
            address=_sealed("user:u-1"),
            user_agent=_sealed("user:u-1"),
            expires_at=_AT,
        ),
        SessionEnded(session_id="s-1", user_id="u-1", reason="logout"),
    ],
    "least": [
        pack_readings(0, [SeriesKey("s", "frequency", None, "Hz")], rows_of([0], [0], [0], [0])),
        pack_meter_readings(0, [RegisterKey("m", "1.8.0", "Wh")], rows_of([0], [0], [0], [0])),
        ReadingRetracted(event_id=_ID, sensor_id="s", sensor_type="power", measured_at=_AT, reason=""),
        SensorConfigured(sensor_id="s"),
        MeterReadingRetracted(event_id=_ID, kind="reset", meter_id="m", register="1.8.0", measured_at=_AT, reason=""),
        MeterRegistered(meter_id="m"),
        MeterConfigured(meter_id="m"),
        UserRegistered(user_id="u", username="clear", email="", role="admin", via="bootstrap"),
        UserChanged(user_id="u", email="", role="viewer", is_active=True),
        SessionStarted(session_id="s", user_id="u", expires_at=_AT),
    ],
    "regular": [
        pack_readings(
            9,
            [SeriesKey("s", "voltage", "L1", "V")],
            rows_of([0] * 100, np.arange(100) * 1_000_000, 2300 + np.arange(100) % 7, [-1] * 100),
        ),
    ],
}
"""Name of the example → the events that have one of this name."""


def main() -> None:
    """Write what is missing."""
    for example, events in EXAMPLES.items():
        for event in events:
            path = SCHEMAS / "golden" / name_of(event) / f"{example}.msgpack"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode(event))
    record_checksums(SCHEMAS / "golden")
    freeze(SCHEMAS)


if __name__ == "__main__":
    main()
