"""Query parameters: each at most once, none that the route does not know, everything wrong with them told at once."""

import re
from collections.abc import Hashable, Mapping
from functools import cache
from typing import TypeVar, cast
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import inspect

from smartgrid_domain.errors import Finding
from smartgrid_domain.strict_json import shown
from smartgrid_http.findings import explain
from smartgrid_http.guard import Req
from smartgrid_http.problems import invalid

T = TypeVar("T")

WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z", re.ASCII)
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?\Z", re.ASCII)
BOOLEANS = {"true": True, "false": False}


class NoParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of a route that has none."""


def query_of(request: Req, wanted: type[T]) -> T:
    """Return the query of *request* as a *wanted*; see :func:`parse_query`."""
    return parse_query(request.scope["query_string"], wanted)


def parse_query(query: bytes, wanted: type[T]) -> T:
    """
    Return the query string *query* as a *wanted*.

    Args:
        query: What stands behind the ``?``, as sent.
        wanted: A struct whose fields are texts, whole numbers, numbers, booleans or literals. A field that is optional
            has a default; times are ``findings.TimeText``; a parameter named by a keyword is renamed by
            ``msgspec.field(name="from")``.

    Raises:
        Problem: 400 with every finding; pointers are ``?name``.
    """
    kinds = _kinds(cast("Hashable", wanted))
    findings: list[Finding] = []
    values: dict[str, object] = {}
    for name, text in _pairs(query, findings):
        kind = kinds.get(name)
        if kind is None:
            findings.append(Finding(f"?{shown(name)}", "unknown_parameter", f"Unknown parameter: {shown(name)}"))
        elif name in values:
            findings.append(Finding(f"?{name}", "duplicate_parameter", f"Parameter given twice: {name}"))
        else:
            values[name] = _value(text, kind)
    findings += explain(values, wanted, prefix="", separator="?")
    if findings:
        raise invalid(findings)
    try:
        return msgspec.convert(values, wanted)
    except msgspec.ValidationError as error:
        raise invalid([Finding("?", "bad_format", str(error))]) from None


def _pairs(query: bytes, findings: list[Finding]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for part in query.split(b"&") if query else ():
        name, _, value = part.partition(b"=")
        try:
            pair = _decoded(name), _decoded(value)
        except UnicodeDecodeError:
            findings.append(Finding("?", "bad_format", "The query is not UTF-8"))
            continue
        if any(not text.isprintable() for text in pair):
            findings.append(Finding(f"?{shown(pair[0])}", "bad_format", "Control characters have no place in a query"))
            continue
        pairs.append(pair)
    return pairs


def _decoded(text: bytes) -> str:
    return unquote_to_bytes(text.replace(b"+", b" ")).decode()


@cache
def _kinds(wanted: Hashable) -> Mapping[str, frozenset[str]]:
    info = inspect.type_info(wanted)
    if not isinstance(info, inspect.StructType):
        raise TypeError(wanted)
    return {field.encode_name: frozenset(_kind(field.type)) for field in info.fields}


def _kind(info: inspect.Type) -> set[str]:
    match info:
        case inspect.Metadata():
            return _kind(info.type)
        case inspect.UnionType():
            return set[str]().union(*map(_kind, info.types))
        case inspect.IntType():
            return {"int"}
        case inspect.FloatType():
            return {"float"}
        case inspect.BoolType():
            return {"bool"}
        case inspect.NoneType() | inspect.StrType() | inspect.LiteralType():
            return {"str"}
        case _:
            raise TypeError(f"not a type of a query parameter: {info}")


def _value(text: str, kind: frozenset[str]) -> object:
    """Return what *text* means; itself when it means nothing, which the finding then tells."""
    if "int" in kind and WHOLE.match(text):
        return int(text)
    if "float" in kind and NUMBER.match(text):
        return float(text)
    if "bool" in kind:
        return BOOLEANS.get(text, text)
    return text
