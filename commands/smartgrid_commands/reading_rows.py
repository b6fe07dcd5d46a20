"""The valid readings of one request, in columns, and the ids of readings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Final, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from smartgrid_domain.maths.quantities import Exponents, Flags, Ints
from smartgrid_domain.readings import Metadata
from smartgrid_schemas.telemetry import Location

Subject = Literal["sensor", "meter"]
Owner = tuple[Subject, str]
"""A sensor or a meter."""

Ids = NDArray[np.uint8]
"""Event ids, 16 bytes a row."""

Codes = NDArray[np.int8]
"""Qualities."""

NO_PHASE: Final = "-"
NO_SEQ: Final = -1
READING_NAMESPACE: Final = uuid5(NAMESPACE_URL, "urn:smartgrid:reading")
"""Namespace of the ids of readings."""


class Source(Struct, frozen=True, kw_only=True, gc=False):
    """
    What readings of one series and unit have in common.

    Attributes:
        subject: ``sensor`` or ``meter``.
        subject_id: Its id.
        measurand: The sensor_type, or the register of a meter.
        phase: Phase, :data:`NO_PHASE` for none.
        unit: The unit as sent.
        shift: Power of ten that turns *unit* into the canonical one.
        shard: crc32 of the id mod 16.
        kind: Tells subject and shard; readings of one kind may share an event.
        prefix: Namespace and name of an event id up to the time.
        low: Smallest value that may be sent [*unit*].
        high: Largest [*unit*].
        owner: The sensor or meter.
        series: What is unique in the table of series.
    """

    subject: Subject
    subject_id: str
    measurand: str
    phase: str
    unit: str
    shift: int
    shard: int
    kind: int
    prefix: bytes
    low: float
    high: float
    owner: Owner
    series: tuple[Subject, str, str, str]


@dataclass(slots=True, kw_only=True)
class Rows:
    """
    Valid readings of one request.

    Attributes:
        sources: Their distinct sources.
        source_of: Index into *sources* of each row.
        measured_at: When it was measured [µs since 1970]; of an untimed row the time of receipt.
        seq: Sequence number, :data:`NO_SEQ` for none.
        mantissa: The value is mantissa · 10**exponent in the unit of its source, as sent; normal.
        exponent: Likewise.
        quality: Code of ``QUALITIES``.
        item: Index of each row's item in its request.
        untimed: Which rows came without a time; None when all have one.
        corrects: Row → id of the reading that it replaces (16 bytes) and why.
        metadata: Row → metadata as sent.
        places: Sensor → first row that tells its place, and the place; meter → likewise its customer.
    """

    sources: Sequence[Source]
    source_of: Ints
    measured_at: Ints
    seq: Ints
    mantissa: Ints
    exponent: Exponents
    quality: Codes
    item: Ints
    untimed: Flags | None = None
    corrects: dict[int, tuple[bytes, str]] = field(default_factory=dict[int, tuple[bytes, str]])
    metadata: dict[int, Metadata] = field(default_factory=dict[int, Metadata])
    places: dict[Owner, tuple[int, Location | str]] = field(default_factory=dict[Owner, tuple[int, Location | str]])

    def __len__(self) -> int:
        return len(self.measured_at)

    def picked(self, rows: Ints) -> "Rows":
        """Return *rows* of these, ascending."""
        place = {row: number for number, row in enumerate(rows.tolist())}
        return Rows(
            sources=self.sources,
            source_of=self.source_of[rows],
            measured_at=self.measured_at[rows],
            seq=self.seq[rows],
            mantissa=self.mantissa[rows],
            exponent=self.exponent[rows],
            quality=self.quality[rows],
            item=self.item[rows],
            untimed=None if self.untimed is None else self.untimed[rows],
            corrects={place[row]: value for row, value in self.corrects.items() if row in place},
            metadata={place[row]: value for row, value in self.metadata.items() if row in place},
            places={owner: (place[row], told) for owner, (row, told) in self.places.items() if row in place},
        )

    def shifts(self) -> Ints:
        """Return the power of ten of each row that turns its unit into the canonical one."""
        return np.array([source.shift for source in self.sources], np.int64)[self.source_of]


def joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of *parts*, one behind the other."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
    source_starts = np.cumsum([0, *(len(part.sources) for part in parts)]).tolist()
    none = np.zeros(0, np.int64)
    untimed = [np.zeros(len(part), np.bool_) if part.untimed is None else part.untimed for part in parts]
    result = Rows(
        sources=[source for part in parts for source in part.sources],
        source_of=np.concatenate([none, *(p.source_of + s for p, s in zip(parts, source_starts, strict=False))]),
        measured_at=np.concatenate([none, *(part.measured_at for part in parts)]),
        seq=np.concatenate([none, *(part.seq for part in parts)]),
        mantissa=np.concatenate([none, *(part.mantissa for part in parts)]),
        exponent=np.concatenate([none.astype(np.int16), *(part.exponent for part in parts)]),
        quality=np.concatenate([none.astype(np.int8), *(part.quality for part in parts)]),
        item=np.concatenate([none, *(part.item for part in parts)]),
        untimed=np.concatenate(untimed) if any(flags.any() for flags in untimed) else None,
    )
    for part, start in zip(parts, starts, strict=False):
        result.corrects.update({row + start: value for row, value in part.corrects.items()})
        result.metadata.update({row + start: value for row, value in part.metadata.items()})
        for owner, (row, told) in part.places.items():
            result.places.setdefault(owner, (row + start, told))
    return result


def reading_ids(sources: Sequence[Source], source_of: Ints, measured_at: Ints, seq: Ints) -> Ids:
    """
    Return the event ids of plain readings: UUIDv5 of their natural keys.

    Guarantees:
        Equal to :func:`reading_id` of each row.
    """
    prefixes = [source.prefix for source in sources]
    owners: list[int] = source_of.tolist()
    times: list[int] = measured_at.tolist()
    if bool((seq == NO_SEQ).all()):
        digests = [sha1(prefixes[s] + b"%d|-" % t).digest() for s, t in zip(owners, times, strict=True)]  # noqa: S324  # RFC 9562 wants SHA-1
    else:
        digests = [
            sha1(prefixes[s] + (b"%d|-" % t if q < 0 else b"%d|%d" % (t, q))).digest()  # noqa: S324  # RFC 9562 wants SHA-1
            for s, t, q in zip(owners, times, seq.tolist(), strict=True)
        ]
    ids: Ids = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 20)[:, :16].copy()
    ids[:, 6] = ids[:, 6] & 0x0F | 0x50
    ids[:, 8] = ids[:, 8] & 0x3F | 0x80
    return ids


def reading_id(source: Source, measured_at: int, seq: int, replaced: bytes | None = None) -> bytes:
    """Return the event id of a reading: UUIDv5 of its natural key, and of the id that it replaces."""
    name = b"%d|-" % measured_at if seq == NO_SEQ else b"%d|%d" % (measured_at, seq)
    if replaced is not None:
        name += b"|" + str(UUID(bytes=replaced)).encode()
    digest = sha1(source.prefix + name).digest()  # noqa: S324  # RFC 9562 wants SHA-1
    return b"%b%c%b%c%b" % (digest[:6], digest[6] & 0x0F | 0x50, digest[7:8], digest[8] & 0x3F | 0x80, digest[9:16])
