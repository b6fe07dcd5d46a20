"""Health, metrics and the hello of the original."""

from typing import Any, Literal

from litestar import get
from litestar.di import NamedDependency
from msgspec import Struct

from smartgrid_domain.instants import rfc3339
from smartgrid_http.answers import Answer, answer, encoded
from smartgrid_http.describe import describe
from smartgrid_http.metrics import exposition
from smartgrid_http.services import Services

DEPENDENCIES = frozenset({"store", "bus", "cache"})
METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Hello(Struct, frozen=True, kw_only=True):
    """The answer of ``/api/test``."""

    status: Literal["success"] = "success"
    message: str = "Smart Grid Analytics is running"
    service: str = "gateway"


class Alive(Struct, frozen=True, kw_only=True):
    """The answer of ``/health/live``."""

    status: Literal["alive"] = "alive"


class Ready(Struct, frozen=True, kw_only=True):
    """The answer of ``/health/ready``."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, str]


class ServiceHealth(Struct, frozen=True, kw_only=True):
    """How one service is."""

    status: Literal["healthy", "unhealthy"]


class Summary(Struct, frozen=True, kw_only=True):
    """How many services are how."""

    total: int
    healthy: int
    unhealthy: int


class Breaker(Struct, frozen=True, kw_only=True):
    """State of a circuit breaker."""

    state: Literal["closed", "open", "half_open"]
    failures: int


class Health(Struct, frozen=True, kw_only=True):
    """The answer of ``/health``, in the original's shape."""

    status: Literal["healthy", "degraded", "unhealthy"]
    service: str
    timestamp: str
    services: dict[str, ServiceHealth]
    summary: Summary
    circuit_breakers: dict[str, Breaker]
    dependencies: dict[str, str]


@get("/api/test", opt=describe("Say hello", answers={200: Hello}))
async def hello() -> Answer:
    """Say hello, as the original did."""
    return answer(Hello())


@get("/health/live", opt=describe("Whether the event loop answers", answers={200: Alive}))
async def live() -> Answer:
    """Answer while the event loop runs; depends on nothing else."""
    return answer(Alive())


@get("/health/ready", opt=describe("Whether to send requests here", answers={200: Ready, 503: Ready}))
async def ready(services: NamedDependency[Services]) -> Answer:
    """Answer 200 while every needed dependency is usable."""
    board = services.health
    state: Literal["ready", "not_ready"] = "ready" if board.ready else "not_ready"
    return answer(Ready(status=state, checks=dict(board.checks())), status=200 if board.ready else 503)


@get("/health", opt=describe("How the services are", answers={200: Health, 503: Health}))
async def health(services: NamedDependency[Services]) -> Answer:
    """Answer the state of each service, in the original's shape; 503 only if all are down."""
    board = services.health
    here = board.services
    up = board.usable
    told = ServiceHealth(status="healthy" if up else "unhealthy")
    healthy = len(here) if up else 0
    degraded = not board.ready or not all(board.results.get(name) for name in board.wanted)
    state: Literal["healthy", "degraded", "unhealthy"] = (
        "unhealthy" if not up else "degraded" if degraded else "healthy"
    )
    payload = Health(
        status=state,
        service=board.service,
        timestamp=rfc3339(services.clock.now()),
        services=dict.fromkeys(here, told),
        summary=Summary(total=len(here), healthy=healthy, unhealthy=len(here) - healthy),
        circuit_breakers={},
        dependencies={
            name: "healthy" if board.results.get(name) else "unhealthy"
            for name in (*board.needed, *board.wanted)
            if name in DEPENDENCIES
        },
    )
    return answer(payload, status=503 if state == "unhealthy" else 200)


@get("/metrics", opt=describe("Metrics as Prometheus text", answers={200: str}))
async def metrics(services: NamedDependency[Services]) -> Answer:
    """Answer the metrics of this process; for peers on this machine."""
    return encoded(exposition(services.metric_sources), media_type=METRICS_TYPE)


@get("/api/v1/openapi.json", opt=describe("This description", answers={200: dict[str, Any]}))
async def description(services: NamedDependency[Services]) -> Answer:
    """Answer the OpenAPI document of what is served here."""
    return encoded(services.openapi)


handlers = [hello, live, ready, health, metrics, description]
