"""Rebuilding read models: another version beside the one in use, what differs, switch, rollback, pause."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from smartgrid_http.admin import Projections, projection_answer
from smartgrid_http.answers import Answer, answer
from smartgrid_http.call import call_of, principal_of
from smartgrid_http.describe import describe
from smartgrid_http.guard import Req, decoded, read_body
from smartgrid_http.idempotency import once
from smartgrid_http.pages import PART, Streamed, form_of, lines_of, scope_of
from smartgrid_http.params import query_of
from smartgrid_http.problems import Problem
from smartgrid_http.ranges import ALL, PAGE, Limit
from smartgrid_http.services import Services, present
from smartgrid_projections.queries.standing import READINGS
from smartgrid_projections.versions import (
    Difference,
    NoSuchRebuild,
    Rebuild,
    RebuildConflict,
    RebuildState,
    Verification,
    Versions,
)


class RebuildWish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to rebuild."""

    auto_switch: bool = False


class RebuildChoice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rebuild."""

    rebuild_id: str


class NoWish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing to choose."""


class RebuildStarted(Struct, frozen=True, kw_only=True):
    """A rebuild that has begun."""

    status: Literal["success"] = "success"
    rebuild_id: str
    version: int


class RebuildView(Struct, frozen=True, kw_only=True):
    """How far a rebuild is; positions per log."""

    id: str
    version: int
    state: RebuildState
    auto_switch: bool
    position: Mapping[str, int]
    head: Mapping[str, int]
    progress: float
    eta_s: float | None
    verify: Verification | None
    error: str | None


class RebuildAnswer(Struct, frozen=True, kw_only=True):
    """One rebuild."""

    status: Literal["success"] = "success"
    rebuild: RebuildView


class DiffQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of what differs."""

    limit: Limit | None = None
    cursor: str | None = None


class DiffRow(Struct, frozen=True, kw_only=True):
    """A row that differs between the version in use and the new one."""

    table: str
    key: str
    active: dict[str, Any] | None
    new: dict[str, Any] | None


class DiffPage(Struct, frozen=True, kw_only=True):
    """Rows that differ."""

    status: Literal["success"] = "success"
    data: list[DiffRow]
    next_cursor: str | None


class AfterDiff(Struct, frozen=True, array_like=True):
    """The last row of a page."""

    number: int


@post(
    "/api/v1/admin/projections/{name:str}/rebuild",
    status_code=202,
    opt=describe("Rebuild a projection", body=RebuildWish, answers={202: RebuildStarted}, problems=(404, 409)),
)
async def rebuild_projection(request: Req, name: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Begin to build another version beside the one in use."""
    sent = await read_body(request.scope, request.receive)

    async def run() -> Answer:
        wish = decoded(request, sent, RebuildWish) if sent else RebuildWish()
        versions = await _versions_of(services, name)
        rebuild_id = f"rb_{services.ids.uuid().hex}"
        with _refusals():
            version = await versions.start(name, rebuild_id, auto_switch=wish.auto_switch)
        return answer(
            RebuildStarted(rebuild_id=rebuild_id, version=version),
            status=HTTPStatus.ACCEPTED,
            headers={"Location": f"/api/v1/admin/projections/{name}/rebuilds/{rebuild_id}"},
        )

    return await once(services.keys, request.scope, sent, run)


@get(
    "/api/v1/admin/projections/{name:str}/rebuilds/{rebuild_id:str}",
    opt=describe("How far a rebuild is", answers={200: RebuildAnswer}, problems=(404,)),
)
async def get_rebuild(name: FromPath[str], rebuild_id: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Answer state, progress and comparison of one rebuild."""
    with _refusals():
        found = await present(services.versions).rebuild(name, rebuild_id)
    store = present(services.store)
    return answer(RebuildAnswer(rebuild=view_of(found, {log: await store.head(log) for log in found.position})))


def view_of(found: Rebuild, head: Mapping[str, int]) -> RebuildView:
    """Return *found* as clients see it, while the logs are at *head*."""
    whole = sum(head.values())
    done = sum(min(position, head[log]) for log, position in found.position.items())
    left = whole - done
    finished = found.verify is not None
    return RebuildView(
        id=found.rebuild_id,
        version=found.version,
        state=found.state,
        auto_switch=found.auto_switch,
        position=found.position,
        head=head,
        progress=1.0 if finished or not whole else round(done / whole, 4),
        eta_s=round(left / found.rate_per_s, 1) if left and found.rate_per_s > 0 and not finished else None,
        verify=found.verify,
        error=found.error,
    )


@get(
    "/api/v1/admin/projections/{name:str}/rebuilds/{rebuild_id:str}/diff",
    opt=describe(
        "What a rebuild changes",
        query=DiffQuery,
        answers={200: DiffPage},
        problems=(404,),
        media=("text/csv", "application/x-ndjson"),
    ),
)
async def get_diff(
    request: Req, name: FromPath[str], rebuild_id: FromPath[str], services: NamedDependency[Services]
) -> Answer:
    """Answer the rows that differ, ordered by table and key."""
    query = query_of(request, DiffQuery)
    form = form_of(call_of(request.scope).header(b"accept"))
    scope = scope_of(principal_of(request.scope), "rebuild-diff", query, name, rebuild_id)
    cursors, versions = present(services.cursors), present(services.versions)
    after = cursors.open(query.cursor, scope, AfterDiff).number if query.cursor is not None else 0
    limit = query.limit or (PAGE if form == "json" else ALL)

    async def fetch(behind: int, most: int) -> Sequence[Difference]:
        with _refusals():
            return await versions.differences(name, rebuild_id, after=behind, limit=most)

    with _refusals():
        found = await versions.rebuild(name, rebuild_id)
    position = ",".join(f"{log}@{found.position[log]}" for log in sorted(found.position))
    if form != "json":
        return Streamed(form, lines_of(form, DiffRow, _whole(fetch, after, limit)), position)
    rows = await fetch(after, limit + 1)
    page = rows[:limit]
    cursor = cursors.issue(scope, AfterDiff(page[-1].number)) if len(rows) > limit else None
    return answer(DiffPage(data=[_row(one) for one in page], next_cursor=cursor), position=position)


async def _whole(
    fetch: Callable[[int, int], Awaitable[Sequence[Difference]]], after: int, limit: int
) -> AsyncIterator[Sequence[DiffRow]]:
    while limit > 0:
        rows = await fetch(after, min(limit, PART))
        if not rows:
            return
        yield [_row(one) for one in rows]
        after = rows[-1].number
        limit -= len(rows)


def _row(one: Difference) -> DiffRow:
    return DiffRow(table=one.table, key=one.key, active=one.active, new=one.new)


@post(
    "/api/v1/admin/projections/{name:str}/switch",
    status_code=200,
    opt=describe("Switch to a rebuilt version", body=RebuildChoice, answers={200: Projections}, problems=(404, 409)),
)
async def switch_projection(request: Req, name: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Let the new version answer from now on."""

    async def act(versions: Versions, choice: RebuildChoice) -> None:
        await versions.switch(name, choice.rebuild_id)

    return await _done(request, services, name, RebuildChoice, act)


@post(
    "/api/v1/admin/projections/{name:str}/abort",
    status_code=200,
    opt=describe("Give up a rebuild", body=RebuildChoice, answers={200: Projections}, problems=(404, 409)),
)
async def abort_rebuild(request: Req, name: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Give up a rebuild that was not switched to, and its tables."""

    async def act(versions: Versions, choice: RebuildChoice) -> None:
        await versions.abort(name, choice.rebuild_id)

    return await _done(request, services, name, RebuildChoice, act)


@post(
    "/api/v1/admin/projections/{name:str}/rollback",
    status_code=200,
    opt=describe("Return to the version before", body=NoWish, answers={200: Projections}, problems=(404, 409)),
)
async def rollback_projection(request: Req, name: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Let the version before the last switch answer again, and give up the one in use."""

    async def act(versions: Versions, _: NoWish) -> None:
        await versions.rollback(name)

    return await _done(request, services, name, NoWish, act)


@post(
    "/api/v1/admin/projections/{name:str}/pause",
    status_code=200,
    opt=describe("Pause a projection", body=NoWish, answers={200: Projections}, problems=(404, 409)),
)
async def pause_projection(request: Req, name: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Let a projection stand still; writes and reads go on."""

    async def act(versions: Versions, _: NoWish) -> None:
        await versions.pause(name)

    return await _done(request, services, name, NoWish, act)


@post(
    "/api/v1/admin/projections/{name:str}/resume",
    status_code=200,
    opt=describe("Resume a projection", body=NoWish, answers={200: Projections}, problems=(404, 409)),
)
async def resume_projection(request: Req, name: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Let a projection that is paused or stopped go on."""

    async def act(versions: Versions, _: NoWish) -> None:
        await versions.resume(name)

    return await _done(request, services, name, NoWish, act)


async def _done(
    request: Req,
    services: Services,
    name: str,
    wanted: type[Struct],
    act: Callable[[Versions, Any], Awaitable[None]],
) -> Answer:
    """Act once on the versions of *name*, and answer the projection as it is then."""
    sent = await read_body(request.scope, request.receive)

    async def run() -> Answer:
        wish = decoded(request, sent, wanted) if sent or wanted is RebuildChoice else NoWish()
        versions = await _versions_of(services, name)
        with _refusals():
            await act(versions, wish)
        return await projection_answer(services, name)

    return await once(services.keys, request.scope, sent, run)


async def _versions_of(services: Services, name: str) -> Versions:
    """
    Return the versions of *name*.

    Raises:
        Problem: 404: there is no such projection. 409: it has no versions.
    """
    if name == READINGS:
        raise Problem(
            HTTPStatus.CONFLICT,
            "rebuild_conflict",
            "The register of readings is written with the log itself: it has no second version and cannot stand still",
        )
    known = await present(services.standings).positions()
    if name not in known:
        raise Problem(HTTPStatus.NOT_FOUND, "not_found", "There is no such projection")
    return present(services.versions)


@contextlib.contextmanager
def _refusals() -> Generator[None, None, None]:
    try:
        yield
    except NoSuchRebuild as error:
        raise Problem(HTTPStatus.NOT_FOUND, "not_found", "There is no such rebuild of this projection") from error
    except RebuildConflict as error:
        raise Problem(HTTPStatus.CONFLICT, "rebuild_conflict", str(error)) from error


handlers = [
    rebuild_projection,
    get_rebuild,
    get_diff,
    switch_projection,
    abort_rebuild,
    rollback_projection,
    pause_projection,
    resume_projection,
]
