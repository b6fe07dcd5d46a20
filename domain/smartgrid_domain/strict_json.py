"""
JSON with nothing left to chance: what two parsers could read differently is refused.

The decoders in use accept duplicate keys, deep nesting and huge numbers in their own ways, so this scan stands in
front of each of them. Bodies without a backslash pass an exact filter of a few byte searches and one count of keys;
any other outcome goes to the slow scan, which decides.
"""

import json
import math
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar, cast

import msgspec
from msgspec import Struct

from smartgrid_domain.errors import Finding, Invalid

T = TypeVar("T")

MAX_FINDINGS = 100


class JsonLimits(Struct, frozen=True, kw_only=True):
    """
    How large a document may be inside.

    Attributes:
        depth: Most nested arrays and objects.
        string_bytes: Longest string [bytes of UTF-8].
        number_chars: Longest number [characters].
    """

    depth: int = 32
    string_bytes: int = 64 * 1024
    number_chars: int = 64


JSON_LIMITS = JsonLimits()

_UNTYPED: msgspec.json.Decoder[object] = msgspec.json.Decoder()
_KINDS = {b"0123456789+-.eE": "0", b" \n\t\r": " ", b":": ":", b'"': '"', b"\\\0": "\\"}
_KIND_OF_BYTE = bytes(next((ord(kind) for of, kind in _KINDS.items() if byte in of), 0x78) for byte in range(256))
"""Makes one letter of all bytes of a kind: numbers 0, blanks a blank, escapes and NUL a backslash, the rest x."""


def strict_value(body: bytes, limits: JsonLimits = JSON_LIMITS) -> object:
    """
    Return the value of the JSON document *body* as dicts, lists and scalars.

    Raises:
        Invalid: ``malformed_json``, ``duplicate_key``, ``too_deep`` or ``validation_failed`` with findings.

    Guarantees:
        * Strict UTF-8 without BOM, no NaN, no infinity, no number that overflows, no NUL, no lone surrogate.
        * No object has two keys that are equal after unescaping.
        * A value that comes out was read alike by two independent parsers, or by one that saw no escapes.

    Example:
        >>> strict_value(b'{"a": [1, 2.5]}')
        {'a': [1, 2.5]}
    """
    keys = key_count(body, limits)
    if keys is not None:
        try:
            value = _UNTYPED.decode(body)
        except (ValueError, RecursionError):
            value = _scan(body, limits)
        else:
            if _keys_within(value, limits.depth) != keys:
                value = _scan(body, limits)
        return value
    return _scan(body, limits)


def decode_strict(body: bytes, decoder: msgspec.json.Decoder[T], limits: JsonLimits = JSON_LIMITS) -> tuple[T, object]:
    """
    Return *body* through *decoder*, and its plain value.

    Raises:
        Invalid: As :func:`strict_value`.
        msgspec.ValidationError: The document is fine, but is not what *decoder* wants.
    """
    value = strict_value(body, limits)
    return decoder.decode(body), value


def key_count(body: bytes, limits: JsonLimits = JSON_LIMITS) -> int | None:
    """
    Return how many object keys *body* has in all, or None when only the slow scan can tell.

    A caller that decodes *body* itself and finds the same number of keys has proof that none came twice.

    Guarantees:
        When a number comes back and *body* is JSON, then it has no escapes, no NUL, is UTF-8 without BOM, holds no
        number and no string above the limits, and its keys are at most that many; exactly, unless a string starts
        with a colon.
    """
    # Without a backslash every quote delimits a string. Without a blank before any colon, each key is a quote
    # followed by a colon, so the count is at least the number of keys; a document decoded to as many keys as
    # that cannot have lost one to a duplicate.
    kinds = body.translate(_KIND_OF_BYTE)
    if b"\\" in kinds or b" :" in kinds or b"0" * (limits.number_chars + 1) in kinds:
        return None
    if not body.isascii() and not _is_utf8(body):
        return None
    half = limits.string_bytes // 2
    if len(body) > half and any(body.find(b'"', at, at + half) < 0 for at in range(0, len(body) - half + 1, half)):
        return None
    return kinds.count(b'":')


def _is_utf8(body: bytes) -> bool:
    try:
        return not body.decode().startswith("\ufeff")
    except UnicodeDecodeError:
        return False


def _keys_within(value: object, depth: int) -> int:
    """Count the keys of *value*; -1 when it is nested deeper than *depth*."""
    keys = 0
    level: list[Any] = [value]
    for _ in range(depth):
        inner: list[Any] = []
        for item in level:
            members: Iterable[Any]
            if type(item) is dict:
                keys += len(cast("dict[str, Any]", item))
                members = cast("dict[str, Any]", item).values()
            elif type(item) is list:
                members = cast("Iterable[Any]", item)
            else:
                continue
            inner += [member for member in members if type(member) is dict or type(member) is list]
        if not inner:
            return keys
        level = inner
    return -1


class _Odd:
    """Stands in the value for a number that is not finite or too long."""

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message


class _Doubled(dict[str, object]):
    """An object with a key that came twice."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key


_NOT_FINITE = _Odd("not_finite", "Not a finite number")
_NOT_JSON = _Odd("not_finite", "NaN and Infinity are not JSON")


def _scan(body: bytes, limits: JsonLimits) -> object:
    if body.startswith(b"\xef\xbb\xbf"):
        _malformed("the body starts with a byte order mark; send UTF-8 without one")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        _malformed("the body is not UTF-8")
    try:
        value: object = json.loads(
            text,
            object_pairs_hook=_members,
            parse_constant=lambda _: _NOT_JSON,
            parse_float=_number(float, limits),
            parse_int=_number(int, limits),
        )
    except RecursionError:
        raise Invalid("too_deep", f"nest at most {limits.depth} levels") from None
    except ValueError as error:
        message = error.msg if isinstance(error, json.JSONDecodeError) else "not a JSON document"
        _malformed(message[0].lower() + message[1:])
    _look(value, limits)
    try:
        _UNTYPED.decode(body)
    except (ValueError, RecursionError):
        _malformed("not a JSON document")
    return value


def _malformed(what: str) -> NoReturn:
    raise Invalid("malformed_json", f"Malformed JSON: {what}")


def _number(make: Callable[[str], float], limits: JsonLimits) -> Callable[[str], object]:
    def number(text: str) -> object:
        if len(text) > limits.number_chars:
            return _Odd("too_long", f"A number has at most {limits.number_chars} characters")
        value = make(text)
        return value if make is int or math.isfinite(value) else _NOT_FINITE

    return number


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return _Doubled(key)
        seen.add(key)
    raise AssertionError  # fewer members than pairs: one key came twice


def _look(root: object, limits: JsonLimits) -> None:
    """Refuse what the parser let through; every finding of a kind is told at once."""
    findings: list[Finding] = []
    malformed = False
    todo: list[tuple[object, str, int]] = [(root, "", 0)]
    while todo:
        value, pointer, depth = todo.pop()
        if isinstance(value, _Doubled):
            raise Invalid("duplicate_key", f"Duplicate key: {shown(value.key)}")
        if isinstance(value, dict | list) and depth >= limits.depth:
            raise Invalid("too_deep", f"nest at most {limits.depth} levels")
        if isinstance(value, str):
            _text(value, pointer, limits, findings)
        elif isinstance(value, _Odd):
            findings.append(Finding(pointer, value.code, value.message))
            malformed = malformed or value is _NOT_JSON
        elif isinstance(value, dict):
            for key, member in cast("dict[str, object]", value).items():
                _text(key, pointer, limits, findings)
                todo.append((member, f"{pointer}/{escaped(shown(key))}", depth + 1))
        elif isinstance(value, list):
            todo += [(item, f"{pointer}/{i}", depth + 1) for i, item in enumerate(cast("list[object]", value))]
    if findings:
        code = "malformed_json" if malformed else "validation_failed"
        findings = sorted(findings[:MAX_FINDINGS], key=lambda finding: finding.pointer)
        raise Invalid(code, findings[0].message, findings=findings)


def _text(text: str, pointer: str, limits: JsonLimits, findings: list[Finding]) -> None:
    if not text.isprintable():  # the cheap question first: surrogates and NUL are not printable
        if any("\ud800" <= char <= "\udfff" for char in text):
            _malformed("lone surrogate")
        if "\0" in text:
            findings.append(Finding(pointer, "bad_format", "Text must not hold NUL"))
    if len(text) > limits.string_bytes // 4 and len(text.encode()) > limits.string_bytes:
        findings.append(Finding(pointer, "too_long", f"Text has at most {limits.string_bytes} bytes"))


def shown(key: str, most: int = 64) -> str:
    """Return *key* so that it can be printed: cut after *most* characters, nothing but printable ones."""
    return "".join(char if char.isprintable() else "?" for char in key[:most])


def escaped(name: str) -> str:
    """Return *name* as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")
