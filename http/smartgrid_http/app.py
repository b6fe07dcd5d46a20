"""One ASGI application for a service, or for all of them in one process."""

from collections.abc import Iterable, Mapping
from typing import NoReturn

import msgspec
from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import NotFoundException, ValidationException
from litestar.handlers import HTTPRouteHandler

from smartgrid_http import gateway, openapi
from smartgrid_http.call import call_of
from smartgrid_http.describe import KEY as DESCRIBED
from smartgrid_http.describe import Described
from smartgrid_http.front import Front
from smartgrid_http.guard import Req
from smartgrid_http.metrics import HttpMetrics
from smartgrid_http.pages import only_json
from smartgrid_http.policy import POLICY, Access, Service
from smartgrid_http.problems import Problem
from smartgrid_http.routing import HotHandler, RouteTable
from smartgrid_http.services import Services

EVERYWHERE = "gateway"
"""Routes of this owner are served by every service: health, metrics, description."""


def build_app(
    services: Services,
    *,
    only: Service | None = None,
    handlers: Iterable[HTTPRouteHandler] | None = None,
    hot: Mapping[tuple[str, str], HotHandler] | None = None,
    policy: Mapping[tuple[str, str], Access] = POLICY,
) -> Front:
    """
    Return the application over *services*.

    Args:
        services: The ports behind it.
        only: Serve the routes of this service alone, with the same paths.
        handlers: Litestar handlers; all of ours by default.
        hot: Plain handlers; all of ours by default.
        policy: Who may what.

    Raises:
        MissingFromPolicy: A handler has no row in *policy*.
    """
    metrics = HttpMetrics()
    chosen = list(gateway.litestar_handlers() if handlers is None else handlers)
    plain = dict(gateway.hot_handlers(services) if hot is None else hot)
    routes = routes_of(chosen)
    wanted = {
        key
        for key in {*routes, *plain}
        if key not in policy or only in (None, "gateway", policy[key].service) or policy[key].service == EVERYWHERE
    }
    inner = Litestar(
        route_handlers=chosen,
        dependencies={"services": Provide(lambda: services, sync_to_thread=False)},
        before_request=_acceptable,
        exception_handlers={Exception: _pass_on},
        openapi_config=None,
        logging_config=None,
        state=State({"services": services}),
    )
    table = RouteTable(
        {key: query for key, query in routes.items() if key in wanted},
        {key: handler for key, handler in plain.items() if key in wanted},
        metrics,
        policy,
    )
    services.metric_sources.append(metrics)
    served = {(route.method, route.template) for route in table.routes}
    described = {key: one for key, one in descriptions_of(chosen).items() if key in served}
    services.openapi = msgspec.json.encode(openapi.document(described, policy))
    return Front(services, table, metrics, inner)


def whole_document() -> bytes:
    """Return the OpenAPI document of all services, without starting any."""
    return msgspec.json.encode(openapi.document(descriptions_of(gateway.litestar_handlers()), POLICY))


def descriptions_of(handlers: Iterable[HTTPRouteHandler]) -> dict[tuple[str, str], Described]:
    """Return what *handlers*, and the plain ones of the hot paths, say of themselves."""
    found = dict(gateway.hot_descriptions())
    for handler in handlers:
        described = handler.opt.get(DESCRIBED)
        if isinstance(described, Described):
            found |= dict.fromkeys(
                ((str(m), template_of(p)) for p in handler.paths for m in handler.http_methods), described
            )
    return found


def routes_of(handlers: Iterable[HTTPRouteHandler]) -> dict[tuple[str, str], bool]:
    """Return method and template of each handler, and whether it takes query parameters."""
    found: dict[tuple[str, str], bool] = {}
    for handler in handlers:
        described = handler.opt.get(DESCRIBED)
        query = described is None or described.query is not None
        for path in handler.paths:
            for method in handler.http_methods:
                found[str(method), template_of(path)] = query
    return found


def template_of(path: str) -> str:
    """
    Return Litestar's *path* as a template of the policy table.

    Example:
        >>> template_of("/api/v1/meters/{meter_id:str}/latest")
        '/api/v1/meters/{meter_id}/latest'
    """
    parts = (part.partition(":")[0] + "}" if part.startswith("{") else part for part in path.split("/"))
    return "/".join(parts)


async def _acceptable(request: Req) -> None:
    """Refuse an ``Accept`` header that has no place for JSON; lists of several forms look at it themselves."""
    described = request.route_handler.opt.get(DESCRIBED)
    if isinstance(described, Described) and not described.media and str not in described.answers.values():
        only_json(call_of(request.scope).headers.get(b"accept"))


def _pass_on(_: Req, error: Exception) -> NoReturn:
    """Hand every error to the front, which alone makes problems."""
    match error:
        case NotFoundException():
            raise Problem(404, "not_found", "There is nothing at this path") from error
        case ValidationException():
            raise Problem(404, "not_found", "There is no such object") from error
        case _:
            raise error
