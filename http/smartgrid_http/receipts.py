"""What became of something that was accepted."""

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath

from smartgrid_http.answers import Answer, answer
from smartgrid_http.call import principal_of
from smartgrid_http.conditions import not_found, uuid_in_path
from smartgrid_http.describe import describe
from smartgrid_http.guard import Req
from smartgrid_http.hot.ingest import covers
from smartgrid_http.meters import visible_from
from smartgrid_http.params import query_of
from smartgrid_http.positions import head_of
from smartgrid_http.principal import Principal
from smartgrid_http.sensors import FreshQuery
from smartgrid_http.services import Services, present
from smartgrid_projections.queries.readings import LOG
from smartgrid_projections.queries.receipts import Accepted, Receipt, receipt_of


@get("/api/v1/receipts/{event_id:str}", opt=describe("A receipt", query=FreshQuery, answers={200: Receipt}))
async def get_receipt(request: Req, event_id: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Answer where a reading, an exchange or a reset is, and which read models include it."""
    query = query_of(request, FreshQuery)
    fact = uuid_in_path(event_id)
    head = await head_of(present(services.store), LOG, query.min_position, query.wait_ms)
    accepted = await present(services.receipts).accepted(fact)
    if accepted is None:
        raise not_found(event_id)
    await _guard(services, principal_of(request.scope), accepted, event_id)
    return answer(receipt_of(fact, accepted), position=f"{LOG}@{max(head, accepted.position)}")


async def _guard(services: Services, principal: Principal, accepted: Accepted, event_id: str) -> None:
    """Make what the caller may not know of look like what does not exist."""
    if principal.kind == "key":
        if not covers(principal, (accepted.subject, accepted.subject_id)):
            raise not_found(event_id)
    elif accepted.subject == "meter":
        await visible_from(services, principal, accepted.subject_id)


handlers = [get_receipt]
