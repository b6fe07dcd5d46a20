"""The logs for administrators: every event, and whether the hash chains hold."""

from collections.abc import AsyncIterator, Mapping, Sequence
from time import monotonic
from typing import Annotated, Literal

from litestar import get, post
from litestar.di import NamedDependency
from msgspec import Meta, Struct, json
from msgspec.structs import replace

from smartgrid_domain.instants import rfc3339
from smartgrid_http.answers import Answer, answer
from smartgrid_http.call import call_of
from smartgrid_http.describe import describe
from smartgrid_http.guard import Req, decoded, read_body
from smartgrid_http.idempotency import once
from smartgrid_http.pages import PART, Streamed, form_of, lines_of
from smartgrid_http.params import query_of
from smartgrid_http.positions import TokenList, WaitMs, head_of
from smartgrid_http.ranges import PAGE, Limit
from smartgrid_http.services import Services, present
from smartgrid_projections.queries.audit import FirstBad, LogAudit
from smartgrid_projections.queries.events import EventFilter, Events, LoggedEvent, position_of

AUDIT_S = 3600.0
"""How long an audit may take [s]; a million events take some seconds."""

LogName = Literal["telemetry", "operations", "identity"]


class EventsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of ``/admin/events``."""

    log: LogName = "telemetry"
    after: Annotated[int, Meta(ge=0)] = 0
    limit: Limit | None = None
    type: Annotated[str, Meta(max_length=200)] | None = None
    stream: Annotated[str, Meta(max_length=300)] | None = None
    min_position: TokenList | None = None
    wait_ms: WaitMs = 2000


class EventList(Struct, frozen=True, kw_only=True):
    """Events in order of position; ``next_after`` is where to go on, also when there is nothing more yet."""

    status: Literal["success"] = "success"
    data: list[LoggedEvent]
    next_after: int


class EventLine(Struct, frozen=True, kw_only=True):
    """The same as cells; ``data`` is JSON."""

    position: str
    event_id: str
    stream: str
    version: int
    type: str
    recorded_at: str
    actor: str | None
    causation_id: str | None
    correlation_id: str | None
    data: str
    hash: str


@get(
    "/api/v1/admin/events",
    opt=describe(
        "Events of a log",
        query=EventsQuery,
        answers={200: EventList},
        media=("text/csv", "application/x-ndjson"),
    ),
)
async def list_events(request: Req, services: NamedDependency[Services]) -> Answer:
    """Answer the events of a log as they are stored."""
    query = query_of(request, EventsQuery)
    form = form_of(call_of(request.scope).header(b"accept"))
    events = present(services.events)
    head = await head_of(present(services.store), query.log, query.min_position, query.wait_ms)
    wanted = EventFilter(
        log=query.log,
        after=query.after,
        up_to=head,
        name=query.type,
        stream=query.stream,
        limit=query.limit or PAGE,
    )
    token = f"{query.log}@{head}"
    if form == "ndjson":
        return Streamed(form, lines_of(form, LoggedEvent, all_events(events, wanted)), token)
    if form == "csv":
        return Streamed(form, lines_of(form, EventLine, event_lines(all_events(events, wanted))), token)
    data = list(await events.events(wanted))
    after = position_of(data[-1]) if len(data) == wanted.limit else max(head, query.after)
    return answer(EventList(data=data, next_after=after), position=token)


async def all_events(events: Events, wanted: EventFilter) -> AsyncIterator[Sequence[LoggedEvent]]:
    """Yield all events of *wanted*, whatever its limit, in parts."""
    part = replace(wanted, limit=PART)
    while True:
        rows = await events.events(part)
        if rows:
            yield rows
        if len(rows) < PART:
            return
        part = replace(part, after=position_of(rows[-1]))


async def event_lines(parts: AsyncIterator[Sequence[LoggedEvent]]) -> AsyncIterator[Sequence[EventLine]]:
    """Yield events as cells."""
    async for rows in parts:
        yield [
            EventLine(
                position=row.position,
                event_id=str(row.event_id),
                stream=row.stream,
                version=row.version,
                type=row.type,
                recorded_at=rfc3339(row.recorded_at),
                actor=row.actor,
                causation_id=row.causation_id,
                correlation_id=row.correlation_id,
                data=json.encode(row.data).decode(),
                hash=row.hash,
            )
            for row in rows
        ]


class Everything(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing to choose."""


class AuditAnswer(Struct, frozen=True, kw_only=True):
    """Whether all logs are what was written; the first row that is not."""

    status: Literal["success"] = "success"
    ok: bool
    logs: Mapping[str, LogAudit]
    first_bad: FirstBad | None


@post(
    "/api/v1/admin/audit/verify",
    status_code=200,
    opt=describe("Verify the hash chains", body=Everything, answers={200: AuditAnswer}),
)
async def verify_audit(request: Req, services: NamedDependency[Services]) -> Answer:
    """Recompute the hash chain of every log; takes as long as it takes."""
    call = call_of(request.scope)
    sent = await read_body(request.scope, request.receive)

    async def run() -> Answer:
        decoded(request, sent, Everything)
        call.deadline = monotonic() + AUDIT_S
        audit = await present(services.chains).verify()
        return answer(AuditAnswer(ok=audit.ok, logs=audit.logs, first_bad=audit.first_bad))

    return await once(services.keys, request.scope, sent, run)


handlers = [list_events, verify_audit]
