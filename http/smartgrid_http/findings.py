"""
Every single thing that a value lacks to be what a type asks for.

The decoder stops at the first error; a client is told of all. So a value that the decoder refuses is walked once more
beside the type, and each difference becomes a finding with the code of the API.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, cast
from uuid import UUID

import msgspec
from msgspec import Meta, inspect

from smartgrid_domain.errors import Finding
from smartgrid_domain.instants import BadInstant, instant
from smartgrid_domain.strict_json import MAX_FINDINGS, escaped, shown

Check = Callable[[Any], tuple[str, str] | None]
"""Says what is wrong with a value of the right type: pointer code and message; None for nothing."""


def checked(check: Check, **constraints: Any) -> Meta:  # noqa: ANN401  # passed through to Meta
    """Mark a field whose value *check* must find nothing wrong with; *constraints* are those of ``msgspec.Meta``."""
    return Meta(extra={"check": check}, **constraints)


def _time(value: Any) -> tuple[str, str] | None:  # noqa: ANN401  # a check takes whatever has its type
    try:
        instant(value)
    except BadInstant as error:
        return error.code, str(error)
    return None


TimeText = Annotated[str, checked(_time, extra_json_schema={"format": "date-time"})]
"""A time as text, RFC 3339 with offset; turn it into a datetime by ``smartgrid_domain.instants.instant``."""


def explain(value: object, wanted: Any, prefix: str = "", separator: str = "/") -> list[Finding]:  # noqa: ANN401
    """
    Return what keeps *value* from being a *wanted*, at most 100 findings, in the order of the type's fields.

    Args:
        value: Dicts, lists and scalars, as a JSON decoder gives them.
        wanted: A type, such as a struct.
        prefix: Pointer of *value* itself.
        separator: What stands between *prefix* and a member's name.
    """
    found: list[Finding] = []
    _walk(value, _info(wanted), prefix, separator, found)
    return found[:MAX_FINDINGS]


@cache
def has_checks(wanted: Any) -> bool:  # noqa: ANN401  # any type that msgspec knows
    """Return whether a value that the decoder takes for a *wanted* may still have findings."""
    return _holds_check(_info(wanted), frozenset())


@cache
def _info(wanted: Any) -> inspect.Type:  # noqa: ANN401
    return inspect.type_info(wanted)


def _holds_check(info: inspect.Type, seen: frozenset[type]) -> bool:
    match info:
        case inspect.Metadata():
            return _check_of(info) is not None or _holds_check(info.type, seen)
        case inspect.StructType():
            inner = seen | {info.cls}
            return info.cls not in seen and any(_holds_check(field.type, inner) for field in info.fields)
        case inspect.UnionType():
            return any(_holds_check(one, seen) for one in info.types)
        case inspect.ListType() | inspect.VarTupleType():
            return _holds_check(info.item_type, seen)
        case inspect.DictType():
            return _holds_check(info.value_type, seen)
        case _:
            return False


def _check_of(info: inspect.Metadata) -> Check | None:
    extra = cast("dict[str, Any]", info.extra or {})  # pyright: ignore[reportUnknownMemberType]  # msgspec leaves it open
    return cast("Check | None", extra.get("check"))


def _walk(value: Any, info: inspect.Type, pointer: str, separator: str, found: list[Finding]) -> None:  # noqa: ANN401
    if len(found) >= MAX_FINDINGS:
        return
    match info:
        case inspect.Metadata():
            before = len(found)
            _walk(value, info.type, pointer, separator, found)
            check = _check_of(info)
            if check and len(found) == before and (wrong := check(value)):
                found.append(Finding(pointer, *wrong))
        case inspect.StructType():
            _struct(value, info, pointer, separator, found)
        case inspect.UnionType():
            _union(value, info, pointer, separator, found)
        case inspect.ListType() | inspect.VarTupleType():
            _list(value, info, pointer, found)
        case inspect.DictType():
            _dict(value, info, pointer, found)
        case _:
            if wrong := _scalar(value, info):
                found.append(Finding(pointer, *wrong))


def _struct(value: Any, info: inspect.StructType, pointer: str, separator: str, found: list[Finding]) -> None:  # noqa: ANN401
    if not isinstance(value, Mapping):
        found.append(Finding(pointer, "wrong_type", "Expected an object"))
        return
    members = cast("Mapping[str, Any]", value)
    known = {field.encode_name for field in info.fields}
    for field in info.fields:
        name = field.encode_name
        at = f"{pointer}{separator}{escaped(name)}"
        if name in members:
            _walk(members[name], field.type, at, "/", found)
        elif field.required:
            found.append(Finding(at, "missing_field", f"Missing required field: {name}"))
    if info.forbid_unknown_fields:
        extra = [name for name in members if name not in known and name != info.tag_field]
        found += [
            Finding(f"{pointer}{separator}{escaped(shown(name))}", "unknown_field", f"Unknown field: {shown(name)}")
            for name in extra
        ]


def _union(value: Any, info: inspect.UnionType, pointer: str, separator: str, found: list[Finding]) -> None:  # noqa: ANN401
    attempts: list[list[Finding]] = []
    for one in info.types:
        inner: list[Finding] = []
        _walk(value, one, pointer, separator, inner)
        if not inner:
            return
        attempts.append(inner)
    # The alternative whose type fits tells most; if none fits, it is the type that is wrong.
    fitting = [tries for tries in attempts if not (tries[0].pointer == pointer and tries[0].code == "wrong_type")]
    found += fitting[0] if fitting else attempts[-1 if isinstance(info.types[0], inspect.NoneType) else 0]


def _list(value: Any, info: inspect.ListType | inspect.VarTupleType, pointer: str, found: list[Finding]) -> None:  # noqa: ANN401
    if not isinstance(value, list):
        found.append(Finding(pointer, "wrong_type", "Expected an array"))
        return
    items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]  # mypy calls a cast redundant
    if info.min_length is not None and len(items) < info.min_length:
        found.append(Finding(pointer, "out_of_range", f"Give at least {info.min_length} items"))
    if info.max_length is not None and len(items) > info.max_length:
        found.append(Finding(pointer, "too_long", f"Give at most {info.max_length} items"))
        return
    for i, item in enumerate(items):
        _walk(item, info.item_type, f"{pointer}/{i}", "/", found)


def _dict(value: Any, info: inspect.DictType, pointer: str, found: list[Finding]) -> None:  # noqa: ANN401
    if not isinstance(value, dict):
        found.append(Finding(pointer, "wrong_type", "Expected an object"))
        return
    members = cast("dict[str, Any]", value)
    if info.max_length is not None and len(members) > info.max_length:
        found.append(Finding(pointer, "too_long", f"Give at most {info.max_length} members"))
        return
    for name, member in members.items():
        at = f"{pointer}/{escaped(shown(name))}"
        if wrong := _scalar(name, info.key_type):
            found.append(Finding(at, *wrong))
        _walk(member, info.value_type, at, "/", found)


def _scalar(value: Any, info: inspect.Type) -> tuple[str, str] | None:  # noqa: ANN401, PLR0911  # one line for each type
    match info:
        case inspect.StrType():
            return ("wrong_type", "Expected a text") if not isinstance(value, str) else _str(value, info)
        case inspect.BoolType():
            return None if isinstance(value, bool) else ("wrong_type", "Expected true or false")
        case inspect.IntType():
            fits = isinstance(value, int) and not isinstance(value, bool)
            return _bounds(cast("int", value), info) if fits else ("wrong_type", "Expected a whole number")
        case inspect.FloatType():
            fits = isinstance(value, int | float) and not isinstance(value, bool)
            return _bounds(cast("float", value), info) if fits else ("wrong_type", "Expected a number")
        case inspect.NoneType():
            return None if value is None else ("wrong_type", "Expected null")
        case inspect.LiteralType():
            if type(value) in {type(one) for one in info.values}:
                return None if value in info.values else ("unknown_value", f"Expected one of {_choices(info.values)}")
            return ("wrong_type", f"Expected one of {_choices(info.values)}")
        case _:
            return _other(value, info)


def _choices(values: tuple[Any, ...]) -> str:
    return ", ".join(str(one) for one in values)


def _str(value: str, info: inspect.StrType) -> tuple[str, str] | None:
    if info.max_length is not None and len(value) > info.max_length:
        return "too_long", f"At most {info.max_length} characters"
    if info.min_length is not None and len(value) < info.min_length:
        return "bad_format", f"At least {info.min_length} characters"
    if info.pattern is not None and re.search(info.pattern, value) is None:
        return "bad_format", f"Must match {info.pattern}"
    return None


def _bounds(value: float, info: inspect.IntType | inspect.FloatType) -> tuple[str, str] | None:
    fits = (
        (info.ge is None or value >= info.ge)
        and (info.gt is None or value > info.gt)
        and (info.le is None or value <= info.le)
        and (info.lt is None or value < info.lt)
    )
    if fits:
        return None
    limits = (("at least", info.ge), ("above", info.gt), ("at most", info.le), ("below", info.lt))
    return "out_of_range", "Must be " + " and ".join(f"{word} {limit}" for word, limit in limits if limit is not None)


def _other(value: Any, info: inspect.Type) -> tuple[str, str] | None:  # noqa: ANN401
    if isinstance(info, inspect.AnyType):
        return None
    # Types without a rule of their own here (dates, UUIDs, enums) are the decoder's to judge.
    try:
        msgspec.convert(value, _python_type(info))
    except msgspec.ValidationError as error:
        return ("unknown_value" if isinstance(info, inspect.EnumType) else "bad_format"), str(error)
    return None


def _python_type(info: inspect.Type) -> Any:  # noqa: ANN401
    match info:
        case inspect.EnumType() | inspect.CustomType():
            return info.cls
        case inspect.UUIDType():
            return UUID
        case _:
            return Any
