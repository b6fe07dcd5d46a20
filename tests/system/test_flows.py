"""The original's curl flows, against a fresh product."""

from collections.abc import Iterator

import pytest
from tests.system.product import Product

pytestmark = pytest.mark.timeout(240)

ORIGINAL_SAMPLE = {"username": "admin", "password": "admin123"}
SENSOR = {
    "sensor_id": "sensor_001",
    "sensor_type": "voltage",
    "value": 220.5,
    "location": {"lat": 41.3275, "lon": 19.8187},
}


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with Product(tmp_path_factory.mktemp("flows") / "home") as product:
        yield product


def test_the_four_printed_flows_answer_as_documented(product: Product) -> None:
    code = (product.home / "bootstrap-code").read_text()
    assert product.request("GET", "/api/test", token=None)[1]["service"] == "gateway"
    assert product.request("POST", "/api/v1/auth/login", ORIGINAL_SAMPLE, token=None)[0] == 401
    first = {"code": code, "username": "admin", "email": "admin@example.com", "password": product.password}
    assert product.request("POST", "/api/v1/auth/bootstrap", first, token=None)[0] == 201
    assert not (product.home / "bootstrap-code").exists()
    login = {"username": "admin", "password": product.password}
    status, signed = product.request("POST", "/api/v1/auth/login", login, token=None)
    assert (status, signed["token_type"], signed["expires_in"]) == (200, "Bearer", 600)
    assert (
        product.request("POST", "/api/v1/auth/login", ORIGINAL_SAMPLE, token=None)[1]["code"] == "invalid_credentials"
    )

    status, stored = product.request("POST", "/api/v1/ingest/sensor", SENSOR, token=signed["token"])

    assert (status, stored["status"], stored["duplicate"]) == (201, "success", False)
    assert stored["kafka_topic"] == "smartgrid-sensor-data"
    assert stored["position"].startswith("telemetry@")


@pytest.mark.parametrize(
    "path",
    [
        "/health",
        "/api/v1/auth/verify",
        "/api/v1/users/me",
        "/api/v1/users",
        "/api/v1/analytics/sensor/stats",
        "/api/v1/analytics/consumption/trends?customer_id=customer_123",
    ],
)
def test_what_the_original_listed_answers_200_with_a_token(product: Product, path: str) -> None:
    assert product.request("GET", path)[0] == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/ingest/meter", {"meter_id": "meter_001", "reading": 1250.75, "customer_id": "customer_123"}),
        (
            "/api/v1/auth/register",
            {"username": "operator-7", "email": "o7@example.com", "password": "horse battery staple 7"},
        ),
    ],
)
def test_what_the_original_posted_answers_201(product: Product, path: str, body: dict[str, object]) -> None:
    assert product.request("POST", path, body)[0] == 201


def test_a_reading_shows_in_the_statistics_that_wait_for_it(product: Product) -> None:
    reading = {**SENSOR, "sensor_id": "sensor_002", "value": 231.25}
    _, stored = product.request("POST", "/api/v1/ingest/sensor", reading)

    (row,) = product.get(
        "/api/v1/analytics/sensor/stats", sensor_id="sensor_002", min_position=stored["position"], wait_ms=5000
    )["data"]

    assert (row["sensor_id"], row["count"], row["avg_value"]) == ("sensor_002", 1, 231.25)


def test_the_metrics_tell_of_the_readings(product: Product) -> None:
    product.request("POST", "/api/v1/ingest/sensor", {**SENSOR, "sensor_id": "sensor_003"})

    _, text = product.request("GET", "/metrics", token=None)

    assert b'smartgrid_readings_total{verdict="accepted"}' in text
    assert b'smartgrid_append_duration_seconds_bucket{le="+Inf",log="telemetry"}' in text
    assert b'smartgrid_projection_lag_events{projection="aggregates"}' in text
