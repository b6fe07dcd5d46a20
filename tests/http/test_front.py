"""The front refuses in the order of the API, adds what every answer has, and lets nothing out but answers."""

import asyncio
from typing import Any

import pytest
from msgspec import Struct

from smartgrid_http.answers import Answer, answer
from smartgrid_http.app import build_app
from smartgrid_http.call import call_of, principal_of
from smartgrid_http.front import Front
from smartgrid_http.guard import body_chunks, decode_json, read_body
from smartgrid_http.limits import Limits
from smartgrid_http.metrics import exposition
from smartgrid_http.testing import AsgiClient, Reply, fixed_services

SENSOR, BATCH, IMPORTS, LOGIN = "/api/v1/ingest/sensor", "/api/v1/ingest/batch", "/api/v1/imports", "/api/v1/auth/login"
ME, READINGS = "/api/v1/users/me", "/api/v1/readings"
CANARY = "postgresql://user:secret@host"


class Wanted(Struct, forbid_unknown_fields=True):
    a: int


async def take(scope: dict[str, Any], receive: Any) -> Answer:  # noqa: ANN401  # the shape of ASGI
    body = decode_json(await read_body(scope, receive), Wanted)
    return answer({"a": body.a, "by": principal_of(scope).id, "key": call_of(scope).idempotency_key}, status=201)


async def count(scope: dict[str, Any], receive: Any) -> Answer:  # noqa: ANN401
    return answer([len(chunk) async for chunk in body_chunks(scope, receive)])


async def whole(scope: dict[str, Any], receive: Any) -> Answer:  # noqa: ANN401
    return answer(len(await read_body(scope, receive)))


async def hang(_scope: dict[str, Any], _receive: Any) -> Answer:  # noqa: ANN401
    await asyncio.Event().wait()
    raise AssertionError


HOT = {
    ("POST", SENSOR): take,
    ("POST", IMPORTS): count,
    ("POST", BATCH): whole,
    ("POST", LOGIN): whole,
    ("GET", ME): hang,
}
LIMITS = Limits(deadline_s=0.3, body_s=0.2, idle_s=0.2, import_bytes=20)


def app_of(**ports: Any) -> Front:  # noqa: ANN401  # fields of Services
    return build_app(fixed_services(**ports), handlers=[], hot=HOT)


@pytest.fixture
def client() -> AsgiClient:
    return AsgiClient(app_of(hosts=frozenset({"localhost", "[::1]"}))).signed_in("operator")


def codes(reply: Reply) -> list[tuple[str, str]]:
    return [(finding["pointer"], finding["code"]) for finding in reply.json()["errors"]]


async def test_a_good_request_passes(client: AsgiClient) -> None:
    reply = await client.post(SENSOR, {"a": 1}, headers={"Idempotency-Key": "k-1"})

    assert (reply.status, reply.json()) == (201, {"a": 1, "by": "u-operator", "key": "k-1"})


async def test_every_answer_carries_an_id_and_the_guarding_headers(client: AsgiClient) -> None:
    for path in (SENSOR, "/nowhere"):
        reply = await client.post(path, {"a": 1}, headers={"X-Request-ID": "my-id.1"})

        assert reply.headers["x-request-id"] == "my-id.1"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["content-security-policy"] == "default-src 'none'"
        assert "server" not in reply.headers


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é", "a\x01", "<script>"])
async def test_a_request_id_of_bad_form_is_replaced(client: AsgiClient, given: str) -> None:
    first = await client.get("/nowhere", headers={"X-Request-ID": given})
    second = await client.get("/nowhere", headers={"X-Request-ID": given})

    assert first.headers["x-request-id"] != given
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.json()["request_id"] == first.headers["x-request-id"]


async def test_problems_have_the_shape_of_the_document(client: AsgiClient) -> None:
    reply = await client.post(SENSOR, {}, headers={"X-Request-ID": "r1"})

    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json() == {
        "type": "urn:smartgrid:problem:validation_failed",
        "title": "Invalid request",
        "status": 400,
        "error": "Missing required field: a",
        "code": "validation_failed",
        "request_id": "r1",
        "errors": [{"pointer": "/a", "code": "missing_field", "message": "Missing required field: a"}],
    }


async def test_refusals_come_in_order() -> None:
    """Take away one fault after the other; the refusal changes each time, in the order of the API."""
    client = AsgiClient(app_of())
    faults: dict[str, str | None] = {"path": "/api/v1/nowhere", "method": "GET", "token": None, "media": "text/plain"}
    faults |= {"length": "9999999", "query": "?x=1", "body": "{}"}
    told: list[int] = []
    fixes: list[dict[str, str | None]] = [
        {},
        {"path": SENSOR},
        {"method": "POST"},
        {"token": "viewer"},
        {"token": "operator"},
        {"media": "application/json"},
        {"length": None},
        {"query": ""},
        {"body": '{"a":1}'},
    ]
    for fix in fixes:
        faults |= fix
        headers = {"Content-Type": faults["media"] or ""}
        if faults["length"] is not None:
            headers["Content-Length"] = faults["length"]
        if faults["token"] is not None:
            headers["Authorization"] = f"Bearer {faults['token']}"
        path = f"{faults['path']}{faults['query']}"
        reply = await client.request(
            faults["method"] or "", path, body=(faults["body"] or "").encode(), headers=headers
        )
        told.append(reply.status)

    # A hot handler looks at its query itself, so this one never refuses there.
    assert told == [404, 405, 401, 403, 415, 413, 400, 400, 201]


@pytest.mark.parametrize(
    ("media", "status"),
    [
        ("application/json", 201),
        ("application/json; charset=utf-8", 201),
        ('Application/JSON;charset="UTF-8"', 201),
        ("application/json; charset=latin-1", 415),
        ("application/json; version=1", 415),
        ("application/json;", 415),
        ("application/jsonx", 415),
        ("text/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ],
)
async def test_only_declared_media_types_pass(client: AsgiClient, media: str, status: int) -> None:
    assert (await client.post(SENSOR, {"a": 1}, headers={"Content-Type": media})).status == status


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "zstd"])
async def test_encoded_bodies_are_refused(client: AsgiClient, encoding: str) -> None:
    reply = await client.post(SENSOR, {"a": 1}, headers={"Content-Encoding": encoding})

    assert (reply.status, reply.json()["code"]) == (415, "unsupported_media_type")
    assert (await client.post(SENSOR, {"a": 1}, headers={"Content-Encoding": "Identity"})).status == 201


async def test_batches_take_four_media_types(client: AsgiClient) -> None:
    for media in ("application/json", "application/x-ndjson", "text/csv", "application/vnd.smartgrid.columns+msgpack"):
        assert (await client.request("POST", BATCH, body=b"x", headers={"Content-Type": media})).status == 200


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "\x7f", "caf\xe9"])
async def test_idempotency_keys_of_bad_form_are_refused(client: AsgiClient, key: str) -> None:
    reply = await client.post(SENSOR, {"a": 1}, headers={"Idempotency-Key": key})

    assert (reply.status, codes(reply)) == (400, [("@Idempotency-Key", "bad_format")])


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "LOCALHOST", "[::1]", "[::1]:5000"])
async def test_known_hosts_pass(client: AsgiClient, host: str) -> None:
    assert (await client.post(SENSOR, {"a": 1}, headers={"Host": host})).status == 201


@pytest.mark.parametrize("host", ["evil.example", "", "localhost.evil", "localhost:x", "localhost@evil", "127.0.0.1"])
async def test_unknown_hosts_are_refused(client: AsgiClient, host: str) -> None:
    reply = await client.post(SENSOR, {"a": 1}, headers={"Host": host})

    assert (reply.status, reply.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize("name", ["host", "content-length", "transfer-encoding"])
async def test_framing_headers_come_once(client: AsgiClient, name: str) -> None:
    headers = [(b"host", b"localhost"), (name.encode(), b"localhost"), (name.encode(), b"localhost")]

    reply = await client.raw("POST", SENSOR, headers)
    assert (reply.status, reply.json()["code"]) == (400, "bad_request")


async def test_headers_and_uri_have_limits(client: AsgiClient) -> None:
    many = {f"X-{i}": "1" for i in range(64)}
    large = {"X-Large": "x" * 16_400}

    for headers in (many, large):
        reply = await client.get("/nowhere", headers=headers)
        assert (reply.status, reply.json()["code"]) == (431, "headers_too_large")
    reply = await client.get("/nowhere?" + "x" * 8_200)
    assert (reply.status, reply.json()["code"]) == (414, "uri_too_long")


@pytest.mark.parametrize("length", ["-1", "1e3", "+5", "0x10", " 5", "5 ", "", "9" * 30])
async def test_a_content_length_that_is_no_number_is_refused(client: AsgiClient, length: str) -> None:
    reply = await client.raw(
        "POST",
        SENSOR,
        [
            (b"host", b"localhost"),
            (b"authorization", b"Bearer operator"),
            (b"content-type", b"application/json"),
            (b"content-length", length.encode()),
        ],
        b'{"a":1}',
    )
    assert reply.status == 400


@pytest.mark.parametrize(
    ("path", "limit"), [(SENSOR, 2**20), (LOGIN, 16 * 1024), (BATCH, 5 * 2**20), (IMPORTS, 64 * 2**20)]
)
async def test_bodies_have_the_limit_of_their_route(client: AsgiClient, path: str, limit: int) -> None:
    media = "text/csv" if path in (BATCH, IMPORTS) else "application/json"
    for length, refused in ((limit, False), (limit + 1, True)):
        headers = {"Content-Type": media, "Content-Length": str(length)}
        reply = await client.request("POST", path, body=b"", headers=headers)
        assert (reply.status == 413) == refused


async def messages_of(
    app: Front, path: str, incoming: list[dict[str, Any]], *, media: bytes = b"application/json", **headers: str
) -> list[dict[str, Any]]:
    """Send a request whose body comes in pieces; after the last piece the client says nothing more."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    extra = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"x"), (b"content-type", media), (b"authorization", b"Bearer operator"), *extra],
    }
    await app(scope, receive, send)
    return sent


def piece(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_in_pieces_is_read_whole() -> None:
    sent = await messages_of(app_of(), SENSOR, [piece(b'{"a"'), piece(b":1"), piece(b"}", more=False)])

    assert sent[0]["status"] == 201


async def test_a_body_without_length_is_cut_at_the_limit() -> None:
    app = app_of(limits=Limits(body_bytes=10))

    for pieces in ([piece(b"x" * 11, more=False)], [piece(b"x" * 6), piece(b"x" * 6)]):
        assert (await messages_of(app, SENSOR, pieces))[0]["status"] == 413


@pytest.mark.parametrize("pieces", [[], [piece(b'{"a"')]])
async def test_a_body_that_does_not_come_is_given_up(pieces: list[dict[str, Any]]) -> None:
    sent = await messages_of(app_of(limits=LIMITS), SENSOR, pieces)

    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


async def test_a_body_that_breaks_off_is_a_bad_request() -> None:
    sent = await messages_of(app_of(), SENSOR, [piece(b"{"), {"type": "http.disconnect"}])

    assert sent[0]["status"] == 400
    assert (b"connection", b"close") in sent[0]["headers"]


async def test_a_body_has_one_kind_of_length() -> None:
    sent = await messages_of(app_of(), SENSOR, [], transfer_encoding="chunked", content_length="2")

    assert (sent[0]["status"], b"bad_request" in sent[1]["body"]) == (400, True)


async def test_an_upload_may_take_longer_than_the_deadline_but_not_pause() -> None:
    app = app_of(limits=LIMITS)
    csv = b"text/csv"

    assert (await messages_of(app, IMPORTS, [piece(b"a" * 9), piece(b"b", more=False)], media=csv))[0]["status"] == 200
    assert (await messages_of(app, IMPORTS, [piece(b"a" * 9)], media=csv))[0]["status"] == 408
    assert (await messages_of(app, IMPORTS, [piece(b"a" * 21, more=False)], media=csv))[0]["status"] == 413


async def test_no_request_lives_longer_than_its_deadline() -> None:
    loop = asyncio.get_running_loop()
    client = AsgiClient(app_of(limits=LIMITS)).signed_in("viewer")
    started = loop.time()

    replies = await asyncio.gather(client.get(ME), client.get(ME, headers={"Deadline-Ms": "100"}))

    assert [(reply.status, reply.json()["code"]) for reply in replies] == [(504, "deadline_exceeded")] * 2
    assert loop.time() - started < 0.3 + 0.25


async def test_a_write_that_is_cut_may_have_happened() -> None:
    app = build_app(fixed_services(limits=LIMITS), handlers=[], hot={**HOT, ("POST", SENSOR): hang})

    read = await AsgiClient(app).signed_in("viewer").get(ME)
    write = await AsgiClient(app).signed_in("operator").post(SENSOR, {"a": 1})

    assert (write.status, write.json()["outcome"]) == (504, "unknown")
    assert "outcome" not in read.json()


async def test_a_caller_can_only_shorten_the_deadline() -> None:
    client = AsgiClient(app_of(limits=LIMITS)).signed_in("viewer")

    assert (await client.get(ME, headers={"Deadline-Ms": "900000"})).status == 504
    assert (await client.get(ME, headers={"Deadline-Ms": "0"})).status == 504
    reply = await client.get(ME, headers={"Deadline-Ms": "soon"})
    assert (reply.status, codes(reply)) == (400, [("@Deadline-Ms", "bad_format")])


async def test_a_request_that_is_cancelled_from_outside_stays_cancelled() -> None:
    task = asyncio.ensure_future(AsgiClient(app_of()).signed_in("viewer").get(ME))
    await asyncio.sleep(0)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_requests_are_counted_by_template_and_class() -> None:
    services = fixed_services()
    app = build_app(services, handlers=[], hot=HOT)
    client = AsgiClient(app).signed_in("operator")
    for _ in range(3):
        await client.post(SENSOR, {"a": 1})
    await client.post(SENSOR, {})
    for i in range(50):
        await client.get(f"/random/{i}")
    await AsgiClient(app).get(ME)

    text = exposition(services.metric_sources).decode()
    line = 'smartgrid_http_requests_total{method="POST",route="/api/v1/ingest/sensor",service="ingestion",status='
    assert f'{line}"2xx"}} 3.0' in text
    assert f'{line}"4xx"}} 1.0' in text
    assert 'smartgrid_http_requests_total{method="other",route="other",service="gateway",status="4xx"} 50.0' in text
    assert "/random" not in text
    labels = 'method="POST",route="/api/v1/ingest/sensor",service="ingestion"'
    assert f"smartgrid_http_request_duration_seconds_count{{{labels}}} 4.0" in text
    assert 'smartgrid_http_requests_in_flight{service="ingestion"} 0.0' in text
    assert 'smartgrid_auth_failures_total{reason="unauthenticated"} 1.0' in text


async def test_requests_of_two_principals_are_never_mixed_up() -> None:
    app = app_of()
    clients = {name: AsgiClient(app).signed_in(name) for name in ("operator", "admin")}

    async def ask(i: int) -> None:
        name = ("operator", "admin")[i % 2]
        task = asyncio.ensure_future(clients[name].post(SENSOR, {"a": i}))
        if i % 7 == 0:
            await asyncio.sleep(0)
            task.cancel()
        try:
            reply = await task
        except asyncio.CancelledError:
            return
        assert reply.json() == {"a": i, "by": f"u-{name}", "key": None}

    await asyncio.gather(*(ask(i) for i in range(1000)))
