"""Can today's code read what an earlier shape promised? Judged on JSON Schemas, as msgspec writes them."""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_WORDS = ("title", "description", "$defs")


def breaks(frozen: Schema, today: Schema) -> list[str]:
    """
    Return why data of the *frozen* schema may not be readable by *today*'s; nothing if it always is.

    A new field with a default is fine, and so is a wider type; anything else is a new version of the event.

    Example:
        >>> text, number = {"type": "string"}, {"type": "integer"}
        >>> breaks({"anyOf": [text]}, {"anyOf": [text, number]})
        []
        >>> breaks({"anyOf": [text, number]}, {"anyOf": [text]})
        ["$: {'type': 'integer'} is no longer allowed"]
    """
    return list(_breaks("$", frozen, today, frozen, today))


def _breaks(path: str, old: Schema, new: Schema, old_root: Schema, new_root: Schema) -> Iterator[str]:
    old, new = _resolved(old, old_root), _resolved(new, new_root)
    if "default" in old and old["default"] != new.get("default", ...):  # what is default is not stored
        yield f"{path}: the default was {old['default']}"
    if "anyOf" in old or "anyOf" in new:
        wider = list(new.get("anyOf", [new]))
        for choice in old.get("anyOf", [old]):
            if all(any(_breaks(path, choice, other, old_root, new_root)) for other in wider):
                yield f"{path}: {_resolved(choice, old_root)} is no longer allowed"
        return
    yield from _values(path, old, new)
    yield from _fields(path, old, new, old_root, new_root)
    yield from _places(path, old, new, old_root, new_root)
    for key in ("items", "additionalProperties"):
        if isinstance(old.get(key), Mapping) and isinstance(new.get(key), Mapping):
            yield from _breaks(f"{path}[]", old[key], new[key], old_root, new_root)
        elif bool(old.get(key, True)) != bool(new.get(key, True)):
            yield f"{path}: {key} was {old.get(key)} and is {new.get(key)}"


def _values(path: str, old: Schema, new: Schema) -> Iterator[str]:
    handled = ("properties", "required", "prefixItems", "minItems", "items", "additionalProperties", "default", "enum")
    for key in {*old, *new} - {*handled, *_WORDS}:
        if old.get(key) != new.get(key):
            yield f"{path}: {key} was {old.get(key)} and is {new.get(key)}"
    if "enum" in new and not set(old.get("enum", [None])) <= set(new["enum"]):
        yield f"{path}: {old.get('enum')} became {new['enum']}"


def _fields(path: str, old: Schema, new: Schema, old_root: Schema, new_root: Schema) -> Iterator[str]:
    for name in set(new.get("required", ())) - set(old.get("required", ())):
        yield f"{path}.{name}: is required now"
    for name, shape in old.get("properties", {}).items():
        if name in new.get("properties", {}):
            yield from _breaks(f"{path}.{name}", shape, new["properties"][name], old_root, new_root)
        else:
            yield f"{path}.{name}: is gone"


def _places(path: str, old: Schema, new: Schema, old_root: Schema, new_root: Schema) -> Iterator[str]:
    if new.get("minItems", 0) > old.get("minItems", 0):
        yield f"{path}: has {new['minItems']} required places instead of {old.get('minItems', 0)}"
    before, after = old.get("prefixItems", []), new.get("prefixItems", [])
    if len(after) < len(before):
        yield f"{path}: lost places"
    for index, (shape, other) in enumerate(zip(before, after, strict=False)):
        yield from _breaks(f"{path}[{index}]", shape, other, old_root, new_root)


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return {key: value for key, value in schema.items() if key not in _WORDS}
