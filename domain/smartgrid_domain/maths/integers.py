"""
A column of integers in few bytes.

A column names its own form: a constant stride; or the differences of neighbours, or the values themselves, less
their least, divided by their common divisor, in 1, 2, 4 or 8 bytes each, compressed where that is shorter. Four bytes
of CRC-32 over form, data and count close it, so that no flipped bit decodes to another number.
"""

import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smartgrid_domain.maths.quantities import Ints
from smartgrid_domain.maths.zstd import NotAFrame, squeeze, unsqueeze

MOST_VALUES: Final = 1 << 20
"""No column holds more, so a damaged count cannot ask for all memory."""

_WIDTH, _DELTA, _SQUEEZED, _STRIDE, _KNOWN = 0b11, 0b100, 0b1000, 0b1_0000, 0b1_1111
_TYPES: Final = tuple(np.dtype(name) for name in ("<u1", "<u2", "<u4", "<u8"))
_LIMITS: Final = (1 << 8, 1 << 16, 1 << 32)
_CRC: Final = 4
_WORD: Final = 1 << 64
_WORTH_SQUEEZING: Final = 24  # bytes; a frame costs about 9

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
