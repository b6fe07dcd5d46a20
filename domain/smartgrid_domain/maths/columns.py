"""
Columns of integers in few bytes, and the readings of one event as columns.

A column names its own form: a constant stride; or the differences of neighbours, or the values themselves, less
their least, divided by their common divisor, in 1, 2, 4 or 8 bytes each, compressed where that is shorter. Four bytes
of CRC-32 over form, data and count close it, so that no flipped bit decodes to another number.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smartgrid_domain.maths.quantities import QUALITIES, Exponents, Ints, normals
from smartgrid_domain.maths.zstd import NotAFrame, squeeze, unsqueeze
from smartgrid_schemas.metering import MeterReadingsRecorded, RegisterKey
from smartgrid_schemas.telemetry import Corrects, ReadingsRecorded, Scalar, SeriesKey

MOST_VALUES: Final = 1 << 20
"""No column holds more, so a damaged count cannot ask for all memory."""

MOST_ROWS: Final = 4_096
"""No event holds more readings."""

_WIDTH, _DELTA, _SQUEEZED, _STRIDE, _KNOWN = 0b11, 0b100, 0b1000, 0b1_0000, 0b1_1111
_TYPES: Final = tuple(np.dtype(name) for name in ("<u1", "<u2", "<u4", "<u8"))
_LIMITS: Final = (1 << 8, 1 << 16, 1 << 32)
_CRC: Final = 4
_WORD: Final = 1 << 64
_WORTH_SQUEEZING: Final = 24  # bytes; a frame costs about 9
_ALIGNED: Final = 10**17  # mantissas of one run share an exponent while they stay below

Words = NDArray[np.uint64]


class DamagedColumn(ValueError):
    """Bytes at rest are not what was written: restore the event from a backup; do not guess its readings."""


def encode_ints(values: Ints) -> bytes:
    """
    Return *values* as bytes that :func:`decode_ints` reads back.

    Args:
        values: Up to :data:`MOST_VALUES` int64, any values.

    Guarantees:
        ``decode_ints(encode_ints(v), len(v))`` equals *v*; at most 8 bytes a value and 32 more.

    Example:
        >>> len(encode_ints(np.arange(0, 6_000_000_000, 60_000_000))), len(encode_ints(np.array([2205])))
        (10, 8)
    """
    count = len(values)
    if count > MOST_VALUES:
        raise ValueError(f"a column holds at most {MOST_VALUES} values")
    words = np.ascontiguousarray(values, np.int64).view(np.uint64)
    first = int(values[0]) if count else 0
    if count < 2:  # noqa: PLR2004  # one value has no neighbour
        return _sealed(_head(_STRIDE, first, 0), count)
    steps = words[1:] - words[:-1]
    if bool((steps == steps[0]).all()):
        return _sealed(_head(_STRIDE, first, int(steps[:1].view(np.int64)[0])), count)
    deltas = _narrowed(steps)
    offsets = _narrowed(words)
    bodies: list[bytes] = []
    if deltas.width <= offsets.width:
        bodies.append(_body(_head(_DELTA | deltas.width, first, deltas.least, deltas.divisor), deltas))
    if offsets.width <= deltas.width:
        bodies.append(_body(_head(offsets.width, offsets.least, offsets.divisor), offsets))
    return _sealed(min(bodies, key=len), count)


def decode_ints(data: bytes, count: int) -> Ints:
    """
    Return the *count* values that :func:`encode_ints` was given.

    Raises:
        DamagedColumn: *data* are not those bytes, or *count* is not their number.

    Guarantees:
        Never more than 8 · *count* bytes are made, whatever *data* say.

    Example:
        >>> decode_ints(encode_ints(np.array([7, 5, 5])), 3)
        array([7, 5, 5])
    """
    if not 0 <= count <= MOST_VALUES:
        raise DamagedColumn("no such number of values")
    body = data[:-_CRC]
    if len(data) <= _CRC or zlib.crc32(body, count) != int.from_bytes(data[-_CRC:], "little"):
        raise DamagedColumn("the check sum differs")
    form = body[0]
    if form & ~_KNOWN:
        raise DamagedColumn("no such form of column")
    if form & _STRIDE:
        return _stride(body, count)
    return _steps(body, count) if form & _DELTA else _offsets(body, count)


def _stride(body: bytes, count: int) -> Ints:
    first, at = _signed(body, 1)
    step, at = _signed(body, at)
    if at != len(body):
        raise DamagedColumn("bytes are left over")
    if step == 0:
        return np.full(count, first, np.int64)
    result = np.arange(count, dtype=np.int64)
    result *= step
    result += first
    return result


def _steps(body: bytes, count: int) -> Ints:
    if not count:
        raise DamagedColumn("a first value without a row")
    first, at = _signed(body, 1)
    least, at = _signed(body, at)
    result = np.empty(count, np.int64)
    result[0] = first
    _fill(result[1:], body, at, least)
    return np.add.accumulate(result, out=result)


def _offsets(body: bytes, count: int) -> Ints:
    least, at = _signed(body, 1)
    result = np.empty(count, np.int64)
    _fill(result, body, at, least)
    return result


def _fill(result: Ints, body: bytes, at: int, least: int) -> None:
    """Set *result*; all arithmetic is modulo 2**64, as the differences are."""
    divisor, at = _unsigned(body, at)
    result[...] = _narrow_words(body[at:], body[0], len(result))
    if divisor != 1:
        result *= divisor if divisor < _WORD // 2 else divisor - _WORD
    if least:
        result += least


@dataclass(frozen=True, slots=True)
class _Narrow:
    least: int
    divisor: int
    width: int
    values: NDArray[Any]


def _narrowed(words: Words) -> _Narrow:
    least = words.view(np.int64).min()
    rest = words - least.astype(np.uint64)
    divisor = max(1, int(np.gcd.reduce(rest)))
    if divisor > 1:
        rest //= np.uint64(divisor)
    most = int(rest.max())
    width = sum(most >= limit for limit in _LIMITS)
    return _Narrow(int(least), divisor, width, rest.astype(_TYPES[width]))


def _body(head: bytes, form: _Narrow) -> bytes:
    plain = form.values.tobytes()
    if len(plain) < _WORTH_SQUEEZING:
        return head + plain
    if form.width:  # bytes of equal weight together: the high ones are nearly all alike
        squeezed = squeeze(form.values.view(np.uint8).reshape(len(form.values), -1).T.tobytes())
    else:
        squeezed = squeeze(plain)
    if len(squeezed) < len(plain):
        return bytes((head[0] | _SQUEEZED,)) + head[1:] + squeezed
    return head + plain


def _narrow_words(data: bytes, form: int, number: int) -> NDArray[Any]:
    width = form & _WIDTH
    size = number << width
    if form & _SQUEEZED:
        try:
            data = unsqueeze(data, size)
        except NotAFrame as error:
            raise DamagedColumn("the compressed bytes are damaged") from error
        if width:
            planes = np.frombuffer(data, np.uint8).reshape(-1, number)
            return np.ascontiguousarray(planes.T).view(_TYPES[width]).ravel()
    elif len(data) != size:
        raise DamagedColumn("bytes are missing or left over")
    return np.frombuffer(data, _TYPES[width])


def _sealed(body: bytes, count: int) -> bytes:
    return body + zlib.crc32(body, count).to_bytes(_CRC, "little")


def _head(form: int, *numbers: int) -> bytes:
    """Form and varints; all numbers but a third or an offset's second are signed."""
    signed = 1 if not form & (_DELTA | _STRIDE) else 2
    result = bytearray((form,))
    for index, number in enumerate(numbers):
        value = number if index >= signed else number << 1 if number >= 0 else ~number << 1 | 1
        while value > 0x7F:  # noqa: PLR2004  # seven bits a byte, the eighth says that more follow
            result.append(value & 0x7F | 0x80)
            value >>= 7
        result.append(value)
    return bytes(result)


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[at : at + 10]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004  # the last byte of the number
            if value < _WORD:
                return value, at + shift // 7
            break
    raise DamagedColumn("a number is damaged")


def _signed(data: bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return (~(value >> 1) if value & 1 else value >> 1), at


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
    steps = np.diff(rows.series_index)
    if int(rows.series_index[0]) != 0 or int(rows.series_index[-1]) != number - 1 or np.any((steps < 0) | (steps > 1)):
        raise ValueError("rows are sorted by series, and each series has some")
    starts = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(steps) + 1))
    mantissas, exponents = _aligned(rows.mantissa, rows.exponent.astype(np.int64), starts)
    return {
        "runs": np.diff(starts, append=count).tolist(),
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


def _aligned(mantissas: Ints, exponents: Ints, starts: Ints) -> tuple[Ints, Ints]:
    """Give the values of each run one exponent where the mantissas stay small: 241.8, 242 become 2418, 2420."""
    lengths = np.diff(starts, append=len(mantissas))
    least = np.repeat(np.minimum.reduceat(exponents, starts), lengths)
    shifts = np.where(mantissas == 0, 0, exponents - least)
    room = np.array([_ALIGNED // 10**shift if shift < 17 else 0 for shift in range(19)])  # noqa: PLR2004
    near = np.minimum(shifts, 18)
    fits = (mantissas <= room[near]) & (mantissas >= -room[near])
    whole_run = np.repeat(np.logical_and.reduceat(fits, starts), lengths)
    scaled = mantissas * np.array([10**shift for shift in range(19)])[np.where(whole_run, near, 0)]
    return np.where(whole_run, scaled, mantissas), np.where(whole_run, least, exponents)


def unpack(event: ReadingsRecorded | MeterReadingsRecorded, *, normal: bool = True) -> Rows:
    """
    Return the rows of an event.

    Args:
        event: As it was stored.
        normal: Whether values come without trailing zeros in the mantissa, as they were packed. Rollups do not need
            it and save the time: the value is the same.

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
    _check_rows([correction.row for correction in corrects], count)
    _check_rows([row for row, _ in metadata], count)
    if (event.request_of is None) != (not requests):
        raise DamagedColumn("requests and their column do not agree")
    return Rows(
        series_index=np.repeat(np.arange(len(runs)), runs) if len(runs) > 1 else np.zeros(count, np.int64),
        measured_at_us=decode_ints(event.measured_at, count),
        mantissa=mantissas,
        exponent=exponents,
        quality=_limited(event.qualities, count, 0, len(QUALITIES) - 1).astype(np.int8)
        if event.qualities
        else np.zeros(count, np.int8),
        seq=_limited(event.seqs, count, -1, 2**53 - 1) if event.seqs else np.full(count, -1, np.int64),
        corrects=corrects,
        metadata=metadata,
        requests=requests,
        request_of=_limited(event.request_of, count, 0, len(requests) - 1)
        if event.request_of
        else np.zeros(count, np.int64),
    )


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
