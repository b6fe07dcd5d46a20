"""Real recordings in by HTTP; what comes out equals an oracle that reads the files itself, digit by digit."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests import oracle
from tests.system.product import Product

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SGA_TEST_DATA", ROOT.parent / "shared" / "data"))
HOUSEHOLD = DATA / "uci_household_1min_part1.csv.gz"
STEEL = DATA / "steel_industry_15min_2018.csv.gz"
MAPPINGS = ROOT / "ops" / "mappings"

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not (HOUSEHOLD.exists() and STEEL.exists()),
        reason=f"no recordings in {DATA}; SGA_TEST_DATA names the folder that has them",
    ),
]

LEVELS: dict[int, Callable[[datetime], datetime]] = {
    0: oracle.quarter_start,
    1: oracle.hour_start,
    2: oracle.day_start("UTC"),
}
UNITS = {"voltage": "V", "current": "A", "power": "W"}
BYTES_PER_READING = 20

ROLLUPS = """
SELECT s.measurand, r.level, r.bucket_start, r.n, r.s, r.q, r.low, r.high
FROM rollups_v1 r JOIN series s USING (series_id) WHERE s.subject = 'sensor' AND r.n > 0
"""
CONSUMPTION = """
SELECT c.start_at, c.wh FROM consumption_v1 c JOIN series s USING (series_id)
WHERE s.subject_id = 'steel-plant' AND s.measurand = '1.8.0' AND c.wh <> 0
"""
EVERYTHING = """
SELECT s.subject, s.subject_id, s.measurand, s.phase, r.level, r.bucket_start, r.n, r.s, r.q, r.low, r.high,
       encode(r.histogram, 'hex'), r.revision
FROM rollups_v1 r JOIN series s USING (series_id) ORDER BY 1, 2, 3, 4, 5, 6
"""
ALL_CONSUMPTION = """
SELECT s.subject_id, s.measurand, c.start_at, c.wh, c.estimated_wh, c.readings
FROM consumption_v1 c JOIN series s USING (series_id) ORDER BY 1, 2, 3
"""
LOG_SIZE = """
SELECT pg_total_relation_size('telemetry_events') + pg_total_relation_size('telemetry_commits'),
       (SELECT count(*) FROM telemetry_events WHERE topic LIKE '%readings-recorded%'),
       (SELECT count(*) FROM reading_register)
"""


def fill(product: Product, *more: str) -> dict[str, dict[str, Any]]:
    found = {
        "household": product.import_file(HOUSEHOLD, MAPPINGS / "household.toml", *more),
        "steel": product.import_file(STEEL, MAPPINGS / "steel.toml", *more),
    }
    last = max(int(summary["last_position"].partition("@")[2]) for summary in found.values())
    product.get("/api/v1/analytics/sensor/stats", hours=1, min_position=f"telemetry@{last}", wait_ms=5000)
    day = {"from": "2018-01-01T00:00:00Z", "to": "2018-01-02T00:00:00Z"}
    product.get(
        "/api/v1/analytics/consumption/trends",
        meter_id="steel-plant",
        min_position=f"telemetry@{last}",
        wait_ms=5000,
        **day,
    )
    return found


class Filled:
    """A product with both recordings in it, and what the import said."""

    def __init__(self, product: Product, summaries: dict[str, dict[str, Any]]) -> None:
        self.product = product
        self.summaries = summaries


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with Product(tmp_path_factory.mktemp("real") / "home") as product:
        yield Filled(product, fill(product))


@pytest.fixture(scope="module")
def household() -> dict[str, oracle.Series]:
    return oracle.household(HOUSEHOLD)


@pytest.fixture(scope="module")
def registers() -> list[tuple[datetime, int]]:
    return oracle.registers(oracle.steel(STEEL))


def test_every_value_is_accepted_once(
    filled: Filled, household: dict[str, oracle.Series], registers: list[tuple[datetime, int]]
) -> None:
    counts = {name: (s["accepted"], s["duplicates"], s["rejected"]) for name, s in filled.summaries.items()}

    assert counts == {
        "household": (sum(len(series) for series in household.values()), 0, 0),
        "steel": (len(registers), 0, 0),
    }
    assert filled.summaries["household"]["missing"] == 12


@pytest.mark.parametrize("level", LEVELS)
def test_rollup_rows_equal_the_oracle(filled: Filled, household: dict[str, oracle.Series], level: int) -> None:
    rows = {
        (measurand, start): (n, int(s), int(q), low, high)
        for measurand, at_level, start, n, s, q, low, high in filled.product.rows(ROLLUPS)
        if at_level == level
    }

    assert rows == {
        (measurand, start): (bucket.n, bucket.total, bucket.squares, bucket.low, bucket.high)
        for measurand, series in household.items()
        for start, bucket in oracle.buckets(series, measurand, LEVELS[level]).items()
    }


@pytest.mark.parametrize(
    ("interval", "zone", "start_of"),
    [
        ("15m", "UTC", oracle.quarter_start),
        ("1h", "UTC", oracle.hour_start),
        ("1d", "Europe/Tirane", oracle.day_start("Europe/Tirane")),
        ("1d", "Europe/Paris", oracle.day_start("Europe/Paris")),
        ("1d", "Asia/Kathmandu", oracle.day_start("Asia/Kathmandu")),
    ],
)
@pytest.mark.parametrize("measurand", oracle.QUANTA)
def test_stats_have_the_digits_of_the_oracle(  # noqa: PLR0913, PLR0917  # fixtures and parameters
    filled: Filled,
    household: dict[str, oracle.Series],
    interval: str,
    zone: str,
    start_of: Callable[[datetime], datetime],
    measurand: str,
) -> None:
    answer = filled.product.get(
        "/api/v1/analytics/sensor/stats",
        **{"from": "2006-12-16T00:00:00Z", "to": "2007-01-01T00:00:00Z"},
        sensor_id="household",
        sensor_type=measurand,
        interval=interval,
        tz=zone,
    )

    assert {moment(row["bucket_start"]): digits(row) for row in answer["data"]} == {
        start: expected(bucket, measurand)
        for start, bucket in oracle.buckets(household[measurand], measurand, start_of).items()
    }


def digits(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ["count", "avg_value", "min_value", "max_value", "stddev_value", "p05_value", "median_value", "p95_value"]
    return (row["unit"], *(row[name] for name in names))


def expected(bucket: oracle.Bucket, measurand: str) -> tuple[Any, ...]:
    per_unit = oracle.QUANTA[measurand]
    return (
        UNITS[measurand],
        bucket.n,
        bucket.mean(per_unit),
        bucket.low / per_unit,
        bucket.high / per_unit,
        bucket.deviation(per_unit),
        *(bucket.percentile(percent, measurand) for percent in (5, 50, 95)),
    )


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def test_consumption_rows_equal_the_register_differences(filled: Filled, registers: list[tuple[datetime, int]]) -> None:
    hours = {start: wh for start, wh in oracle.consumption(registers, oracle.hour_start).items() if wh}

    assert dict(filled.product.rows(CONSUMPTION)) == hours
    assert sum(hours.values()) == registers[-1][1] - registers[0][1]


@pytest.mark.parametrize("zone", ["Asia/Seoul", "Europe/Tirane"])
def test_trends_by_local_day_equal_the_register_differences(
    filled: Filled, registers: list[tuple[datetime, int]], zone: str
) -> None:
    answer = filled.product.get(
        "/api/v1/analytics/consumption/trends",
        **{"from": "2017-12-31T00:00:00Z", "to": "2019-01-01T00:00:00Z"},
        meter_id="steel-plant",
        interval="1d",
        tz=zone,
    )

    start_of = oracle.day_start(zone)
    counts = Counter(start_of(at) for at, _ in registers)
    assert {moment(row["date"]): (row["total_consumption_kwh"], row["reading_count"]) for row in answer["trends"]} == {
        start: (wh / 1000, counts[start]) for start, wh in oracle.consumption(registers, start_of).items()
    }
    assert {row["hours"] for row in answer["trends"]} == ({24} if zone == "Asia/Seoul" else {23, 24, 25})


def test_the_log_takes_few_bytes_for_a_reading(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    [(size, events, readings)] = filled.product.rows(LOG_SIZE)
    with capsys.disabled():
        print(f"\n{readings / events:.0f} readings per event, {size / readings:.1f} bytes per reading in the log")  # noqa: T201  # a figure to show

    assert size / readings <= BYTES_PER_READING


def test_importing_again_stores_nothing(filled: Filled) -> None:
    before = filled.product.rows(LOG_SIZE)[0][1:]

    again = fill_again(filled.product)

    assert {(s["accepted"], s["rejected"]) for s in again} == {(0, 0)}
    assert sum(s["duplicates"] for s in again) == before[1]
    assert filled.product.rows(LOG_SIZE)[0][1:] == before


def fill_again(product: Product) -> list[dict[str, Any]]:
    return [
        product.import_file(HOUSEHOLD, MAPPINGS / "household.toml"),
        product.import_file(STEEL, MAPPINGS / "steel.toml", "--wire", "json"),
    ]


def test_importing_shuffled_gives_the_same_read_models(filled: Filled, tmp_path: Path) -> None:
    with Product(tmp_path / "home") as other:
        fill(other, "--shuffle", "2006", "--batch-size", "3000")

        assert other.rows(EVERYTHING) == filled.product.rows(EVERYTHING)
        assert other.rows(ALL_CONSUMPTION) == filled.product.rows(ALL_CONSUMPTION)
