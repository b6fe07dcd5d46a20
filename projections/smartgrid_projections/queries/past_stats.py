"""Statistics as of a position: stored buckets where nothing was recorded since, the readings of then elsewhere."""

from bisect import bisect_left
from collections.abc import Sequence

from smartgrid_domain.maths.rollups import QUARTER_US
from smartgrid_projections.queries.stats import READINGS_LEVEL, Span, cover


def spans_of_then(spans: Sequence[Span], changed: Sequence[int]) -> list[Span]:
    """
    Return what to read instead of *spans* for one series.

    Args:
        spans: Disjoint, as they would be read now.
        changed: Starts of the quarters of an hour whose buckets are not those of then, ascending [µs since 1970].

    Guarantees:
        The same stretch of time is covered, no bucket of a span holds a changed quarter, and none crosses an edge of
        the spans given.

    Example:
        >>> hour = 4 * QUARTER_US
        >>> spans_of_then([Span(1, 0, 3 * hour)], [hour]) == [
        ...     Span(1, 0, hour), Span(-1, hour, hour + QUARTER_US), Span(0, hour + QUARTER_US, 2 * hour),
        ...     Span(1, 2 * hour, 3 * hour)]
        True
    """
    result: list[Span] = []
    for span in spans:
        if span.level == READINGS_LEVEL:
            _add(result, span)
            continue
        at = span.start_us
        for quarter in changed[bisect_left(changed, span.start_us) : bisect_left(changed, span.end_us)]:
            for part in cover(at, quarter, span.level):
                _add(result, part)
            at = quarter + QUARTER_US
            _add(result, Span(READINGS_LEVEL, quarter, at))
        for part in cover(at, span.end_us, span.level):
            _add(result, part)
    return result


def _add(spans: list[Span], span: Span) -> None:
    if spans and spans[-1].level == span.level and spans[-1].end_us == span.start_us:
        spans[-1] = spans[-1]._replace(end_us=span.end_us)
    else:
        spans.append(span)
