"""Generated requests to every operation of the whole product: each answer is one that the description names."""

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import pytest
from tests.security.world import PASSWORD

from smartgrid_commands.profiles import Client, NewAccount
from smartgrid_http.app import build_app
from smartgrid_http.testing import AsgiClient, Reply
from smartgrid_ops.settings import Settings
from smartgrid_ops.wiring import build_services

pytestmark = pytest.mark.faults

Json: TypeAlias = "dict[str, Any]"
REQUESTS = 100
ODD_TEXTS = [
    "",
    " ",
    "a",
    "s1",
    "voltage",
    "kWh",
    "1.8.0",
    "2026-01-15T10:30:00Z",
    "2026-01-15T10:30:00+02:00",
    "2026-01-15T10:30:00",
    "9999-12-31T23:59:59Z",
    "telemetry@1",
    "identity@99999999999999999",
    "00000000-0000-0000-0000-000000000000",
    "\u0000",
    "\U0001f600" * 3,
    "' OR 1=1 --",
    "%s%s%n",
    "../../etc/passwd",
    "x" * 5000,
    "=1+1",
    "\r\nX: y",
]
ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**53, 2**63, 2**64, -(2**63) - 1, 10**30, 0.0, -0.0, 5e-324, 1e308, 0.1, [], {}, [[]],
    [None], {"": 1}, {"lat": 41.3, "lon": 19.8}, *ODD_TEXTS,
]  # fmt: skip


class Fuzzer:
    """Makes requests to the operations of a description."""

    def __init__(self, document: Json, seed: int) -> None:
        self._schemas: Json = document["components"]["schemas"]
        self._random = random.Random(seed)  # noqa: S311  # repeatable, not secret

    def value(self, schema: Json, depth: int = 0) -> Any:  # noqa: ANN401, C901, PLR0911  # one line for each type
        """Return something that *schema* describes, more or less."""
        if self._random.random() < 0.2 or depth > 4:
            return self._random.choice(ODD_VALUES)
        if "$ref" in schema:
            return self.value(self._schemas[schema["$ref"].rpartition("/")[2]], depth)
        for choice in ("anyOf", "oneOf"):
            if choice in schema:
                return self.value(self._random.choice(schema[choice]), depth)
        if "enum" in schema:
            return self._random.choice(schema["enum"])
        match schema.get("type"):
            case "object":
                return self._object(schema, depth)
            case "array":
                return [self.value(schema.get("items", {}), depth + 1) for _ in range(self._random.randrange(4))]
            case "number":
                return self._random.choice([0, 1, 220.5, -1, 1e11, 1e300, 49.98])
            case "integer":
                return self._random.choice([0, 1, 100, -1, 2**53 - 1])
            case "boolean":
                return self._random.choice([True, False])
            case _:
                return self._random.choice(ODD_TEXTS)

    def _object(self, schema: Json, depth: int) -> Json:
        properties: Json = schema.get("properties", {})
        chosen = {
            name: self.value(inner, depth + 1)
            for name, inner in properties.items()
            if name in schema.get("required", ()) or self._random.random() < 0.5
        }
        if self._random.random() < 0.1:
            chosen[self._random.choice(["extra", "__proto__", "id", "role"])] = self._random.choice(ODD_VALUES)
        return chosen

    def body(self, content: Json) -> tuple[str, bytes]:
        """Return a media type and a body."""
        media = self._random.choice(list(content))
        if media == "application/json":
            text = json.dumps(self.value(content[media].get("schema", {})), ensure_ascii=self._random.random() < 0.5)
            body = text.encode("utf-8", "surrogatepass")
        elif media == "text/csv":
            body = b"sensor_id,sensor_type,value,timestamp,lat,lon\n" + self._lines(b",")
        else:
            body = self._lines(b":")
        if self._random.random() < 0.2:
            at = self._random.randrange(len(body) + 1)
            body = body[:at] + self._random.randbytes(self._random.randrange(4)) + body[at + 1 :]
        return media, body

    def _lines(self, separator: bytes) -> bytes:
        pieces = [b"s1", b"voltage", b"220.5", b"2026-01-15T10:30:00Z", b"nan", b'"', b"{}", b"\x81\xa1", b"", b"41.3"]
        rows = [separator.join(self._random.choices(pieces, k=6)) for _ in range(self._random.randrange(4))]
        return b"\n".join(rows)

    def target(self, template: str, parameters: list[Json]) -> str:
        """Return a path with a query."""
        path, query = template, list[str]()
        for parameter in parameters:
            name, value = parameter["name"], self._random.choice(ODD_TEXTS)
            if parameter["in"] == "path":
                path = path.replace(f"{{{name}}}", quote(value or "x", safe=""))
            elif parameter["in"] == "query" and (parameter["required"] or self._random.random() < 0.3):
                value = str(self.value(parameter["schema"]))
                query.append(f"{quote(name)}={quote(value.encode('utf-8', 'surrogatepass'))}")
        return path + ("?" + "&".join(query) if query else "")

    def headers(self) -> dict[str, str]:
        """Return odd headers."""
        odd = {"Accept": ["text/csv", "*/*", "x"], "If-Match": ['"v1"', "*", "v"], "Idempotency-Key": ["k", "k2", " "]}
        return {name: self._random.choice(some) for name, some in odd.items() if self._random.random() < 0.2}


@pytest.fixture
async def client(database: str, tmp_path: Path) -> AsyncIterator[AsgiClient]:
    """Return an admin's client of the whole product."""
    async with build_services(Settings(home=tmp_path), database) as services:
        identity = services.identity
        assert identity is not None
        await identity.issue_bootstrap_code()
        new = NewAccount(username="root", email="root@example.com", password=PASSWORD)
        signed = await identity.bootstrap((tmp_path / "bootstrap-code").read_text(), new, Client())
        errors: list[BaseException] = []

        def log_error(_request_id: str, error: BaseException) -> None:
            errors.append(error)

        services.log_error = log_error
        yield AsgiClient(build_app(services)).signed_in(signed.token)
        assert errors == []


async def test_every_answer_is_one_that_is_described(client: AsgiClient) -> None:
    document: Json = (await client.get("/api/v1/openapi.json")).json()
    fuzzer = Fuzzer(document, seed=20260115)
    told: dict[int, int] = {}

    for template, methods in document["paths"].items():
        for method, operation in methods.items():
            if template.endswith("/logout"):
                continue  # it would end the session of all others
            for _ in range(REQUESTS):
                reply, asked = await one(client, fuzzer, template, method.upper(), operation)
                told[reply.status] = told.get(reply.status, 0) + 1
                allowed = {int(status) for status in operation["responses"]}
                assert reply.status in allowed - {500}, (asked, reply.body[:500])
                if reply.status >= 400 and not template.startswith("/health"):
                    assert reply.headers["content-type"] == "application/problem+json", asked
                    assert reply.json()["status"] == reply.status
                    assert len(reply.body) <= 64 * 1024

    assert told.get(200, 0) + told.get(201, 0) > 500
    assert told.get(400, 0) > 500


async def one(
    client: AsgiClient, fuzzer: Fuzzer, template: str, method: str, operation: Json
) -> tuple[Reply, tuple[object, ...]]:
    target, headers, body = fuzzer.target(template, operation["parameters"]), fuzzer.headers(), b""
    if "requestBody" in operation:
        media, body = fuzzer.body(operation["requestBody"]["content"])
        headers["Content-Type"] = media
    reply = await client.request(method, target, body=body, headers=headers)
    return reply, (method, target, headers, body)
