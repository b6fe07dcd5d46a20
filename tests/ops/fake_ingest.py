"""A server that knows the batch route and nothing else: exact repeats, conflicts and refusals by natural key."""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec
from aiohttp import web

TOKEN = "operator-token"  # noqa: S105  # of the fake
PASSWORD = "correct horse battery"  # noqa: S105  # of the fake


class Raw(msgspec.Struct):
    """A body with its numbers as they were written."""

    readings: list[dict[str, msgspec.Raw]]


class FakeIngest:
    """
    What the route stores, and how it is made to fail.

    Attributes:
        stored: Value by natural key, as decimal text.
        troubles: Statuses to answer with before anything is answered properly; 0 stores, then cuts the line.
        most_items: More items than this are 413.
        refused_ids: Sensors that are refused.
    """

    def __init__(self) -> None:
        self.stored: dict[tuple[Any, ...], str] = {}
        self.troubles: list[int] = []
        self.most_items = 10_000
        self.refused_ids: set[str] = set()
        self.content_types: list[str] = []
        self.logins = 0
        self.token = TOKEN

    async def login(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body != {"username": "operator", "password": PASSWORD}:
            return web.json_response({"code": "invalid_credentials", "error": "Wrong name or password"}, status=401)
        self.logins += 1
        return web.json_response({"status": "success", "token": self.token, "expires_in": 600})

    async def batch(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"code": "token_expired", "error": "The token has expired"}, status=401)
        trouble = self.troubles.pop(0) if self.troubles else 200
        if trouble not in {0, 200}:
            headers = {"Retry-After": "1"} if trouble == 429 else {}
            return web.json_response({"code": "trouble"}, status=trouble, headers=headers)
        items = self._items(request.content_type, await request.read())
        self.content_types.append(request.content_type)
        if len(items) > self.most_items:
            return web.json_response({"code": "payload_too_large"}, status=413)
        answer = self._record(items)
        if trouble == 0 and request.transport is not None:
            request.transport.abort()
        return web.json_response(answer)

    def _items(self, content_type: str, body: bytes) -> list[tuple[tuple[Any, ...], str]]:
        if content_type == "application/json":
            return [_plain(item) for item in msgspec.json.decode(body, type=Raw).readings]
        if content_type == "application/x-ndjson":
            return [_plain(msgspec.json.decode(line, type=dict[str, msgspec.Raw])) for line in body.splitlines()]
        columns = msgspec.msgpack.decode(body)
        return [
            ((s["sensor_id"], s["sensor_type"], s.get("phase"), micros), repr(value))
            for s in columns["series"]
            for micros, value in zip(s["t"], s["v"], strict=True)
        ]

    def _record(self, items: list[tuple[tuple[Any, ...], str]]) -> dict[str, Any]:
        accepted = duplicates = 0
        errors: list[dict[str, Any]] = []
        for index, (key, text) in enumerate(items):
            if key[0] in self.refused_ids:
                finding = {"pointer": "/value", "code": "out_of_physical_range", "message": "too high"}
                errors.append({"index": index, "code": "validation_failed", "message": "bad", "errors": [finding]})
            elif key not in self.stored:
                self.stored[key] = text
                accepted += 1
            elif float(self.stored[key]) == float(text):
                duplicates += 1
            else:
                errors.append({"index": index, "code": "reading_conflict", "existing_event_id": "0f8c"})
        return {
            "status": "partial" if errors else "success",
            "accepted": accepted,
            "duplicates": duplicates,
            "rejected": len(errors),
            "first_position": "telemetry@1" if accepted else None,
            "last_position": f"telemetry@{len(self.stored)}" if accepted else None,
            "errors": errors,
        }


def _plain(item: dict[str, msgspec.Raw]) -> tuple[tuple[Any, ...], str]:
    at = datetime.fromisoformat(msgspec.json.decode(item["timestamp"]))
    micros = round(at.timestamp() * 1_000_000)
    if "meter_id" in item:
        register = (msgspec.json.decode(item["meter_id"]), _text(item, "register"), None, micros)
        return register, bytes(item["reading"]).decode()
    key = (msgspec.json.decode(item["sensor_id"]), _text(item, "sensor_type"), _text(item, "phase"), micros)
    return key, bytes(item["value"]).decode()


def _text(item: dict[str, msgspec.Raw], name: str) -> str | None:
    return msgspec.json.decode(item[name], type=str) if name in item else None


@asynccontextmanager
async def served(fake: FakeIngest) -> AsyncGenerator[str]:
    """Serve *fake* on a free port and yield its address."""
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/api/v1/ingest/batch", fake.batch)
    app.router.add_post("/api/v1/auth/login", fake.login)
    runner = web.AppRunner(app)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await runner.cleanup()
