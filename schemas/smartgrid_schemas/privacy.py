"""What the fields of an event are marked as."""

from collections.abc import Mapping
from functools import cache
from typing import get_type_hints

from msgspec import Meta, Struct


@cache
def marks_of(kind: type[Struct]) -> Mapping[str, Mapping[str, str] | None]:
    """
    Return the privacy mark of each field of *kind*, None for one without.

    Example:
        >>> from smartgrid_schemas.identity import PasswordChanged
        >>> marks_of(PasswordChanged)
        {'user_id': {'privacy': 'pseudonymous'}}
    """
    hints = get_type_hints(kind, include_extras=True)
    return {field: _mark_of(hints[field]) for field in kind.__struct_fields__}


def _mark_of(hint: object) -> Mapping[str, str] | None:
    for meta in getattr(hint, "__metadata__", ()):
        if isinstance(meta, Meta) and meta.extra and "privacy" in meta.extra:
            return dict(meta.extra)
    return None


@cache
def personal_fields(kind: type[Struct]) -> Mapping[str, tuple[str, str]]:
    """
    Return the personal fields of *kind*, each with the kind of its subject and the field that names it.

    Example:
        >>> from smartgrid_schemas.metering import MeterRegistered
        >>> personal_fields(MeterRegistered)
        {'customer_id': ('meter', 'meter_id')}
    """
    found: dict[str, tuple[str, str]] = {}
    for field, mark in marks_of(kind).items():
        if mark and mark["privacy"] == "personal":
            subject, _, named_by = mark["subject"].partition(":")
            found[field] = (subject, named_by)
    return found
