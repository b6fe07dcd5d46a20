"""What the importer reads from real recordings equals what an oracle of its own reads."""

import os
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from tests import oracle

from smartgrid_ops.importing.files import Source
from smartgrid_ops.importing.items import Reading
from smartgrid_ops.importing.mapping import load_mapping
from smartgrid_ops.importing.reading import readings

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SGA_TEST_DATA", ROOT.parent / "shared" / "data"))
HOUSEHOLD = DATA / "uci_household_1min_part1.csv.gz"
STEEL = DATA / "steel_industry_15min_2018.csv.gz"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

pytestmark = pytest.mark.skipif(
    not (HOUSEHOLD.exists() and STEEL.exists()),
    reason=f"no recordings in {DATA}; SGA_TEST_DATA names the folder that has them",
)


def read(file: Path, mapping: str) -> list[Reading]:
    found = readings(Source(file), load_mapping(ROOT / "ops" / "mappings" / mapping))
    return [item for item in found if isinstance(item, Reading)]


def instant(reading: Reading) -> datetime:
    return EPOCH + timedelta(microseconds=reading.at.micros)


def test_household_values_and_times_equal_the_oracle() -> None:
    found: dict[str, oracle.Series] = {}
    for reading in read(HOUSEHOLD, "household.toml"):
        unit = Fraction(1000) if reading.series.fields["unit"] == "kW" else Fraction(1)
        measurand = str(reading.series.fields["sensor_type"])
        found.setdefault(measurand, []).append((instant(reading), Fraction(reading.number) * unit))

    assert found == oracle.household(HOUSEHOLD)


def test_steel_register_equals_the_oracle() -> None:
    found = [(instant(reading), int(Fraction(reading.number) * 1000)) for reading in read(STEEL, "steel.toml")]

    assert found == oracle.registers(oracle.steel(STEEL))
