from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import quote

import pytest
from tests.projections.facts import EPOCH, Fact, Reading, Recorder

from smartgrid_adapters.memory.checkpoints import MemoryProjection, MemoryStandings
from smartgrid_adapters.memory.rollups import MemoryRollups
from smartgrid_adapters.memory.stats import MemoryStats
from smartgrid_http import analytics
from smartgrid_http.app import build_app
from smartgrid_http.testing import EPOCH as NOW
from smartgrid_http.testing import AsgiClient, Reply, fixed_services
from smartgrid_projections.queries.standing import Waiting
from smartgrid_projections.read_models.aggregates import project

PATH = "/api/v1/analytics/sensor/stats"


def _raise(request_id: str, error: BaseException) -> None:
    raise AssertionError(request_id) from error


@pytest.fixture
async def client() -> AsgiClient:
    """A viewer at 10:30; sensor s1 sent 229, 230 and 231 V a minute apart, an hour ago, s2 one reading."""
    recorder = Recorder()
    first = (NOW - timedelta(hours=1) - EPOCH) // timedelta(microseconds=1)
    values = [("s1", 0, 229.0), ("s1", 1, 230.0), ("s1", 2, 231.0), ("s2", 0, 240.0)]
    recorder.record(
        [Fact(Reading(s, "voltage", "L1", first + m * 60_000_000, -1), "read", v, "V") for s, m, v in values]
    )
    tables = MemoryRollups(recorder.register)
    await project(recorder.log.events["telemetry"], tables)
    stored = MemoryProjection(name="aggregates", version=1, positions={"telemetry": 1}, tables=tables)
    waiting = Waiting(MemoryStandings([stored]))
    services = fixed_services(log_error=_raise, stats=MemoryStats(tables, 1), waiting=waiting)
    return AsgiClient(build_app(services, handlers=analytics.handlers, hot={})).signed_in("viewer")


async def test_stats_of_the_last_day_by_default(client: AsgiClient) -> None:
    reply = await client.get(PATH)

    assert reply.status == 200
    assert reply.headers["x-event-position"] == "telemetry@1"
    assert reply.json() == {
        "status": "success",
        "period_hours": 24,
        "data": [
            {
                "sensor_id": "s1",
                "sensor_type": "voltage",
                "unit": "V",
                "avg_value": 230.0,
                "min_value": 229.0,
                "max_value": 231.0,
                "stddev_value": 1.0,
                "count": 3,
                "coverage": None,
                "p05_value": 229.05,
                "median_value": 230.05,
                "p95_value": 231.05,
            },
            {
                "sensor_id": "s2",
                "sensor_type": "voltage",
                "unit": "V",
                "avg_value": 240.0,
                "min_value": 240.0,
                "max_value": 240.0,
                "stddev_value": None,
                "count": 1,
                "coverage": None,
                "p05_value": 240.05,
                "median_value": 240.05,
                "p95_value": 240.05,
            },
        ],
    }


async def test_buckets_carry_the_offset_of_the_zone(client: AsgiClient) -> None:
    reply = await client.get(f"{PATH}?sensor_id=s1&interval=1h&tz=Europe/Tirane")

    (row,) = reply.json()["data"]
    assert (row["bucket_start"], row["bucket_end"]) == ("2026-01-15T10:00:00+01:00", "2026-01-15T11:00:00+01:00")


async def test_a_range_is_half_open(client: AsgiClient) -> None:
    start, end = "2026-01-15T09:30:00Z", "2026-01-15T09:32:00Z"

    reply = await client.get(f"{PATH}?sensor_id=s1&from={start}&to={end}")

    assert [row["count"] for row in reply.json()["data"]] == [2]
    assert reply.json()["period_hours"] == pytest.approx(2 / 60)


async def test_csv_has_the_columns_of_the_answer(client: AsgiClient) -> None:
    reply = await client.get(f"{PATH}?sensor_id=s2&interval=1d", headers={"Accept": "text/csv"})

    head, line, rest = reply.body.decode().split("\r\n")
    cells: Mapping[str, str] = dict(zip(head.split(","), line.split(","), strict=True))
    assert (cells["sensor_id"], cells["count"], cells["bucket_start"], rest) == ("s2", "1", "2026-01-15T00:00:00Z", "")


@pytest.mark.parametrize(
    ("query", "pointer", "code"),
    [
        ("hours=169", "?hours", "out_of_range"),
        ("hours=0", "?hours", "out_of_range"),
        ("hours=1&to=2026-01-15T10:00:00Z", "?hours", "out_of_range"),
        ("tz=Mars", "?tz", "unknown_value"),
        ("interval=5m", "?interval", "unknown_value"),
        ("interval=1m&from=2020-01-01T00:00:00Z", "?interval", "out_of_range"),
        ("from=2026-01-16T00:00:00Z", "?from", "out_of_range"),
        (f"sensor_id={quote('a b')}", "?sensor_id", "bad_format"),
        ("as_of=yesterday", "?as_of", "bad_format"),
    ],
)
async def test_a_bad_query_is_told_where_it_is_bad(client: AsgiClient, query: str, pointer: str, code: str) -> None:
    reply = await client.get(f"{PATH}?{query}")

    assert (reply.status, findings(reply)) == (400, [(pointer, code)])


def findings(reply: Reply) -> list[tuple[str, str]]:
    return [(finding["pointer"], finding["code"]) for finding in reply.json()["errors"]]


async def test_a_read_that_waits_in_vain_is_told_so(client: AsgiClient) -> None:
    assert (await client.get(f"{PATH}?min_position=telemetry@1")).status == 200

    reply = await client.get(f"{PATH}?min_position=telemetry@2&wait_ms=10")

    assert (reply.status, reply.json()["code"], reply.headers["retry-after"]) == (503, "projection_behind", "1")
