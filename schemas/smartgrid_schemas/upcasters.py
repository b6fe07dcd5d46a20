"""
How events of older shapes become the next shape.

An upcaster takes the struct of vN and returns the struct of vN+1. It is pure: no clock, no randomness, no look-ups,
so that a read model folded today and one folded in a year are the same. It invents nothing: what vN did not say is
None in vN+1. Personal fields go through as they are, sealed or not; whoever opens them uses the name that they were
stored under (``Recorded.name``).

``docs/evolving-events.md`` leads through one.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from smartgrid_schemas.event import Event

Upcaster = Callable[[Any], Event]

UPCASTERS: Final[Mapping[type[Event], Upcaster]] = {}
"""Struct of an older shape → function that makes the next shape of it. Entries are added, never removed."""
