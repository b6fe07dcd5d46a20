"""What happens to meters, put into a log and a register."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from hypothesis import strategies as st
from tests.projections.facts import EPOCH, START_US
from tests.projections.fakes import FakeLog

from smartgrid_adapters.memory.register import MemoryRegister, Revision
from smartgrid_domain.maths.columns import pack_meter_readings, rows_of
from smartgrid_domain.maths.quantities import METER_UNITS, convert, decimal_of
from smartgrid_domain.maths.registers import Break
from smartgrid_projections.register import Key, SeriesName
from smartgrid_schemas.metering import (
    MeterConfigured,
    MeterExchanged,
    MeterReadingRetracted,
    MeterReset,
    RegisterKey,
)
from smartgrid_schemas.telemetry import Corrects

REGISTER = "1.8.0"
SECOND = 1_000_000


def at(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


@dataclass(frozen=True)
class Step:
    """One thing that happens; *at_us* is when in the grid, except for a customer: that is when it is recorded."""

    kind: Literal["read", "retract", "exchange", "reset", "undo", "rollover", "customer"]
    meter: str
    at_us: int = 0
    wh: int = 0
    final_wh: int = 0
    customer: str | None = None


class MeterRecorder:
    """Writes steps as ingestion does; keeps what counts in the end for oracles."""

    def __init__(self) -> None:
        self.log = FakeLog()
        self.register = MemoryRegister()
        self.breaks: dict[tuple[str, int, str], Break] = {}
        self.rollovers: dict[str, int | None] = {}
        self.customers: dict[str, str | None] = {}
        self.links: dict[str, list[tuple[int, str | None]]] = {}
        self.clock_us = START_US
        self._ids = 0

    def key(self, meter: str, at_us: int) -> Key:
        return Key(self.register.id_of("meter", SeriesName(meter, REGISTER, "-")), at_us, -1)

    def record(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.clock_us += SECOND
            self._one(step)

    def _put(self, event: object, stream: str) -> None:
        self.log.put(event, stream=stream, recorded_at=at(self.clock_us))  # type: ignore[arg-type]  # all of them are events

    def _one(self, step: Step) -> None:  # noqa: C901  # one case a kind
        match step.kind:
            case "read":
                self.read(step.meter, [(step.at_us, step.wh / 1000)])
            case "retract":
                revisions = self.register.revisions.get(self.key(step.meter, step.at_us))
                if revisions and revisions[-1].event_id not in self.register.retracted:
                    self.register.retracted[revisions[-1].event_id] = len(self.log.events["telemetry"]) + 1
                    self._retracted(step, "reading", revisions[-1].event_id)
            case "exchange":
                self.breaks[step.meter, step.at_us, "exchange"] = Break(step.at_us, step.wh, step.final_wh)
                event = MeterExchanged(
                    meter_id=step.meter,
                    register=REGISTER,
                    at=at(step.at_us),
                    old_final_wh=step.final_wh,
                    new_initial_wh=step.wh,
                    reason="worn out",
                )
                self._put(event, f"meter:{step.meter}")
            case "reset":
                self.breaks[step.meter, step.at_us, "reset"] = Break(step.at_us)
                event_ = MeterReset(meter_id=step.meter, register=REGISTER, at=at(step.at_us), reason="power cut")
                self._put(event_, f"meter:{step.meter}")
            case "undo":
                for kind in ("exchange", "reset"):
                    if self.breaks.pop((step.meter, step.at_us, kind), None):
                        self._retracted(step, kind, UUID(int=1))
            case "rollover":
                self.rollovers[step.meter] = step.wh or None
                self._configured(step.meter)
            case "customer":
                self.clock_us = max(self.clock_us, step.at_us)
                if self.customers.get(step.meter) != step.customer:
                    self.links.setdefault(step.meter, []).append((self.clock_us, step.customer))
                self.customers[step.meter] = step.customer
                self._configured(step.meter)

    def _configured(self, meter: str) -> None:
        event = MeterConfigured(
            meter_id=meter, customer_id=self.customers.get(meter), rollover_at_wh=self.rollovers.get(meter)
        )
        self._put(event, f"meter:{meter}")

    def _retracted(self, step: Step, kind: str, event_id: UUID) -> None:
        event = MeterReadingRetracted(
            event_id=str(event_id),
            kind=kind,
            meter_id=step.meter,
            register=REGISTER,
            measured_at=at(step.at_us),
            reason="wrong",
        )
        self._put(event, "registers:0")

    def read(self, meter: str, readings: Sequence[tuple[int, float]]) -> None:
        """Record readings of a meter [kWh] in one event; one at a time that has one corrects it."""
        position = len(self.log.events["telemetry"]) + 1
        corrects: list[Corrects] = []
        decimals = [decimal_of(kwh) for _, kwh in readings]
        for row, ((at_us, _), (mantissa, exponent)) in enumerate(zip(readings, decimals, strict=True)):
            revisions = self.register.revisions.setdefault(self.key(meter, at_us), [])
            if revisions:
                corrects.append(Corrects(row, revisions[-1].event_id.bytes, "better"))
            self._ids += 1
            value = convert(mantissa, exponent, METER_UNITS["kWh"])
            revisions.append(Revision(*value, 0, UUID(int=self._ids), position))
        rows = rows_of(
            [0] * len(readings),
            [at_us for at_us, _ in readings],
            [mantissa for mantissa, _ in decimals],
            [exponent for _, exponent in decimals],
            corrects=corrects,
        )
        self._put(pack_meter_readings(0, [RegisterKey(meter, REGISTER, "kWh")], rows), "registers:0")


QUARTER = 900 * SECOND
METERS = st.sampled_from(["m1", "m2"])
TIMES = st.integers(0, 60).map(lambda quarter: START_US + quarter * QUARTER) | st.integers(0, 50_000).map(
    lambda second: START_US + second * SECOND
)
REGISTERS = st.integers(0, 40).map(lambda steps: steps * 250) | st.integers(0, 10**7)


def _growing(meter: str, quarter: int, jitter: int) -> Step:
    return Step("read", meter, START_US + quarter * QUARTER, quarter * 500 + jitter)


def steps() -> st.SearchStrategy[list[Step]]:
    """Everything that may happen to two meters, in any order."""
    growing = st.builds(
        _growing,
        METERS,
        st.integers(0, 60),
        st.integers(0, 400),
    )
    return st.lists(
        growing
        | growing
        | growing
        | st.builds(Step, st.just("read"), METERS, TIMES, REGISTERS)
        | st.builds(Step, st.just("retract"), METERS, TIMES)
        | st.builds(Step, st.just("exchange"), METERS, TIMES, REGISTERS, REGISTERS)
        | st.builds(Step, st.sampled_from(["reset", "undo"]), METERS, TIMES)
        | st.builds(Step, st.just("rollover"), METERS, st.just(0), st.sampled_from([0, 10_000]))
        | st.builds(
            Step, st.just("customer"), METERS, TIMES, st.just(0), st.just(0), st.sampled_from([None, "c1", "c2"])
        ),
        min_size=1,
        max_size=40,
    )
