"""
Paths to routes. Routing and policy see the same normalised path, and no spelling of a path reaches two routes.

Encoded slashes, dot segments, empty segments and trailing slashes are paths that do not exist.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from smartgrid_http.answers import Answer
from smartgrid_http.metrics import HttpMetrics, RouteCounts
from smartgrid_http.policy import POLICY, Access

HotHandler = Callable[[dict[str, Any], Callable[[], Awaitable[Any]]], Awaitable[Answer]]
"""A handler of a hot path: takes the ASGI scope and ``receive``, returns the answer or raises."""


class Route:
    """
    One method of one path.

    Attributes:
        method: HTTP method.
        template: Path template.
        access: Its row of the policy table.
        hot: Its handler, when it is plain ASGI; None when Litestar has it.
        query: Whether it takes query parameters.
        counts: Its metrics.
    """

    __slots__ = ("access", "counts", "hot", "method", "query", "template")

    def __init__(  # noqa: PLR0913  # made in one place
        self, method: str, template: str, *, access: Access, hot: HotHandler | None, counts: RouteCounts, query: bool
    ) -> None:
        self.method, self.template, self.access = method, template, access
        self.hot, self.counts, self.query = hot, counts, query


Methods = dict[str, Route]


class MissingFromPolicy(RuntimeError):
    """A handler has no row in the policy table, so nobody may start."""

    def __init__(self, routes: Iterable[tuple[str, str]]) -> None:
        super().__init__("missing in smartgrid_http.policy: " + ", ".join(f"{m} {t}" for m, t in sorted(routes)))


class RouteTable:
    """All routes of a process."""

    def __init__(
        self,
        litestar: Mapping[tuple[str, str], bool],
        hot: Mapping[tuple[str, str], HotHandler],
        metrics: HttpMetrics,
        policy: Mapping[tuple[str, str], Access] = POLICY,
    ) -> None:
        """
        Build the table.

        Args:
            litestar: Routes behind Litestar, and whether they take query parameters.
            hot: Plain handlers; they look at their query themselves.
            metrics: Where routes are counted.
            policy: Who may what.

        Raises:
            MissingFromPolicy: A route has no row in *policy*.
        """
        missing = {*litestar, *hot} - set(policy)
        if missing:
            raise MissingFromPolicy(missing)
        self.routes: list[Route] = []
        self._static: dict[str, Methods] = {}
        self._dynamic: dict[int, list[tuple[list[str | None], Methods]]] = {}
        for (method, template), access in policy.items():
            key = (method, template)
            if key not in litestar and key not in hot:
                continue
            counts = metrics.route(access.service, template, method)
            query = key in hot or litestar[key]
            self._add(Route(method, template, access=access, hot=hot.get(key), counts=counts, query=query))

    def _add(self, route: Route) -> None:
        self.routes.append(route)
        if "{" not in route.template:
            self._static.setdefault(route.template, {})[route.method] = route
            return
        pattern = [None if part.startswith("{") else part for part in route.template.split("/")]
        shelf = self._dynamic.setdefault(len(pattern), [])
        for known, methods in shelf:
            if known == pattern:
                methods[route.method] = route
                return
        shelf.append((pattern, {route.method: route}))

    def match(self, scope: dict[str, Any]) -> Methods | None:
        """
        Return the routes of the path in *scope* by method, None for a path that does not exist.

        The path in *scope* is replaced by the one that was looked at, so that everybody behind sees the same.
        """
        raw: bytes | None = scope.get("raw_path")
        path: str = scope["path"]
        # The raw path is only needed for what decoding hides; most paths hide nothing.
        if raw is None:
            raw = path.encode("utf-8", "surrogateescape")
        if b"%" not in raw:
            found = self._static.get(path)
            if found is not None:
                return found
            segments = path.split("/")
        else:
            try:
                segments = [unquote_to_bytes(part).decode() for part in raw.partition(b"?")[0].split(b"/")]
            except UnicodeDecodeError:
                return None
            path = "/".join(segments)
            scope["path"] = path
        if len(segments) != path.count("/") + 1 or not all(map(_plain, segments[1:])):
            return None
        found = self._static.get(path)
        return found or self._parametrised(segments)

    def _parametrised(self, segments: list[str]) -> Methods | None:
        for pattern, methods in self._dynamic.get(len(segments), ()):
            if all(part is None or part == segment for part, segment in zip(pattern, segments, strict=True)):
                return methods
        return None


def _plain(segment: str) -> bool:
    return segment not in ("", ".", "..") and segment.isprintable() and "\\" not in segment
