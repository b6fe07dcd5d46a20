"""Events as JSON Schemas, for whoever reads them without our code."""

from typing import Any, Final

import msgspec

from smartgrid_schemas.compatibility import Schema, with_parts
from smartgrid_schemas.event import Event
from smartgrid_schemas.registry import name_of

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schema_of(kind: type[Event], *, prose: bool = True) -> dict[str, Any]:
    """
    Return the JSON Schema (2020-12) of the JSON form of an event: bytes are base64 there, and times RFC 3339.

    Args:
        kind: The event.
        prose: Whether descriptions are wanted; they may be reworded at any time.

    Example:
        >>> from smartgrid_schemas.identity import PasswordChanged
        >>> json_schema_of(PasswordChanged, prose=False)["$id"]
        'urn:smartgrid:schema:identity.password-changed.v1'
    """
    schema: dict[str, Any] = {"$schema": DIALECT, "$id": f"urn:smartgrid:schema:{name_of(kind)}"}
    schema |= msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(kind)))  # so that a default () is []
    return schema if prose else _without_prose(schema)


def _without_prose(schema: Schema) -> dict[str, Any]:
    return with_parts({key: value for key, value in schema.items() if key != "description"}, _without_prose)
