"""The OpenAPI 3.1 document, made from what the handlers say of themselves and from the policy table."""

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from importlib import metadata
from typing import Any

import msgspec
from msgspec import Struct

from smartgrid_http.describe import Described
from smartgrid_http.policy import MEDIA, Access
from smartgrid_http.problems import TITLES

REFERENCE = "#/components/schemas/{name}"
KEYED = frozenset({"POST", "PATCH", "DELETE"})
OPERATION_WORDS = re.compile(r"[^A-Za-z0-9]+")

Key = tuple[str, str]
Json = dict[str, Any]


class FindingView(Struct, frozen=True, kw_only=True):
    """One thing that is wrong: a JSON pointer into the body, ``?name`` or ``@Header-Name``."""

    pointer: str
    code: str
    message: str


class ProblemView(Struct, frozen=True, kw_only=True):
    """An error, RFC 9457 plus the original's ``error``."""

    type: str
    title: str
    status: int
    error: str
    code: str
    request_id: str
    errors: list[FindingView] = []


def document(described: Mapping[Key, Described], policy: Mapping[Key, Access]) -> Json:
    """
    Return the document of the routes *described*.

    Args:
        described: Method and path template to description.
        policy: Who may what; holds every key of *described*.
    """
    schemas = _Schemas(described.values())
    paths: dict[str, Json] = {}
    for key in (key for key in policy if key in described):
        method, template = key
        paths.setdefault(template, {})[method.lower()] = _operation(key, described[key], policy[key], schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Smart Grid Analytics",
            "version": metadata.version("smartgrid"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


class _Schemas:
    """JSON Schemas of all types that are spoken of, each once."""

    def __init__(self, described: Iterable[Described]) -> None:
        types: list[Any] = [ProblemView]
        for one in described:
            types += [kind for kind in (one.body, one.query, *one.answers.values()) if kind is not None]
        unique = list(dict.fromkeys(types))
        found, self.components = _short(*msgspec.json.schema_components(unique, ref_template=REFERENCE))
        self._of = dict(zip(unique, found, strict=True))
        self._queries = {one.query for one in described if one.query is not None}
        for query in self._queries:  # a query is parameters, not a schema of its own
            self.query(query)

    def of(self, kind: Any) -> Json:  # noqa: ANN401  # a type
        return dict(self._of[kind])

    def query(self, kind: Any) -> Json:  # noqa: ANN401  # a struct type
        name = str(self._of[kind].get("$ref", "")).rpartition("/")[2]
        schema = self.components.pop(name, None)
        if schema is not None:
            self._of[kind] = schema
        return self.of(kind)


def _short(found: tuple[Json, ...], components: dict[str, Json]) -> tuple[tuple[Json, ...], dict[str, Json]]:
    """Give types that share a name, which come with the paths of their modules, names of their own."""
    text = msgspec.json.encode((found, components)).decode()
    for name in components:
        if "." in name:
            module, own = name.split(".")[-2:]
            short = "".join(part.capitalize() for part in module.split("_")) + own
            text = text.replace(f'/{name}"', f'/{short}"').replace(f'"{name}":', f'"{short}":')
    return msgspec.json.decode(text, type=tuple[tuple[Json, ...], dict[str, Json]])


def _operation(key: Key, described: Described, access: Access, schemas: _Schemas) -> Json:
    method, template = key
    operation: Json = {
        "operationId": "_".join(part for part in OPERATION_WORDS.split(f"{method.lower()} {template}") if part),
        "summary": described.summary,
        "tags": [access.service],
        "parameters": _parameters(method, template, described, access, schemas),
        "responses": _responses(method, described, access, schemas),
    }
    if access.body != "none":
        content: Json = {media: {} for media in MEDIA[access.body]}
        if described.body is not None:
            content["application/json"] = {"schema": schemas.of(described.body)}
        operation["requestBody"] = {"required": access.body != "optional", "content": content}
    match access.least:
        case "public" | "loopback":
            operation["security"] = []
        case "optional":
            operation["security"] = [{}, {"token": []}]
        case _:
            operation["security"] = [{"token": []}, {"key": []}] if access.device else [{"token": []}]
    return operation


def _parameters(method: str, template: str, described: Described, access: Access, schemas: _Schemas) -> list[Json]:
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", template)
    ]
    if described.query is not None:
        query = schemas.query(described.query)
        required = set(query.get("required", ()))
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": schema}
            for name, schema in query["properties"].items()
        ]
    if method in KEYED and access.least not in ("public", "optional"):
        key = {"type": "string", "pattern": "^[!-~]{1,128}$"}
        parameters.append({"name": "Idempotency-Key", "in": "header", "required": False, "schema": key})
    return parameters


def _responses(method: str, described: Described, access: Access, schemas: _Schemas) -> Json:
    responses: Json = {}
    for status, kind in described.answers.items():
        content: Json = {}
        if kind is str:
            content["text/plain"] = {"schema": {"type": "string"}}
        elif kind is not None:
            content["application/json"] = {"schema": schemas.of(kind)}
            if status == HTTPStatus.OK:
                content.update({media: {"schema": {"type": "string"}} for media in described.media})
        responses[str(status)] = {"description": HTTPStatus(status).phrase, **({"content": content} if content else {})}
    problem = {"application/problem+json": {"schema": schemas.of(ProblemView)}}
    for status in sorted({*_problems(method, described, access)}):
        known = responses.setdefault(str(status), {"description": TITLES[status], "content": {}})
        known["content"] = {**known.get("content", {}), **problem}
    return responses


def _problems(method: str, described: Described, access: Access) -> Iterable[int]:
    yield from (400, 404, 414, 431, 500, 503, 504)
    yield from described.problems
    if access.least not in ("public", "loopback"):
        yield from (401, 403)
    if access.body != "none":
        yield from (408, 413, 415)
        if method in KEYED and access.least not in ("public", "optional"):
            yield from (409, 422)
    if str not in described.answers.values():  # what is answered as plain text is so whatever one accepts
        yield 406
