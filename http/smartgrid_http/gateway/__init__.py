"""Which handlers the process serves. Each route module gives its list; adding one is one line here."""

from collections.abc import Mapping

from litestar.handlers import HTTPRouteHandler

from smartgrid_http import admin, analytics, metering, meters, probes, readings, receipts, sensors, users
from smartgrid_http.describe import Described
from smartgrid_http.routing import HotHandler
from smartgrid_http.services import Services


def litestar_handlers() -> list[HTTPRouteHandler]:
    """Return the handlers behind Litestar."""
    modules = (admin, analytics, metering, meters, probes, readings, receipts, sensors, users)
    return [handler for module in modules for handler in module.handlers]


def hot_handlers(services: Services) -> Mapping[tuple[str, str], HotHandler]:
    """Return the plain ASGI handlers of the hot paths."""
    _ = services
    return {}


def hot_descriptions() -> Mapping[tuple[str, str], Described]:
    """Return what the hot handlers are, for the OpenAPI document."""
    return {}
