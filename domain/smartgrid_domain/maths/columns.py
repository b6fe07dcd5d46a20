"""The readings of one event as columns of integers (:mod:`~smartgrid_domain.maths.integers`), and back as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smartgrid_domain.maths.integers import MOST_VALUES, DamagedColumn, decode_ints, encode_ints
from smartgrid_domain.maths.quantities import QUALITIES, Exponents, Ints, normals
from smartgrid_schemas.metering import MeterReadingsRecorded, RegisterKey
from smartgrid_schemas.telemetry import Corrects, ReadingsRecorded, Scalar, SeriesKey

__all__ = [
    "MOST_ROWS",
    "MOST_VALUES",
    "DamagedColumn",
    "Rows",
    "decode_ints",
    "encode_ints",
    "pack_meter_readings",
    "pack_readings",
    "rows_of",
    "unpack",
]

MOST_ROWS: Final = 4_096
"""No event holds more readings."""

_TENS: Final = np.array([10**power for power in range(18)])
_ROOM: Final = 10**17 // _TENS  # mantissas of one run share an exponent while they stay below 10**17
_ROOM[-1] = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """
    The readings of one event as arrays of one length, sorted by series, then as they came.

    Attributes:
        series_index: Index into the *series* of the event, not descending (int64).
        measured_at_us: When it was measured [µs since 1970] (int64).
        mantissa: The value is mantissa · 10**exponent in the unit of its series, as sent (int64).
        exponent: Likewise (int16).
        quality: Code of :data:`~smartgrid_domain.maths.quantities.QUALITIES` (int8).
        seq: Sequence number, -1 where the reading has none (int64).
        corrects: The rows that replace an earlier reading, by ascending row.
        metadata: (row, metadata as sent) of the rows that have some, by ascending row.
        requests: Correlation ids of the requests that brought the rows; empty when the envelope's is that of all.
        request_of: Index into *requests* of each row (int64); all 0 when there are none.
    """

    series_index: Ints
    measured_at_us: Ints
    mantissa: Ints
    exponent: Exponents
    quality: NDArray[np.int8]
    seq: Ints
    corrects: Sequence[Corrects] = ()
    metadata: Sequence[tuple[int, dict[str, Scalar]]] = ()
    requests: Sequence[str] = ()
    request_of: Ints

    def __len__(self) -> int:
        return len(self.measured_at_us)


def rows_of(  # noqa: PLR0913  # one argument a column
    series_index: Ints | Sequence[int],
    measured_at_us: Ints | Sequence[int],
    mantissa: Ints | Sequence[int],
    exponent: NDArray[np.integer[Any]] | Sequence[int],
    *,
    quality: NDArray[np.integer[Any]] | Sequence[int] | None = None,
    seq: Ints | Sequence[int] | None = None,
    corrects: Sequence[Corrects] = (),
    metadata: Sequence[tuple[int, dict[str, Scalar]]] = (),
    requests: Sequence[str] = (),
    request_of: Ints | Sequence[int] | None = None,
) -> Rows:
    """
    Return rows from lists or arrays; what is left out is *measured*, without sequence number, of one request.

    Example:
        >>> rows_of([0, 0], [0, 60_000_000], [2205, 221], [-1, 0]).seq
        array([-1, -1])
    """
    count = len(measured_at_us)
    return Rows(
        series_index=np.asarray(series_index, np.int64),
        measured_at_us=np.asarray(measured_at_us, np.int64),
        mantissa=np.asarray(mantissa, np.int64),
        exponent=np.asarray(exponent, np.int16),
        quality=np.zeros(count, np.int8) if quality is None else np.asarray(quality, np.int8),
        seq=np.full(count, -1, np.int64) if seq is None else np.asarray(seq, np.int64),
        corrects=corrects,
        metadata=metadata,
        requests=requests,
        request_of=np.zeros(count, np.int64) if request_of is None else np.asarray(request_of, np.int64),
    )


def pack_readings(shard: int, series: Sequence[SeriesKey], rows: Rows) -> ReadingsRecorded:
    """
    Return the event of sensor readings that :func:`unpack` gives back as *rows*.

    Args:
        shard: crc32(sensor_id) mod 16 of all of them.
        series: What the rows of each index have in common; each has at least one row.
        rows: 1 … :data:`MOST_ROWS` readings, sorted by series; values normal.

    Raises:
        ValueError: *rows* break one of these rules.
    """
    return ReadingsRecorded(shard=shard, count=len(rows), series=list(series), **_columns(len(series), rows))


def pack_meter_readings(shard: int, series: Sequence[RegisterKey], rows: Rows) -> MeterReadingsRecorded:
    """
    Return the event of meter readings that :func:`unpack` gives back as *rows*; as :func:`pack_readings`.

    Raises:
        ValueError: *rows* break a rule of :func:`pack_readings`.
    """
    return MeterReadingsRecorded(shard=shard, count=len(rows), series=list(series), **_columns(len(series), rows))


def _columns(number: int, rows: Rows) -> dict[str, Any]:
    count = len(rows)
    if not 1 <= count <= MOST_ROWS:
        raise ValueError(f"an event holds 1 to {MOST_ROWS} readings")
    starts = _starts(number, rows.series_index)
    mantissas, exponents = _aligned(rows.mantissa, rows.exponent.astype(np.int64), starts)
    return {
        "runs": [end - start for start, end in pairwise([*starts.tolist(), count])],
        "measured_at": encode_ints(rows.measured_at_us),
        "mantissas": encode_ints(mantissas),
        "exponents": encode_ints(exponents),
        "qualities": encode_ints(rows.quality.astype(np.int64)) if rows.quality.any() else None,
        "seqs": encode_ints(rows.seq) if np.any(rows.seq != -1) else None,
        "corrects": list(rows.corrects) or None,
        "metadata": list(rows.metadata) or None,
        "requests": list(rows.requests) or None,
        "request_of": encode_ints(rows.request_of) if rows.requests else None,
    }


def _starts(number: int, index: Ints) -> Ints:
    """Return the first row of each series."""
    if number == 1 and not index.any():
        return np.zeros(1, np.int64)
    steps = index[1:] - index[:-1]
    if int(index[0]) != 0 or int(index[-1]) != number - 1 or bool(((steps < 0) | (steps > 1)).any()):
        raise ValueError("rows are sorted by series, and each series has some")
    return np.concatenate((np.zeros(1, np.int64), np.flatnonzero(steps) + 1))


def _aligned(mantissas: Ints, exponents: Ints, starts: Ints) -> tuple[Ints, Ints]:
    """Give the values of each run one exponent where the mantissas stay small: 241.8, 242 become 2418, 2420."""
    if bool((exponents == exponents[0]).all()):
        return mantissas, exponents
    lengths = np.diff(starts, append=len(mantissas))
    least = np.repeat(np.minimum.reduceat(exponents, starts), lengths)
    shifts = np.minimum(np.where(mantissas == 0, 0, exponents - least), len(_TENS) - 1)
    fits = (mantissas <= _ROOM[shifts]) & (mantissas >= -_ROOM[shifts])
    whole_run = np.repeat(np.logical_and.reduceat(fits, starts), lengths)
    scaled = mantissas * _TENS[np.where(whole_run, shifts, 0)]
    return np.where(whole_run, scaled, mantissas), np.where(whole_run, least, exponents)


def unpack(event: ReadingsRecorded | MeterReadingsRecorded, *, normal: bool = True) -> Rows:
    """
    Return the rows of an event.

    Args:
        event: As it was stored.
        normal: Whether values come without trailing zeros in the mantissa, as they were packed. Rollups do not need
            it and save the time: the value is the same.

    Returns:
        Arrays that are not to be written to; some are shared.

    Raises:
        DamagedColumn: The event is not one that was packed: restore it from a backup.
    """
    count, runs = event.count, event.runs
    if not 1 <= count <= MOST_ROWS or sum(runs) != count or min(runs) < 1 or len(runs) != len(event.series):
        raise DamagedColumn("count, runs and series do not agree")
    mantissas = decode_ints(event.mantissas, count)
    exponents = _exponents(event.exponents, count)
    if normal:
        mantissas, exponents = normals(mantissas, exponents)
    corrects, metadata, requests = event.corrects or (), event.metadata or (), event.requests or ()
    if corrects or metadata:
        _check_rows([correction.row for correction in corrects], count)
        _check_rows([row for row, _ in metadata], count)
    if (event.request_of is None) != (not requests):
        raise DamagedColumn("requests and their column do not agree")
    zeros, measured, absent = _defaults(count)
    return Rows(
        series_index=np.repeat(np.arange(len(runs)), runs) if len(runs) > 1 else zeros,
        measured_at_us=decode_ints(event.measured_at, count),
        mantissa=mantissas,
        exponent=exponents,
        quality=_limited(event.qualities, count, 0, len(QUALITIES) - 1).astype(np.int8)
        if event.qualities is not None
        else measured,
        seq=_limited(event.seqs, count, -1, 2**53 - 1) if event.seqs is not None else absent,
        corrects=corrects,
        metadata=metadata,
        requests=requests,
        request_of=_limited(event.request_of, count, 0, len(requests) - 1) if event.request_of is not None else zeros,
    )


@lru_cache(maxsize=128)
def _defaults(count: int) -> tuple[Ints, NDArray[np.int8], Ints]:
    """Return columns that an event leaves out, not to be written to."""
    columns = np.zeros(count, np.int64), np.zeros(count, np.int8), np.full(count, -1, np.int64)
    for column in columns:
        column.flags.writeable = False
    return columns


def _limited(data: bytes, count: int, low: int, high: int) -> Ints:
    values = decode_ints(data, count)
    if int(values.min()) < low or int(values.max()) > high:
        raise DamagedColumn("a number is out of its range")
    return values


@lru_cache(maxsize=256)
def _exponents(data: bytes, count: int) -> Exponents:
    """Return exponents, not to be written to: nearly all events of a measurand share these few bytes."""
    result = _limited(data, count, -400, 400).astype(np.int16)
    result.flags.writeable = False
    return result


def _check_rows(rows: list[int], count: int) -> None:
    if rows and (rows[0] < 0 or rows[-1] >= count or any(a >= b for a, b in pairwise(rows))):
        raise DamagedColumn("there is no such row")
