"""Rows and arrays in PostgreSQL's binary form, built in one go."""

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from psycopg import BaseConnection, pq
from psycopg.abc import Buffer
from psycopg.adapt import Dumper

_INT4 = struct.Struct("!i").pack
_ARRAY = struct.Struct("!iiIii").pack
_NULL = _INT4(-1)
_BIGINT = struct.Struct("!iq").pack
_COPY_START = struct.Struct("!hiqi").pack
_COPY_MIDDLE = struct.Struct("!iqi").pack
_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + b"\0" * 8
_COPY_END = struct.pack("!h", -1)


class EventRow(NamedTuple):
    """
    One event as a log stores it.

    Attributes:
        stream: Its stream.
        version: Its version, from 1.
        topic: Its name.
        state: Its encoded body.
        metadata: Its encoded metadata, None for none.
    """

    stream: str
    version: int
    topic: str
    state: bytes
    metadata: bytes | None


def copy_lines(rows: Iterable[EventRow], base: int) -> bytes:
    """Return *rows* as the data of a binary COPY, at positions *base* + 1 and so on."""
    parts = [_COPY_HEAD]
    add = parts.append
    for position, (stream, version, topic, state, metadata) in enumerate(rows, base + 1):
        stream_bytes, topic_bytes = stream.encode(), topic.encode()
        add(_COPY_START(6, 8, position, len(stream_bytes)))
        add(stream_bytes)
        add(_COPY_MIDDLE(8, version, len(topic_bytes)))
        add(topic_bytes)
        add(_INT4(len(state)))
        add(state)
        if metadata is None:
            add(_NULL)
        else:
            add(_INT4(len(metadata)))
            add(metadata)
    add(_COPY_END)
    return b"".join(parts)


class BinaryArray:
    """A one-dimensional array that is already in binary form; its subclasses name the type."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class TextArray(BinaryArray):
    """``text[]``."""

    __slots__ = ()

    @classmethod
    def of(cls, items: Sequence[str]) -> "TextArray":
        """Return *items* as an array."""
        return cls(_packed(25, [item.encode() for item in items]))


class BytesArray(BinaryArray):
    """``bytea[]``."""

    __slots__ = ()

    @classmethod
    def of(cls, items: Sequence[bytes | None]) -> "BytesArray":
        """Return *items* as an array."""
        return cls(_packed(17, items))


class BigintArray(BinaryArray):
    """``bigint[]``."""

    __slots__ = ()

    @classmethod
    def of(cls, items: Sequence[int]) -> "BigintArray":
        """Return *items* as an array."""
        return cls(_ARRAY(1, 0, 20, len(items), 1) + b"".join([_BIGINT(8, item) for item in items]))


def _packed(oid: int, items: Sequence[bytes | None]) -> bytes:
    parts = [_ARRAY(1, 1, oid, len(items), 1)]  # the flag for "may hold nulls" is always allowed
    for item in items:
        if item is None:
            parts.append(_NULL)
        else:
            parts += (_INT4(len(item)), item)
    return b"".join(parts)


class _BinaryArrayDumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: BinaryArray) -> Buffer | None:
        return obj.data


class _TextArrayDumper(_BinaryArrayDumper):
    oid = 1009


class _BytesArrayDumper(_BinaryArrayDumper):
    oid = 1001


class _BigintArrayDumper(_BinaryArrayDumper):
    oid = 1016


def register(conn: BaseConnection[Any]) -> None:
    """Let *conn* send arrays that are in binary form already."""
    conn.adapters.register_dumper(TextArray, _TextArrayDumper)
    conn.adapters.register_dumper(BytesArray, _BytesArrayDumper)
    conn.adapters.register_dumper(BigintArray, _BigintArrayDumper)
