"""The reading register as folds and queries see it: which readings counted at a position of the log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from smartgrid_domain.maths.quantities import Exponents, Ints

Subject = Literal["sensor", "meter"]
NO_PHASE = "-"
NO_SEQ = -1


class SeriesName(NamedTuple):
    """
    The natural key of a series.

    Attributes:
        subject_id: Sensor or meter.
        measurand: The ``sensor_type``, or the register of a meter.
        phase: ``-`` for none.
    """

    subject_id: str
    measurand: str
    phase: str


class Key(NamedTuple):
    """
    The natural key of a reading.

    Attributes:
        series_id: Its series.
        measured_at_us: When it was measured [µs since 1970].
        seq: Sequence number, -1 for none.
    """

    series_id: int
    measured_at_us: int
    seq: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Readings:
    """
    Readings that count, one per natural key, as arrays of one length ordered by series, time and seq.

    Attributes:
        series_id: Series (int64).
        measured_at_us: When measured [µs since 1970] (int64).
        seq: -1 for none (int64).
        mantissa: The value is mantissa · 10**exponent in the canonical unit, Wh for meters (int64).
        exponent: Likewise (int16).
        quality: Code of ``smartgrid_domain.maths.quantities.QUALITIES`` (int8).
    """

    series_id: Ints
    measured_at_us: Ints
    seq: Ints
    mantissa: Ints
    exponent: Exponents
    quality: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.series_id)


class Naming(Protocol):
    """The ids of series."""

    async def series(self, subject: Subject, names: Sequence[SeriesName]) -> Mapping[SeriesName, int]:
        """Return the id of each series; all are known, since their readings are recorded."""
        ...


class Register(Naming, Protocol):
    """
    The register at any position that its log has reached.

    A reading counts at a position when it is the highest revision of its natural key recorded by then and was not
    retracted by then.
    """

    async def current(self, keys: Sequence[Key], position: int) -> Mapping[Key, tuple[int, int]]:
        """Return (mantissa, exponent) of those of *keys* that count at *position*."""
        ...

    async def stretches(self, stretches: Sequence[tuple[int, int, int]], position: int) -> Readings:
        """Return what counts at *position* of stretches (series, start, end), half-open [µs since 1970], disjoint."""
        ...

    async def neighbours(
        self, places: Sequence[tuple[int, int]], number: int, position: int, *, before: bool
    ) -> Readings:
        """
        Return up to *number* readings that count at *position* on one side of each place (series, time), next to it.

        Args:
            places: Series and instant [µs since 1970]; readings at the instant itself are left out.
            number: Most readings of each.
            position: Of the log.
            before: Whether earlier ones are wanted, else later ones.
        """
        ...

    async def series_of(self, subject: Subject, subject_ids: Sequence[str]) -> Mapping[int, SeriesName]:
        """Return all series of some sensors or meters, by id."""
        ...
