"""Handlers of commands under an ``Idempotency-Key``."""

from typing import Any

import pytest

from smartgrid_adapters.memory.readings import MemoryIdempotencyKeys
from smartgrid_commands.ports import OutcomeUnknown, StoreUnavailable
from smartgrid_domain.errors import Conflict, Invalid, NotFound
from smartgrid_http.answers import Answer, answer
from smartgrid_http.app import build_app
from smartgrid_http.guard import Receive, read_body
from smartgrid_http.idempotency import once
from smartgrid_http.policy import Access
from smartgrid_http.testing import AsgiClient, fixed_services

PATH = "/api/v1/thing"
KEY = {"idempotency-key": "k"}


class Thing:
    """A handler whose outcomes are planned."""

    def __init__(self) -> None:
        self.keys = MemoryIdempotencyKeys()
        self.calls = 0
        self.outcomes: list[Exception | None] = []

    async def handle(self, scope: dict[str, Any], receive: Receive) -> Answer:
        body = await read_body(scope, receive)

        async def run() -> Answer:
            self.calls += 1
            outcome = self.outcomes.pop(0) if self.outcomes else None
            if outcome is not None:
                raise outcome
            return answer({"call": self.calls}, status=201, position="telemetry@7", headers={"Location": "/x"})

        return await once(self.keys, scope, body, run)


@pytest.fixture
def thing() -> tuple[Thing, AsgiClient]:
    made = Thing()
    app = build_app(
        fixed_services(),
        handlers=(),
        hot={("POST", PATH): made.handle},
        policy={("POST", PATH): Access(least="viewer", service="ingestion", body="json")},
    )
    return made, AsgiClient(app, token="operator")  # noqa: S106


Given = tuple[Thing, AsgiClient]


async def test_answer_comes_again_with_its_headers(thing: Given) -> None:
    made, client = thing
    first = await client.post(PATH, {}, headers=KEY)
    again = await client.post(PATH, {}, headers=KEY)

    assert (first.status, first.body, made.calls) == (201, again.body, 1)
    assert again.headers["location"] == "/x"
    assert again.headers["x-event-position"] == "telemetry@7"
    assert again.headers["idempotency-replayed"] == "true"


async def test_without_a_key_each_request_is_a_new_one(thing: Given) -> None:
    made, client = thing
    await client.post(PATH, {})
    await client.post(PATH, {})

    assert made.calls == 2


@pytest.mark.parametrize("refusal", [Conflict("in_use", "no"), NotFound("not_found", "no")])
async def test_refusal_after_validation_is_kept(thing: Given, refusal: Exception) -> None:
    made, client = thing
    made.outcomes = [refusal]
    first = await client.post(PATH, {}, headers=KEY)
    again = await client.post(PATH, {}, headers=KEY)

    assert (first.status, first.body, made.calls) == (again.status, again.body, 1)
    assert again.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("failure", [Invalid("validation_failed", "no"), StoreUnavailable("down"), ValueError("bug")])
async def test_refused_input_and_failure_are_not_kept(thing: Given, failure: Exception) -> None:
    made, client = thing
    made.outcomes = [failure]
    first = await client.post(PATH, {}, headers=KEY)
    again = await client.post(PATH, {}, headers=KEY)

    assert first.status in {400, 500, 503}
    assert (again.status, made.calls) == (201, 2)


async def test_key_is_held_while_the_outcome_is_unknown(thing: Given) -> None:
    made, client = thing
    made.outcomes = [OutcomeUnknown("cut")]
    first = await client.post(PATH, {}, headers=KEY)
    again = await client.post(PATH, {}, headers=KEY)

    assert (first.status, first.json()["outcome"]) == (504, "unknown")
    assert (again.status, again.json()["code"], again.headers["retry-after"]) == (409, "idempotency_in_progress", "1")


async def test_key_is_held_for_one_body_and_path(thing: Given) -> None:
    _, client = thing
    await client.post(PATH, {}, headers=KEY)

    assert (await client.post(PATH, {"a": 1}, headers=KEY)).status == 422
    assert (await client.post(f"{PATH}?x=1", {}, headers=KEY)).status == 422
