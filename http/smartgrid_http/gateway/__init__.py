"""Which handlers the process serves. Each route module gives its list; adding one is one line here."""

from collections.abc import Mapping

from litestar.handlers import HTTPRouteHandler

from smartgrid_http import (
    admin,
    analytics,
    ingestion,
    logs,
    metering,
    meters,
    probes,
    readings,
    rebuilds,
    receipts,
    schemas,
    sensors,
    users,
)
from smartgrid_http.describe import Described
from smartgrid_http.hot import ingest
from smartgrid_http.hot.consumption import Consumption
from smartgrid_http.routing import HotHandler
from smartgrid_http.services import Services, present


def litestar_handlers() -> list[HTTPRouteHandler]:
    """Return the handlers behind Litestar."""
    modules = (
        admin,
        analytics,
        ingestion,
        logs,
        metering,
        meters,
        probes,
        readings,
        rebuilds,
        receipts,
        schemas,
        sensors,
        users,
    )
    return [handler for module in modules for handler in module.handlers]


def hot_handlers(services: Services) -> Mapping[tuple[str, str], HotHandler]:
    """Return the plain ASGI handlers of the hot paths."""
    if services.ingestion is None:
        return {}
    told = services.registers is not None and services.store is not None
    consumption = Consumption(present(services.registers), present(services.store)) if told else None
    return ingest.handlers(ingest.Ingest(services.ingestion, services.keys, consumption))


def hot_descriptions() -> Mapping[tuple[str, str], Described]:
    """Return what the hot handlers are, for the OpenAPI document."""
    return ingest.DESCRIPTIONS
