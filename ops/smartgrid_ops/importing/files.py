"""Files of measurements, read row by row."""

import csv
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct

from smartgrid_ops.importing.items import Skipped
from smartgrid_ops.importing.mapping import Mapping

_GZIP = b"\x1f\x8b"


class BadFile(ValueError):
    """A file that cannot be read as its mapping says; the text says where and why."""


class Row(Struct, frozen=True):
    """
    One row.

    Attributes:
        line: Line of the file, from 1; the header of a CSV file counts.
        cells: Text of each column; a JSON number as it stands in the file, a column that is null or absent empty.
    """

    line: int
    cells: dict[str, str]


class Source:
    """
    A file, plain or gzip, that knows how far it has been read.

    Raises:
        BadFile: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
            self.size = path.stat().st_size
        except OSError as error:
            raise BadFile(f"{path}: {error.strerror}") from error
        magic = self._file.read(2)
        self._file.seek(0)
        zipped = magic == _GZIP
        self._content = gzip.GzipFile(fileobj=self._file, mode="rb") if zipped else self._file

    @property
    def done(self) -> int:
        """How far the file has been read, in bytes of the file as it lies on the disk."""
        return self.size if self._file.closed else self._file.tell()

    @property
    def suffix(self) -> str:
        """The ending of the name below ``.gz``."""
        name = self.path.name.removesuffix(".gz")
        return name.rpartition(".")[2].lower()

    def bytes(self) -> gzip.GzipFile | io.BufferedReader:
        """Return the content, unpacked."""
        return self._content

    def close(self) -> None:
        """Close the file."""
        self._content.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def kind_of(source: Source, mapping: Mapping | None) -> str:
    """Return ``csv`` or ``ndjson``."""
    if mapping is not None and mapping.format is not None:
        return mapping.format
    return "ndjson" if source.suffix in {"ndjson", "jsonl"} else "csv"


def rows(source: Source, mapping: Mapping) -> Iterator[Row | Skipped]:
    """
    Yield the rows of *source*, and what cannot be split into cells.

    Raises:
        BadFile: A column of the mapping is not there, or the text is not in the encoding.
    """
    reading = _csv_rows if kind_of(source, mapping) == "csv" else _ndjson_rows
    try:
        with source:
            yield from reading(source, mapping)
    except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile) as error:
        raise BadFile(f"{source.path}: {error}") from error


def _wanted(mapping: Mapping) -> list[str]:
    columns = [*mapping.time.columns]
    columns += [sensor.column for sensor in mapping.sensors]
    columns += [sensor.sensor_id_column for sensor in mapping.sensors if sensor.sensor_id_column]
    columns += [meter.column for meter in mapping.meters]
    return list(dict.fromkeys(columns))


def _csv_rows(source: Source, mapping: Mapping) -> Iterator[Row | Skipped]:
    wanted = _wanted(mapping)
    with io.TextIOWrapper(source.bytes(), encoding=mapping.encoding, newline="") as text:
        lines = csv.reader(text, delimiter=mapping.delimiter, strict=True)
        header = next(lines, None)
        if header is None:
            raise BadFile(f"{source.path}: it is empty")
        header = [name.strip() for name in header]
        missing = [name for name in wanted if name not in header]
        if missing:
            hint = '; it starts with a byte-order mark: set encoding = "utf-8-sig"' if "\ufeff" in header[0] else ""
            raise BadFile(f"{source.path}: no column {', '.join(missing)} among {', '.join(header)}{hint}")
        places = [(name, header.index(name)) for name in wanted]
        for cells in lines:
            if not cells:
                continue
            if len(cells) != len(header):
                message = f"the line has {len(cells)} cells and the header {len(header)}"
                yield Skipped(lines.line_num, "-", "bad_row", message)
                continue
            yield Row(lines.line_num, {name: cells[place] for name, place in places})


def _ndjson_rows(source: Source, mapping: Mapping) -> Iterator[Row | Skipped]:
    wanted = _wanted(mapping)
    decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
    for number, line in enumerate(source.bytes(), 1):
        if not line.strip():
            continue
        try:
            fields = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            yield Skipped(number, "-", "malformed_json", str(error))
            continue
        yield Row(number, {name: _cell(bytes(fields[name])) if name in fields else "" for name in wanted})


def _cell(raw: bytes) -> str:
    if raw.startswith(b'"'):
        return msgspec.json.decode(raw, type=str)
    return "" if raw == b"null" else raw.decode()
