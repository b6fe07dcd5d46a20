"""Any event of any kind, made from the types of its fields."""

from datetime import UTC, datetime, timedelta, timezone
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st
from msgspec import Struct

from smartgrid_schemas.event import Event

_ZONES = st.one_of(st.just(UTC), st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))))
_SIMPLE: dict[object, st.SearchStrategy[Any]] = {
    NoneType: st.none(),
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**64 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(),
    bytes: st.binary(max_size=200),
    # one day away from both ends, so that every zone has it
    datetime: st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=_ZONES),  # noqa: DTZ001  # bounds have no zone
}


def events_of(kind: type[Event]) -> st.SearchStrategy[Event]:
    """Return a strategy of events of *kind*; fields with a default are left out at times."""
    return _structs(kind)


def _structs(kind: type[Any]) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind, include_extras=True)
    required = {field: _values(hints[field]) for field in _fields(kind, required=True)}
    optional = {field: _values(hints[field]) for field in _fields(kind, required=False)}
    return st.fixed_dictionaries(required, optional=optional).map(lambda values: kind(**values))


def _fields(kind: type[Struct], *, required: bool) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind) if field.required == required]


def _values(hint: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401, PLR0911  # a type; one line a kind
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _values(arguments[0])
    if origin in (Union, UnionType):
        return st.one_of([_values(argument) for argument in arguments])
    if origin is list:
        return st.lists(_values(arguments[0]), max_size=4)
    if origin is tuple:
        return st.tuples(*(_values(argument) for argument in arguments))
    if origin is dict:
        return st.dictionaries(_values(arguments[0]), _values(arguments[1]), max_size=4)
    if isinstance(hint, type) and issubclass(hint, Struct):
        return _structs(hint)
    return _SIMPLE[hint]
