"""Readings, corrections and retractions as a client means them, put into a log and a register."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple
from uuid import UUID

from hypothesis import strategies as st
from tests.projections.fakes import FakeLog

from smartgrid_adapters.memory.register import MemoryRegister, Revision
from smartgrid_domain.maths.columns import pack_readings, rows_of
from smartgrid_domain.maths.quantities import MEASURANDS, convert, decimal_of
from smartgrid_projections.register import Key, SeriesName
from smartgrid_schemas.telemetry import Corrects, ReadingRetracted, SeriesKey

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Reading(NamedTuple):
    """The natural key of a reading."""

    sensor_id: str
    measurand: str
    phase: str | None
    at_us: int
    seq: int


@dataclass(frozen=True)
class Fact:
    reading: Reading
    kind: Literal["read", "correct", "retract"]
    value: float = 0.0
    unit: str = ""


class Recorder:
    """Writes facts as ingestion does: one event of many readings, the register beside it."""

    def __init__(self) -> None:
        self.log = FakeLog()
        self.register = MemoryRegister()
        self._ids = 0

    def record(self, facts: Sequence[Fact]) -> None:
        """Record *facts* in order: neighbouring readings share an event, a retraction has its own."""
        waiting: list[Fact] = []
        for fact in facts:
            if fact.kind == "retract":
                self._readings(waiting)
                waiting = []
                self._retract(fact.reading)
            elif any(fact.reading == other.reading for other in waiting):
                self._readings(waiting)
                waiting = [fact]
            else:
                waiting.append(fact)
        self._readings(waiting)

    def _key(self, reading: Reading) -> Key:
        name = SeriesName(reading.sensor_id, reading.measurand, reading.phase or "-")
        return Key(self.register.id_of("sensor", name), reading.at_us, reading.seq)

    def _readings(self, facts: Sequence[Fact]) -> None:
        if not facts:
            return
        position = len(self.log.events["telemetry"]) + 1
        series = list(dict.fromkeys((f.reading.sensor_id, f.reading.measurand, f.reading.phase, f.unit) for f in facts))
        ordered = sorted(
            facts,
            key=lambda f: series.index((f.reading.sensor_id, f.reading.measurand, f.reading.phase, f.unit)),
        )
        decimals = [decimal_of(fact.value) for fact in ordered]
        corrects: list[Corrects] = []
        for row, (fact, (mantissa, exponent)) in enumerate(zip(ordered, decimals, strict=True)):
            revisions = self.register.revisions.setdefault(self._key(fact.reading), [])
            assert bool(revisions) == (fact.kind == "correct")
            if revisions:
                corrects.append(Corrects(row, revisions[-1].event_id.bytes, "better"))
            self._ids += 1
            shift = MEASURANDS[fact.reading.measurand].units[fact.unit]
            revisions.append(Revision(*convert(mantissa, exponent, shift), 0, UUID(int=self._ids), position))
        rows = rows_of(
            [series.index((f.reading.sensor_id, f.reading.measurand, f.reading.phase, f.unit)) for f in ordered],
            [f.reading.at_us for f in ordered],
            [mantissa for mantissa, _ in decimals],
            [exponent for _, exponent in decimals],
            seq=[f.reading.seq for f in ordered],
            corrects=corrects,
        )
        self.log.put(pack_readings(0, [SeriesKey(*one) for one in series], rows), stream="readings:0")

    def _retract(self, reading: Reading) -> None:
        newest = self.register.revisions[self._key(reading)][-1]
        self.register.retracted[newest.event_id] = len(self.log.events["telemetry"]) + 1
        self.log.put(
            ReadingRetracted(
                event_id=str(newest.event_id),
                sensor_id=reading.sensor_id,
                sensor_type=reading.measurand,
                phase=reading.phase,
                measured_at=EPOCH + timedelta(microseconds=reading.at_us),
                seq=None if reading.seq == -1 else reading.seq,
                reason="sensor was off",
            ),
            stream="readings:0",
        )


START_US = 1_768_435_200_000_000  # 2026-01-15T00:00Z
VALUES = {
    "voltage": st.floats(0, 400, allow_subnormal=False),
    "power": st.floats(-1e11, 1e11),
    "power_factor": st.floats(-1, 1),
}


@st.composite
def chains(draw: st.DrawFn) -> list[list[Fact]]:
    """What happens to each of some natural keys, in its order."""
    readings = draw(
        st.lists(
            st.builds(
                Reading,
                st.sampled_from(["s1", "s2"]),
                st.sampled_from(sorted(VALUES)),
                st.sampled_from([None, "L1"]),
                st.integers(0, 3 * 86_400).map(lambda second: START_US + second * 1_000_000)
                | st.integers(0, 1800).map(lambda second: START_US + second * 1_000_000),
                st.sampled_from([-1, 0, 7]),
            ),
            min_size=1,
            max_size=12,
            unique=True,
        )
    )
    return [draw(_chain(reading)) for reading in readings]


@st.composite
def _chain(draw: st.DrawFn, reading: Reading) -> list[Fact]:
    units = sorted(MEASURANDS[reading.measurand].units)
    counts = False
    chain: list[Fact] = []
    for wish in draw(st.lists(st.sampled_from(["correct", "retract"]), max_size=3)):
        if not chain:
            chain.append(_given(draw, reading, "read", units))
            counts = True
        if wish == "correct":
            chain.append(_given(draw, reading, "correct", units))
            counts = True
        elif counts:
            chain.append(Fact(reading, "retract"))
            counts = False
    return chain or [_given(draw, reading, "read", units)]


def _given(draw: st.DrawFn, reading: Reading, kind: Literal["read", "correct"], units: list[str]) -> Fact:
    unit = draw(st.sampled_from(units))
    value = draw(VALUES[reading.measurand]) / 10.0 ** MEASURANDS[reading.measurand].units[unit]
    return Fact(reading, kind, value, unit)


@st.composite
def arrivals(draw: st.DrawFn, of: list[list[Fact]]) -> list[list[Fact]]:
    """An order in which the facts of *of* may arrive, cut into requests."""
    turns = draw(st.permutations([i for i, chain in enumerate(of) for _ in chain]))
    waiting = [iter(chain) for chain in of]
    facts = [next(waiting[i]) for i in turns]
    cuts = sorted(draw(st.lists(st.integers(0, len(facts)), max_size=4)))
    return [facts[a:b] for a, b in zip([0, *cuts], [*cuts, len(facts)], strict=True)]
