"""
Can today's code read what an earlier shape promised, and earlier code what today's writes? Judged on JSON Schemas.

These are rules for schemas as msgspec writes them, and stricter than those of a JSON Schema registry: a field that is
gone is a break too, since its data would be dropped in silence.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast

from msgspec import Struct

Schema = Mapping[str, Any]

_WORDS: Final = ("$schema", "$id", "$defs", "title", "description")
_HANDLED: Final = frozenset(
    {"properties", "required", "prefixItems", "minItems", "items", "additionalProperties", "default", "enum"}
)

_BACKWARD: Final = {
    "default": "the default was {old!r} and is {new!r}; put it back: what was stored without a value means {old!r}",
    "choice": "{old} is no longer allowed; allow it: it may be stored",
    "constraint": "{key} was {old!r} and is {new!r}; put it back: what is stored was written under it",
    "enum": "{old} became {new}; allow all values that were: they may be stored",
    "required": "is required now; give it a default: what is stored lacks it",
    "gone": "is gone; put it back: what is stored has it, and it would be dropped in silence",
    "places": "has {new} required places instead of {old}; append new places at the end, with defaults",
}
_FORWARD: Final = {
    **_BACKWARD,
    "choice": "{old} may be written now; write it in a new field with a default: earlier readers refuse it here",
    "enum": "{old} may be written, earlier only {new}; write it in a new field: earlier readers refuse it here",
    "required": "is not always written now; keep it required: earlier readers refuse an event without it",
    "places": "has {old} required places instead of {new}; keep them required: earlier readers need them",
}


class _Finding(Struct, frozen=True):
    path: str
    text: str


class _Comparison(Struct, frozen=True):
    """Whether a reader of shape *new* reads what a writer of shape *old* wrote."""

    old_root: Schema
    new_root: Schema
    words: Mapping[str, str]
    dropping: bool
    """Whether the reader may leave fields and places unread."""

    def run(self) -> Iterator[_Finding]:
        return self._breaks("$", self.old_root, self.new_root)

    def _breaks(self, path: str, old: Schema, new: Schema) -> Iterator[_Finding]:
        old, new = _resolved(old, self.old_root), _resolved(new, self.new_root)
        if "anyOf" in old or "anyOf" in new:
            wider = list(new.get("anyOf", [new]))
            for choice in old.get("anyOf", [old]):
                if all(any(self._breaks(path, choice, other)) for other in wider):
                    yield self._found(path, "choice", _said(_resolved(choice, self.old_root)), "")
            return
        yield from self._values(path, old, new)
        yield from self._fields(path, old, new)
        yield from self._places(path, old, new)
        for key in ("items", "additionalProperties"):
            if isinstance(old.get(key), Mapping) and isinstance(new.get(key), Mapping):
                yield from self._breaks(f"{path}[]", old[key], new[key])
            elif bool(old.get(key, True)) != bool(new.get(key, True)):
                yield self._found(path, "constraint", old.get(key), new.get(key), key)

    def _values(self, path: str, old: Schema, new: Schema) -> Iterator[_Finding]:
        for key in sorted({*old, *new} - {*_HANDLED, *_WORDS}):
            if old.get(key) != new.get(key):
                yield self._found(path, "constraint", old.get(key), new.get(key), key)
        if "enum" in new and not set(old.get("enum", [None])) <= set(new["enum"]):
            yield self._found(path, "enum", old.get("enum"), new["enum"])

    def _fields(self, path: str, old: Schema, new: Schema) -> Iterator[_Finding]:
        for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
            yield self._found(f"{path}.{name}", "required", "", "")
        for name, shape in old.get("properties", {}).items():
            if name in new.get("properties", {}):
                optional = name not in new.get("required", ())
                yield from self._part(f"{path}.{name}", shape, new["properties"][name], optional=optional)
            elif not self.dropping:
                yield self._found(f"{path}.{name}", "gone", "", "")

    def _places(self, path: str, old: Schema, new: Schema) -> Iterator[_Finding]:
        if new.get("minItems", 0) > old.get("minItems", 0):
            yield self._found(path, "places", old.get("minItems", 0), new["minItems"])
        before, after = old.get("prefixItems", []), new.get("prefixItems", [])
        for index, shape in enumerate(before):
            if index < len(after):
                optional = index >= new.get("minItems", 0)
                yield from self._part(f"{path}[{index}]", shape, after[index], optional=optional)
            elif not self.dropping:
                yield self._found(f"{path}[{index}]", "gone", "", "")

    def _part(self, path: str, old: Schema, new: Schema, *, optional: bool) -> Iterator[_Finding]:
        if optional and "default" in old and old["default"] != new.get("default", ...):  # what is default is not stored
            yield self._found(path, "default", old["default"], new.get("default"))
        yield from self._breaks(path, old, new)

    def _found(self, path: str, kind: str, old: object, new: object, key: str = "") -> _Finding:
        return _Finding(path, self.words[kind].format(old=old, new=new, key=key))


def breaks(frozen: Schema, today: Schema, *, readers: bool = False) -> list[str]:
    """
    Return why data of the *frozen* schema may not be readable by *today*'s; nothing if it always is.

    A new field with a default is fine, and so is a wider type unless earlier *readers* count; anything else is a new
    version of the event. Checked against every copy that was ever frozen this is BACKWARD_TRANSITIVE, and with
    *readers* FULL_TRANSITIVE.

    Args:
        frozen: What an earlier shape promised.
        today: What the struct is now.
        readers: Whether code that has only the *frozen* shape must be able to read what today's writes.

    Returns:
        Path, problem and what to do, one line each.

    Example:
        >>> text, number = {"type": "string"}, {"type": "integer"}
        >>> breaks({"anyOf": [text]}, {"anyOf": [text, number]})
        []
        >>> breaks({"anyOf": [text, number]}, {"anyOf": [text]})
        ['$: integer is no longer allowed; allow it: it may be stored']
    """
    found = list(_Comparison(frozen, today, _BACKWARD, dropping=False).run())
    if readers:
        known = {one.path for one in found}  # one problem of a place is enough
        back = _Comparison(today, frozen, _FORWARD, dropping=True).run()
        found += [one for one in back if one.path not in known]
    return [f"{one.path}: {one.text}" for one in found]


def same(one: Schema, other: Schema) -> bool:
    """
    Return whether two schemas say the same, whatever their structs are called and described as.

    Example:
        >>> same({"$ref": "#/$defs/A", "$defs": {"A": {"title": "A", "type": "null"}}}, {"type": "null"})
        True
    """
    return _inlined(one, one) == _inlined(other, other)


def with_parts(schema: Schema, visit: Callable[[Schema], Schema]) -> dict[str, Any]:
    """Return *schema* with each schema right inside it replaced by what *visit* makes of it."""
    made: dict[str, Any] = dict(schema)
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            made[key] = {name: visit(part) for name, part in value.items()}
        elif key in ("prefixItems", "anyOf"):
            made[key] = [visit(part) for part in value]
        elif key in ("items", "additionalProperties") and isinstance(value, Mapping):
            made[key] = visit(cast("Schema", value))
    return made


def _inlined(schema: Schema, root: Schema) -> Schema:
    return with_parts(_resolved(schema, root), lambda part: _inlined(part, root))


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        schema = {
            **{key: value for key, value in schema.items() if key == "default"},
            **root["$defs"][schema["$ref"].rpartition("/")[2]],
        }
    return {key: value for key, value in schema.items() if key not in _WORDS}


def _said(schema: Schema) -> str:
    """Return a schema in a word or two: the event or struct by its tag, anything else by its type."""
    tag = schema.get("properties", {}).get("type") or next(iter(schema.get("prefixItems", [])), None)
    return str(tag["enum"][0] if tag and "enum" in tag else schema.get("type", dict(schema)))
