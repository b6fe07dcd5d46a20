"""The events, as JSON Schemas."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, Literal

from litestar import get
from litestar.params import FromPath
from msgspec import Struct

from smartgrid_http.answers import ENCODER, Answer, answer, encoded
from smartgrid_http.describe import describe
from smartgrid_http.problems import Problem
from smartgrid_schemas.published import json_schema_of
from smartgrid_schemas.registry import REGISTRY, parts_of


class Schema(Struct, frozen=True, kw_only=True):
    """
    An event.

    Attributes:
        name: Its name in the log, ``subject.fact-in-words.vN``.
        version: N; the highest of a fact is the one that is written today.
        topic: The bus topic that it goes to.
    """

    name: str
    version: int
    topic: str


class Schemas(Struct, frozen=True, kw_only=True):
    """Events, ordered by name and version."""

    status: Literal["success"] = "success"
    data: list[Schema]


NAMES: Final = tuple(sorted(REGISTRY.events, key=parts_of))


@get("/api/v1/schemas", opt=describe("All events", answers={200: Schemas}))
async def list_schemas() -> Answer:
    """Answer the name, version and topic of every event, older shapes too."""
    named = [Schema(name=name, version=parts_of(name)[1], topic=REGISTRY.topic_of(name)) for name in NAMES]
    return answer(Schemas(data=named))


@get("/api/v1/schemas/{event_name:str}", opt=describe("The JSON Schema of an event", answers={200: dict[str, Any]}))
async def get_schema(event_name: FromPath[str]) -> Answer:
    """Answer the JSON Schema (2020-12) of one event."""
    schema = _documents().get(event_name)
    if schema is None:
        raise Problem(404, "not_found", "There is no such event; GET /api/v1/schemas lists them")
    return encoded(schema)


@cache
def _documents() -> Mapping[str, bytes]:
    return {name: ENCODER.encode(json_schema_of(kind)) for name, kind in REGISTRY.events.items()}


handlers = [list_schemas, get_schema]
