"""Meters, their registers and their readings. Energy is positive when delivered to the customer."""

from typing import Annotated

from msgspec import Struct

from smartgrid_schemas.event import Event, Instant, Plain, Pseudonymous, Sealed, personal
from smartgrid_schemas.telemetry import Corrects, Scalar


class RegisterKey(Struct, frozen=True, gc=False, array_like=True):
    """
    What a run of meter readings has in common.

    Attributes:
        meter_id: The meter.
        register: Its register, an OBIS code such as ``1.8.0``.
        unit: The unit as sent, such as ``kWh``.
    """

    meter_id: Annotated[str, Pseudonymous]
    register: Annotated[str, Plain]
    unit: Annotated[str, Plain]


class MeterReadingsRecorded(Event, tag="metering.readings-recorded.v1", frozen=True, kw_only=True, array_like=True):
    """
    Meter readings of one shard, in columns, as :class:`~smartgrid_schemas.telemetry.ReadingsRecorded`.

    On the stream ``registers:{shard}``.

    Attributes:
        shard: crc32(meter_id) mod 16.
        count: Number of rows, 1…4,096.
        series: What the rows of each run have in common.
        runs: Number of rows of each series, in order; they add up to *count*.
        measured_at: Microseconds since 1970 [µs], integer column.
        mantissas: Integer column; the register stood at mantissa * 10**exponent in the unit of its series.
        exponents: Integer column.
        qualities: Integer column of codes; absent: all measured.
        seqs: Integer column, -1 where a reading has none; absent: none has one.
        corrects: The rows that replace an earlier reading.
        metadata: (row, metadata as sent) of the rows that have some.
        requests: Correlation ids of the requests that brought the rows, if more than one.
        request_of: Integer column, index into *requests* of each row.
    """

    shard: Annotated[int, Plain]
    count: Annotated[int, Plain]
    series: Annotated[list[RegisterKey], Plain]
    runs: Annotated[list[int], Plain]
    measured_at: Annotated[bytes, Pseudonymous]
    mantissas: Annotated[bytes, Pseudonymous]
    exponents: Annotated[bytes, Pseudonymous]
    qualities: Annotated[bytes | None, Plain] = None
    seqs: Annotated[bytes | None, Plain] = None
    corrects: Annotated[list[Corrects] | None, Plain] = None
    metadata: Annotated[list[tuple[int, dict[str, Scalar]]] | None, Pseudonymous] = None
    requests: Annotated[list[str] | None, Plain] = None
    request_of: Annotated[bytes | None, Plain] = None


class MeterReadingRetracted(Event, tag="metering.reading-retracted.v1", frozen=True, kw_only=True):
    """
    A meter reading, an exchange or a reset no longer counts; it stays in the log.

    On the stream ``registers:{shard}`` for a reading, ``meter:{meter_id}`` for an exchange or reset.

    Attributes:
        event_id: The fact that no longer counts.
        kind: ``reading``, ``exchange`` or ``reset``.
        meter_id: Its meter.
        register: Its register.
        measured_at: When it was read or happened.
        seq: Sequence number of a reading.
        reason: Why, in the operator's words.
    """

    event_id: Annotated[str, Plain]
    kind: Annotated[str, Plain]
    meter_id: Annotated[str, Pseudonymous]
    register: Annotated[str, Plain]
    measured_at: Annotated[Instant, Pseudonymous]
    seq: Annotated[int | None, Plain] = None
    reason: Annotated[str, Plain]


class MeterRegistered(Event, tag="metering.meter-registered.v1", frozen=True, kw_only=True):
    """
    A meter was seen for the first time. First event of the stream ``meter:{meter_id}``.

    Attributes:
        meter_id: The meter.
        customer_id: Whose consumption it counts, from now on; null when unknown.
    """

    meter_id: Annotated[str, Pseudonymous]
    customer_id: Annotated[str | Sealed | None, personal("meter:meter_id")] = None


class MeterConfigured(Event, tag="metering.meter-configured.v1", frozen=True, kw_only=True):
    """
    The settings of a meter from now on, all of them. All but the customer apply to all its history.

    Attributes:
        meter_id: The meter.
        customer_id: Whose consumption it counts, from the recorded time on.
        rollover_at_wh: The register restarts at 0 when it reaches this [Wh].
        nominal_w: Power of the connection [W].
        expected_interval_s: Time between two readings [s].
        name: For people.
    """

    meter_id: Annotated[str, Pseudonymous]
    customer_id: Annotated[str | Sealed | None, personal("meter:meter_id")] = None
    rollover_at_wh: Annotated[int | None, Plain] = None
    nominal_w: Annotated[float | None, Plain] = None
    expected_interval_s: Annotated[float | None, Plain] = None
    name: Annotated[str | Sealed | None, personal("meter:meter_id")] = None


class MeterExchanged(Event, tag="metering.meter-exchanged.v1", frozen=True, kw_only=True):
    """
    A technician replaced the device behind a meter id.

    Attributes:
        meter_id: Our id of the meter; it survives the exchange.
        register: The register.
        at: When the new device began to count.
        old_final_wh: Last register value of the old device [Wh], ≥ 0.
        new_initial_wh: First register value of the new device [Wh], ≥ 0.
        reason: Why, in the operator's words.
    """

    meter_id: Annotated[str, Pseudonymous]
    register: Annotated[str, Plain]
    at: Annotated[Instant, Pseudonymous]
    old_final_wh: Annotated[int, Pseudonymous]
    new_initial_wh: Annotated[int, Pseudonymous]
    reason: Annotated[str, Plain]


class MeterReset(Event, tag="metering.meter-reset.v1", frozen=True, kw_only=True):
    """
    A register restarted from 0.

    Attributes:
        meter_id: The meter.
        register: The register.
        at: When it restarted.
        reason: Why, in the operator's words.
    """

    meter_id: Annotated[str, Pseudonymous]
    register: Annotated[str, Plain]
    at: Annotated[Instant, Pseudonymous]
    reason: Annotated[str, Plain]
