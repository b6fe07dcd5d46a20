"""Items to the bodies of ``POST /api/v1/ingest/batch``."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from smartgrid_ops.importing.items import Item, Line, Reading

MAX_ITEMS = 10_000
MAX_BYTES = 4 * 1024 * 1024  # below the 5 MiB that the API takes

JSON = "application/json"
NDJSON = "application/x-ndjson"
COLUMNS = "application/vnd.smartgrid.columns+msgpack"

Wire = Literal["auto", "json", "columns"]


class Batch(Struct, frozen=True):
    """
    One request.

    Attributes:
        items: In the order in which the API numbers them.
        content_type: How *body* is written.
        body: The request.
    """

    items: Sequence[Item]
    content_type: str
    body: bytes


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield *items* in lists of up to *size*, smaller where the text would be too long."""
    chunk: list[Item] = []
    length = 0
    for item in items:
        more = len(item.text) if isinstance(item, Line) else len(item.series.head) + len(item.number) + 64
        if chunk and (len(chunk) == size or length + more > MAX_BYTES):
            yield chunk
            chunk, length = [], 0
        chunk.append(item)
        length += more
    if chunk:
        yield chunk


def batch_of(items: Sequence[Item], wire: Wire) -> Batch:
    """Return the request that brings *items*; ``auto`` takes columns where all of them fit."""
    if any(isinstance(item, Line) for item in items):
        return Batch(items, NDJSON, b"\n".join(item.json() for item in items))
    fitting = [item for item in items if isinstance(item, Reading) and _fits(item)]
    if wire != "json" and len(fitting) == len(items):
        return _columns(fitting)
    return Batch(items, JSON, b'{"readings":[%b]}' % b",".join(item.json() for item in items))


def _fits(item: Reading) -> bool:
    return item.series.kind == "sensor" and "quality" not in item.series.fields


def _columns(items: Sequence[Reading]) -> Batch:
    groups: dict[int, list[Reading]] = {}
    for item in items:
        groups.setdefault(id(item.series), []).append(item)
    series = [
        {
            **group[0].series.fields,
            "t": [item.at.micros for item in group],
            "v": [float(item.number) for item in group],
        }
        for group in groups.values()
    ]
    ordered = [item for group in groups.values() for item in group]
    return Batch(ordered, COLUMNS, msgspec.msgpack.encode({"series": series}))


def halves(batch: Batch, wire: Wire) -> tuple[Batch, Batch]:
    """Return *batch* as two, each with half of its items."""
    middle = len(batch.items) // 2
    return batch_of(batch.items[:middle], wire), batch_of(batch.items[middle:], wire)
