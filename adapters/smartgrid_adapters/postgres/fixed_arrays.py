"""Columns of numbers as PostgreSQL reads them in binary: as array parameters, and as the rows of a COPY."""

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from psycopg import AsyncConnection, pq
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.rows import TupleRow

EPOCH_2000_US: Final = 946_684_800_000_000
"""PostgreSQL counts its microseconds from 2000."""

_HEAD = struct.Struct("!iiIii").pack
_COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + b"\0" * 8
_COPY_END: Final = struct.pack("!h", -1)


class FixedArray:
    """A one-dimensional array of a type of fixed width, in binary form."""

    __slots__ = ("data",)
    element_oid = 0
    array_oid = 0
    kind: str | tuple[Any, ...] = "V0"

    def __init__(self, values: NDArray[Any]) -> None:
        kind = np.dtype(self.kind)
        body = np.empty(len(values), [("length", ">i4"), ("value", kind)])
        body["length"] = kind.itemsize
        body["value"] = values
        self.data = _HEAD(1, 0, self.element_oid, len(values), 1) + body.tobytes()


class Int2s(FixedArray):
    """``smallint[]``."""

    element_oid, array_oid, kind = 21, 1005, ">i2"


class Int4s(FixedArray):
    """``int[]``."""

    element_oid, array_oid, kind = 23, 1007, ">i4"


class Int8s(FixedArray):
    """``bigint[]``."""

    element_oid, array_oid, kind = 20, 1016, ">i8"


class Uuids(FixedArray):
    """``uuid[]``, of an array of 16 bytes a row."""

    element_oid, array_oid, kind = 2950, 2951, "V16"

    def __init__(self, values: NDArray[np.uint8]) -> None:
        super().__init__(np.ascontiguousarray(values).view("V16").reshape(-1))


class Instants(FixedArray):
    """``timestamptz[]``, of µs since 1970."""

    element_oid, array_oid, kind = 1184, 1185, ">i8"

    def __init__(self, values: NDArray[np.int64]) -> None:
        super().__init__(values - EPOCH_2000_US)


class _FixedArrayDumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: FixedArray) -> Buffer | None:
        return obj.data


_DUMPERS: Final = [
    (kind, type(f"_{kind.__name__}Dumper", (_FixedArrayDumper,), {"oid": kind.array_oid}))
    for kind in (Int2s, Int4s, Int8s, Uuids, Instants)
]


def register(conn: AsyncConnection[TupleRow]) -> None:
    """Let *conn* send these arrays."""
    for kind, dumper in _DUMPERS:
        conn.adapters.register_dumper(kind, dumper)


class CopyRows:
    """
    Rows of fixed width for a binary COPY.

    Args:
        columns: Name and type of each column, such as ``(("series_id", ">i4"), …)``.
    """

    def __init__(self, columns: tuple[tuple[str, str], ...]) -> None:
        fields: list[tuple[str, str]] = [("_n", ">i2")]
        for name, kind in columns:
            fields += [(f"_{name}", ">i4"), (name, kind)]
        self._columns = columns
        self._kind = np.dtype(fields)

    def of(self, **columns: NDArray[Any]) -> bytes:
        """Return the data of a COPY with these *columns* of one length."""
        count = len(next(iter(columns.values())))
        rows = np.empty(count, self._kind)
        rows["_n"] = len(self._columns)
        for name, kind in self._columns:
            rows[f"_{name}"] = np.dtype(kind).itemsize
            rows[name] = columns[name]
        return b"".join((_COPY_HEAD, rows.tobytes(), _COPY_END))
