"""Items of plain values, of whatever types, and everything that keeps them from being readings."""

from collections.abc import Mapping
from typing import Any, Final, cast

from msgspec import UNSET

from smartgrid_domain.errors import Finding
from smartgrid_domain.readings import (
    Item,
    Metadata,
    MeterReading,
    Place,
    SensorReading,
    meter_findings,
    sensor_findings,
)
from smartgrid_domain.strict_json import escaped, shown

_MISSING: Final = object()


def sensor_of(value: object, latest_us: int) -> tuple[SensorReading | None, list[Finding]]:
    """
    Return *value* as an item, or everything that is wrong with it.

    Args:
        value: Dicts, lists and scalars, as a decoder gives them.
        latest_us: As for :func:`sensor_findings`.
    """
    fields, found = _fields(value, _SENSOR_FIELDS, ("sensor_id", "sensor_type", "value"))
    if fields is None:
        return None, found
    item = SensorReading(**fields)
    found += sensor_findings(item, latest_us)
    return (None, found) if found else (item, found)


def meter_of(value: object, latest_us: int) -> tuple[MeterReading | None, list[Finding]]:
    """Return *value* as an item, or everything that is wrong with it; as :func:`sensor_of`."""
    fields, found = _fields(value, _METER_FIELDS, ("meter_id", "reading"))
    if fields is None:
        return None, found
    item = MeterReading(**fields)
    found += meter_findings(item, latest_us)
    return (None, found) if found else (item, found)


def item_of(value: object, latest_us: int) -> tuple[Item | None, list[Finding]]:
    """Return *value* as an item of a meter when it has a ``meter_id``, else of a sensor; as :func:`sensor_of`."""
    return meter_of(value, latest_us) if _names_a_meter(value) else sensor_of(value, latest_us)


def _names_a_meter(value: object) -> bool:
    return isinstance(value, Mapping) and "meter_id" in value


def _text(value: object) -> str | None:
    return None if isinstance(value, str) else "a text"


def _number(value: object) -> str | None:
    return None if isinstance(value, int | float) and not isinstance(value, bool) else "a number"


def _integer(value: object) -> str | None:
    return None if isinstance(value, int) and not isinstance(value, bool) else "an integer"


def _object(value: object) -> str | None:
    return None if isinstance(value, Mapping) else "an object"


_COMMON: Final = {
    "timestamp": _text,
    "unit": _text,
    "quality": _text,
    "seq": _integer,
    "metadata": _object,
    "corrects": _text,
    "reason": _text,
}
_SENSOR_FIELDS: Final = {
    "sensor_id": _text,
    "sensor_type": _text,
    "value": _number,
    "location": _object,
    "phase": _text,
    **_COMMON,
}
_METER_FIELDS: Final = {"meter_id": _text, "reading": _number, "customer_id": _text, "register": _text, **_COMMON}


def _fields(
    value: object, kinds: Mapping[str, Any], required: tuple[str, ...]
) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Sort *value* into fields of the right type and findings; a required field without one becomes UNSET."""
    if not isinstance(value, Mapping):
        return None, [Finding("", "wrong_type", "A reading is an object")]
    given = cast("Mapping[object, object]", value)
    found: list[Finding] = []
    fields: dict[str, Any] = {}
    for name, kind in kinds.items():
        part = given.get(name, _MISSING)
        if part is _MISSING or (part is None and name not in required):
            if name in required:
                found.append(Finding(f"/{name}", "missing_field", f"Missing required field: {name}"))
                fields[name] = UNSET
        elif wanted := kind(part):
            found.append(Finding(f"/{name}", "wrong_type", f"{name} is {wanted}"))
            if name in required:
                fields[name] = UNSET
        elif name == "location":
            fields[name] = _place(cast("Mapping[object, object]", part), found)
        elif name == "metadata":
            fields[name] = _metadata(cast("Mapping[object, object]", part), found)
        elif kind is _number:
            fields[name] = _float(cast("float", part))
        else:
            fields[name] = part
    found += [
        Finding(f"/{escaped(shown(str(name)))}", "unknown_field", f"Unknown field: {shown(str(name))}")
        for name in given
        if name not in kinds
    ]
    return fields, found


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf")  # an integer beyond float64: told as not finite, like 1e999


def _place(value: Mapping[object, object], found: list[Finding]) -> Place:
    parts: dict[str, Any] = {"lat": UNSET, "lon": UNSET}
    for name in parts:
        if name not in value:
            pointer = f"/location/{name}"
            found.append(Finding(pointer, "missing_field", f"Missing required field: location.{name}"))
        elif wanted := _number(value[name]):
            found.append(Finding(f"/location/{name}", "wrong_type", f"{name} is {wanted}"))
        else:
            parts[name] = _float(cast("float", value[name]))
    found += [
        Finding(f"/location/{escaped(shown(str(name)))}", "unknown_field", f"Unknown field: {shown(str(name))}")
        for name in value
        if name not in parts
    ]
    return Place(**parts)


def _metadata(value: Mapping[object, object], found: list[Finding]) -> Metadata:
    good: Metadata = {}
    for name, part in value.items():
        if not isinstance(name, str):
            found.append(Finding("/metadata", "wrong_type", "A key is a text"))
        elif part is None or isinstance(part, str | int | float | bool):
            good[name] = part
        else:
            pointer = f"/metadata/{escaped(shown(name))}"
            found.append(Finding(pointer, "wrong_type", "A value is text, number, boolean or null"))
    return good
