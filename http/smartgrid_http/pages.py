"""
Lists: signed cursors, and rows as JSON pages, CSV and newline-delimited JSON.

A cursor is the place after the last row of a page together with the position of the log that the walk began at, so
that pages neither skip nor repeat a row that existed then. It is bound to the caller, the route and the filters.
"""

import csv
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest, digest
from http import HTTPStatus
from io import StringIO
from typing import Any, Literal, TypeVar, cast, get_args

from msgspec import DecodeError, Struct, json, msgpack
from msgspec.structs import astuple, fields

from smartgrid_domain.instants import rfc3339
from smartgrid_http.answers import Answer
from smartgrid_http.principal import Principal
from smartgrid_http.problems import Problem

LIFE_S = 3600
PART = 1000
"""Rows that are read at a time when a whole list is sent."""

MAC_BYTES = 16
EXPIRY_BYTES = 8
MAX_CURSOR = 2048

Form = Literal["json", "csv", "ndjson"]
MEDIA_TYPES: dict[str, Form] = {"application/json": "json", "text/csv": "csv", "application/x-ndjson": "ndjson"}
MEDIA_TYPE_OF: dict[Form, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8; header=present",
    "ndjson": "application/x-ndjson",
}
JSON: tuple[Form, ...] = ("json",)
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

P = TypeVar("P", bound=Struct)


class Cursors:
    """
    Signed places in lists.

    Args:
        secret: Of the installation; the same in every process.
        now: The present time.
    """

    def __init__(self, secret: bytes, now: Callable[[], datetime]) -> None:
        self._key = digest(secret, b"smartgrid cursor", sha256)
        self._now = now

    def issue(self, scope: str, place: Struct) -> str:
        """Return the cursor for *place*, good for an hour and for *scope* only."""
        payload = (int(self._now().timestamp()) + LIFE_S).to_bytes(EXPIRY_BYTES) + msgpack.encode(place)
        return urlsafe_b64encode(self._mac(scope, payload) + payload).decode().rstrip("=")

    def open(self, cursor: str, scope: str, form: type[P]) -> P:
        """
        Return the place of a *cursor* that was issued for *scope*.

        Raises:
            Problem: 400 ``invalid_cursor``: foreign, changed or old.
        """
        try:
            if len(cursor) > MAX_CURSOR:
                raise _invalid()
            raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        except (UnicodeEncodeError, NotBase64) as error:
            raise _invalid() from error
        payload = raw[MAC_BYTES:]
        # Another spelling of the same bytes (padding, stray bits) would pass the check below, so it is compared too.
        if not compare_digest(self._mac(scope, payload), raw[:MAC_BYTES]) or cursor != _spelled(raw):
            raise _invalid()
        if int.from_bytes(payload[:EXPIRY_BYTES]) <= self._now().timestamp():
            raise _invalid()
        try:
            return msgpack.decode(payload[EXPIRY_BYTES:], type=form)
        except DecodeError as error:  # signed by another version of this program
            raise _invalid() from error

    def _mac(self, scope: str, payload: bytes) -> bytes:
        return digest(self._key, scope.encode() + b"\0" + payload, sha256)[:MAC_BYTES]


def _spelled(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _invalid() -> Problem:
    return Problem(
        HTTPStatus.BAD_REQUEST, "invalid_cursor", "Cursors live an hour, for one caller and one query: start again"
    )


def scope_of(principal: Principal, route: str, filters: Struct, *path: str) -> str:
    """
    Return what a cursor is bound to: the caller, the *route* with its *path* parameters, and the *filters*.

    Of the filters those count that choose or order rows, not the ones that tell how many and how fresh.
    """
    chosen = {
        name: value
        for field, value in zip(fields(filters), astuple(filters), strict=True)
        if (name := field.name) not in {"limit", "cursor", "min_position", "wait_ms"}
    }
    return json.encode((principal.kind, principal.id, route, path, chosen), order="sorted").decode()


def form_of(accept: str | None, offered: Collection[Form] = tuple(MEDIA_TYPE_OF)) -> Form:
    """
    Return which of the *offered* forms the ``Accept`` header asks for; the first of those it weighs most.

    Raises:
        Problem: 406 ``not_acceptable``.
    """
    best: tuple[float, Form] | None = None
    for part in (accept or "*/*").split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = _weight(parameters)
        form: Form | None = "json" if media_type in {"*/*", "application/*", ""} else MEDIA_TYPES.get(media_type)
        if media_type == "text/*":
            form = "csv"
        if form is not None and form in offered and weight > 0 and (best is None or weight > best[0]):
            best = (weight, form)
    if best is None:
        known = ", ".join(name for name, form in MEDIA_TYPES.items() if form in offered)
        raise Problem(HTTPStatus.NOT_ACCEPTABLE, "not_acceptable", f"This is answered as {known}")
    return best[1]


def only_json(accept: bytes | None) -> None:
    """
    Refuse an ``Accept`` header that has no place for JSON.

    Raises:
        Problem: 406 ``not_acceptable``.
    """
    if accept is not None and accept not in (b"*/*", b"application/json"):
        form_of(accept.decode("latin-1"), JSON)


def _weight(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def csv_lines(rows: Iterable[Sequence[object]]) -> bytes:
    r"""
    Return *rows* as RFC 4180 lines.

    Null is an empty cell, a list its items with blanks between them. A text that a spreadsheet would take for a
    formula gets a ``'`` in front.

    Example:
        >>> csv_lines([["name", "value"], ["=1+1", -1.5], ['a "b", c', None]])
        b'name,value\r\n\'=1+1,-1.5\r\n"a ""b"", c",\r\n'
    """
    target = StringIO()
    csv.writer(target, lineterminator="\r\n").writerows([cell(value) for value in row] for row in rows)
    return target.getvalue().encode()


def cell(value: object) -> object:
    """Return *value* as the CSV writer takes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case None | int() | float():
            return value
        case datetime():
            return rfc3339(value)
        case str():
            return f"'{value}" if value.startswith(FORMULA_STARTS) else value
        case list():
            return cell(" ".join(map(str, cast("list[object]", value))))
        case _:
            return cell(str(value))


def columns_of(row_type: type[Struct]) -> Iterator[str]:
    """Yield the CSV columns of *row_type*: its fields, and those of a struct among them in its place."""
    for field in fields(row_type):
        inner = _struct_in(field.type)
        if inner is None:
            yield field.encode_name
        else:
            yield from columns_of(inner)


def cells_of(row_type: type[Struct]) -> Callable[[Struct], list[object]]:
    """Return what turns a *row_type* into the cells of :func:`columns_of`."""
    widths = [len(list(columns_of(inner))) if (inner := _struct_in(f.type)) else 0 for f in fields(row_type)]

    def cells(row: Struct) -> list[object]:
        made: list[object] = []
        for value, width in zip(astuple(row), widths, strict=True):
            if not width:
                made.append(value)
            else:
                made += [None] * width if value is None else astuple(value)
        return made

    return cells


def _struct_in(hint: Any) -> type[Struct] | None:  # noqa: ANN401  # any annotation
    for one in (hint, *get_args(hint)):
        if isinstance(one, type) and issubclass(one, Struct):
            return one
    return None


async def lines_of(form: Form, row_type: type[Struct], pages: AsyncIterator[Sequence[Struct]]) -> AsyncIterator[bytes]:
    """
    Yield *pages* of rows as CSV with a header row, or as one JSON object a line.

    Columns are the fields of *row_type*; a field that is a struct itself gives its own fields as columns.
    """
    encoder = json.Encoder()
    cells = cells_of(row_type)
    head = csv_lines([list(columns_of(row_type))]) if form == "csv" else b""
    # Not even the header is given away before the first rows are there: reading them may fail.
    async for rows in pages:
        yield head + (csv_lines(map(cells, rows)) if form == "csv" else encoder.encode_lines(rows))
        head = b""
    yield head


async def whole(
    fetch: Callable[[str, int], Awaitable[Sequence[P]]], key: Callable[[P], str], *, after: str, limit: int
) -> AsyncIterator[Sequence[P]]:
    """
    Yield the rows of a list ordered by one key, in parts.

    Args:
        fetch: Returns the first rows behind a key, at most a number of them.
        key: Returns the key of a row.
        after: The key to begin behind.
        limit: Most rows in all.
    """
    while limit > 0:
        most = min(limit, PART)
        rows = await fetch(after, most)
        if rows:
            yield rows
            after = key(rows[-1])
        limit = limit - len(rows) if len(rows) == most else 0


class Streamed(Answer):
    """
    A list that is sent while it is read; an ASGI application.

    The first chunk is made before the answer starts, so that what fails at once is still answered as a problem. What
    fails later cuts the connection: a list that ends early must not look whole.
    """

    __slots__ = ("_chunks",)

    def __init__(self, form: Form, chunks: AsyncIterator[bytes], position: str) -> None:
        content_type, token = MEDIA_TYPE_OF[form].encode(), position.encode()
        super().__init__(HTTPStatus.OK, headers=[(b"content-type", content_type), (b"x-event-position", token)])
        self._chunks = chunks

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG002  # the shape of ASGI
        """Send it."""
        chunk = await anext(self._chunks, b"")
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        async for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
