"""Counts of requests, kept as plain numbers and turned into Prometheus text only when asked."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
OTHER = "other"
"""Route label of paths that we do not have: random paths add no series."""


class RouteCounts:
    """
    What happened on one route.

    Attributes:
        service: Who owns it.
        route: Template.
        method: HTTP method.
        by_class: Answers by first digit of the status.
        buckets: Answers by duration, one more than :data:`BOUNDS_S`.
        seconds: Sum of durations [s].
    """

    __slots__ = ("buckets", "by_class", "method", "route", "seconds", "service")

    def __init__(self, service: str, route: str, method: str) -> None:
        self.service, self.route, self.method = service, route, method
        self.by_class = [0] * 6
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.seconds = 0.0

    def add(self, status: int, seconds: float) -> None:
        """Count an answer."""
        self.by_class[status // 100] += 1
        self.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        self.seconds += seconds


class Source(Protocol):
    """Something else that has metrics."""

    def collect(self) -> Iterable[Metric]:
        """Return the present values."""
        ...


class HttpMetrics:
    """
    All routes of this process.

    Attributes:
        routes: Their counts.
        in_flight: Requests that are worked on, by service.
    """

    def __init__(self) -> None:
        self.routes: list[RouteCounts] = []
        self.in_flight: dict[str, int] = {}
        self.auth_failures: dict[str, int] = {}

    def route(self, service: str, template: str, method: str) -> RouteCounts:
        """Return fresh counts of one route."""
        counts = RouteCounts(service, template, method)
        self.routes.append(counts)
        self.in_flight.setdefault(service, 0)
        return counts

    def auth_failure(self, reason: str) -> None:
        """Count a refusal of credentials."""
        self.auth_failures[reason] = self.auth_failures.get(reason, 0) + 1

    def collect(self) -> Iterable[Metric]:
        """Return the present values, as a Prometheus collector does."""
        requests = CounterMetricFamily(
            "smartgrid_http_requests", "Answers", labels=("service", "route", "method", "status")
        )
        durations = HistogramMetricFamily(
            "smartgrid_http_request_duration_seconds", "Time to the answer", labels=("service", "route", "method")
        )
        for counts in self.routes:
            labels = (counts.service, counts.route, counts.method)
            for digit, count in enumerate(counts.by_class):
                if count:
                    requests.add_metric((*labels, f"{digit}xx"), count)
            if any(counts.buckets):
                durations.add_metric(labels, _cumulated(counts.buckets), counts.seconds)
        yield requests
        yield durations
        flight = GaugeMetricFamily("smartgrid_http_requests_in_flight", "Requests worked on", labels=("service",))
        for service, count in self.in_flight.items():
            flight.add_metric((service,), count)
        yield flight
        failures = CounterMetricFamily("smartgrid_auth_failures", "Refused credentials", labels=("reason",))
        for reason, count in self.auth_failures.items():
            failures.add_metric((reason,), count)
        yield failures


def _cumulated(buckets: list[int]) -> list[tuple[str, float]]:
    total = 0
    out: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), buckets, strict=True):
        total += count
        out.append((bound, total))
    return out


def exposition(sources: Iterable[Source]) -> bytes:
    """Return the metrics of *sources* as Prometheus text."""
    registry = CollectorRegistry(auto_describe=False)
    for source in sources:
        registry.register(_Fixed(source.collect))
    return generate_latest(registry)


class _Fixed:
    """A collector that the registry does not ask twice."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self.collect = collect

    def describe(self) -> Iterable[Metric]:
        return ()
