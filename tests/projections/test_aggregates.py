import itertools
from collections import Counter
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import anyio
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.projections.facts import Fact, Recorder, arrivals, chains

from smartgrid_adapters.memory.rollups import Bucket, MemoryRollups
from smartgrid_domain.maths.histograms import WIDTHS, bins_of, encoded, grouped
from smartgrid_domain.maths.quantities import MEASURANDS
from smartgrid_projections.read_models.aggregates import LEVELS_US, project
from smartgrid_projections.register import SeriesName

Rows = dict[tuple[SeriesName, int, int], Bucket]


def folded(recorder: Recorder, cuts: Sequence[int]) -> Rows:
    events = recorder.log.events["telemetry"]
    tables = MemoryRollups(recorder.register)

    async def scenario() -> None:
        bounds = sorted({0, len(events), *(cut % (len(events) + 1) for cut in cuts)})
        for start, end in itertools.pairwise(bounds):
            await project(events[start:end], tables)

    anyio.run(scenario)
    return {
        (recorder.register.names[series][1], level, start): row for (level, series, start), row in tables.rows.items()
    }


def recorded(requests: Sequence[Sequence[Fact]]) -> Recorder:
    recorder = Recorder()
    for request in requests:
        recorder.record(request)
    return recorder


def oracle(of: Sequence[Sequence[Fact]]) -> Rows:
    """The rows by the book: what counts in the end, in decimals."""
    values: dict[tuple[SeriesName, int, int], list[int]] = {}
    revisions: Counter[tuple[SeriesName, int, int]] = Counter()
    for chain in of:
        reading = chain[0].reading
        name = SeriesName(reading.sensor_id, reading.measurand, reading.phase or "-")
        for level, length in enumerate(LEVELS_US):
            key = name, level, reading.at_us // length * length
            revisions[key] += len(chain)
            values.setdefault(key, [])
            if chain[-1].kind != "retract":
                values[key].append(quanta_of(chain[-1]))
    return {
        key: Bucket(
            len(own),
            sum(own),
            sum(value * value for value in own),
            min(own, default=None),
            max(own, default=None),
            histogram_of(key[0].measurand, own),
            revisions[key],
        )
        for key, own in values.items()
    }


def quanta_of(fact: Fact) -> int:
    measurand = MEASURANDS[fact.reading.measurand]
    with localcontext(prec=400):
        value = Decimal(repr(fact.value)).scaleb(measurand.units[fact.unit] - measurand.quantum_exponent)
        return int(value.quantize(Decimal(1), ROUND_HALF_EVEN))


def histogram_of(measurand: str, values: list[int]) -> bytes:
    bins = bins_of(np.array(values, np.int64), WIDTHS[measurand])
    return encoded(grouped(np.zeros(len(values), np.int64), bins, None, 1))[0]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_arrival_order_and_batch_split_give_the_rows_of_the_oracle(data: st.DataObject) -> None:
    of = data.draw(chains())
    cuts = st.lists(st.integers(0, 50), max_size=4)

    first = folded(recorded(data.draw(arrivals(of))), data.draw(cuts))
    second = folded(recorded(data.draw(arrivals(of))), data.draw(cuts))

    assert first == oracle(of)
    assert second == first
