"""Imports: whole files of readings."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any, Final, Literal

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct, field

from smartgrid_commands.importing import Import, Spool
from smartgrid_commands.ingestion import ItemError, Prepared
from smartgrid_domain.errors import NotFound
from smartgrid_domain.strict_json import JSON_LIMITS
from smartgrid_http.answers import Answer, answer
from smartgrid_http.call import call_of, principal_of
from smartgrid_http.describe import describe
from smartgrid_http.guard import Req, body_chunks
from smartgrid_http.hot.bodies import Clocked, csv_header, csv_items, csv_rows, from_ndjson
from smartgrid_http.idempotency import once_of
from smartgrid_http.params import query_of
from smartgrid_http.services import Services, present

HEADER_BYTES: Final = 64 * 1024
UNLIMITED: Final = 10**9
"""Items of one part; the file is limited in bytes."""


class ImportQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of an import."""

    mode: Literal["partial", "atomic"] = "partial"


class ImportStarted(Struct, frozen=True, kw_only=True):
    """A file was taken in."""

    status: Literal["success"] = "success"
    import_id: str


class ImportView(Struct, frozen=True, kw_only=True):
    """How far an import is."""

    id: str
    state: Literal["running", "succeeded", "failed"]
    read: int
    accepted: int
    duplicates: int
    rejected: int
    errors: list[ItemError]


class ImportAnswer(Struct, frozen=True, kw_only=True):
    """An import."""

    status: Literal["success"] = "success"
    import_: ImportView = field(name="import")


class _Hashed:
    """Passes chunks on, and knows their hash and how the first of them begins."""

    def __init__(self, chunks: AsyncIterator[bytes], head: bytes) -> None:
        self._chunks = chunks
        self.hash = hashlib.sha256(head)
        self.start = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            self.hash.update(chunk)
            if len(self.start) < HEADER_BYTES:
                self.start += chunk[:HEADER_BYTES]
            yield chunk


@post(
    "/api/v1/imports",
    status_code=202,
    opt=describe("Import a file of readings", query=ImportQuery, answers={202: ImportStarted}, problems=(409, 422)),
)
async def post_import(request: Req, services: NamedDependency[Services]) -> Answer:
    """Take a file in; it is recorded in the background."""
    query = query_of(request, ImportQuery)
    call = call_of(request.scope)
    imports, keys = present(services.imports), present(services.keys)
    media_type = (call.header(b"content-type") or "").partition(";")[0].strip().lower()
    import_id = f"im_{services.ids.uuid().hex}"
    actor = principal_of(request.scope).actor
    job = Import(import_id=import_id, actor=actor, mode=query.mode, media_type=media_type)
    body = _Hashed(body_chunks(request.scope, request.receive), f"POST /api/v1/imports?mode={query.mode}\n".encode())
    await Spool(imports, job).take(body)

    async def run() -> Answer:
        if media_type == "text/csv":
            job.header = _header_of(body.start)
        await imports.start(job)
        present(services.runner).wake()
        return answer(
            ImportStarted(import_id=import_id), status=202, headers={"Location": f"/api/v1/imports/{import_id}"}
        )

    try:
        return await once_of(keys, request.scope, body.hash.digest(), run)
    finally:
        await imports.discard(import_id)  # what was not started is not wanted


def _header_of(start: bytes) -> list[str]:
    line = next((line for line in start.split(b"\n") if line.strip()), b"")
    return csv_header(csv_rows(line)[0])


def read_part(job: Import, data: bytes, now_us: int, latest_us: int, *, first: bool) -> Prepared:
    """
    Return the items of a part of *job*.

    Raises:
        Rejected: It cannot be split into items.
    """
    when = Clocked(now_us, latest_us, JSON_LIMITS, UNLIMITED)
    if job.media_type != "text/csv":
        return from_ndjson(data, when) if data.strip() else Prepared(items=0)
    rows = csv_rows(data)
    rows = rows[1:] if first else rows
    return csv_items(job.header, rows, when) if rows else Prepared(items=0)


@get(
    "/api/v1/imports/{import_id:str}",
    opt=describe("How far an import is", answers={200: ImportAnswer}, problems=(404,)),
)
async def get_import(import_id: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Answer how far an import is."""
    job = await present(services.imports).find(import_id)
    if job is None:
        raise NotFound("not_found", f"There is no import {import_id}")
    state: Any = job.state
    view = ImportView(
        id=job.import_id,
        state=state,
        read=job.read,
        accepted=job.accepted,
        duplicates=job.duplicates,
        rejected=job.rejected,
        errors=job.errors,
    )
    return answer(ImportAnswer(import_=view))


handlers = [post_import, get_import]
