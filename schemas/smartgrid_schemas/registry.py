"""Event name → struct and topic: the only list."""

import re
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from msgspec.structs import StructConfig

from smartgrid_schemas.event import Event
from smartgrid_schemas.identity import PasswordChanged, SessionEnded, SessionStarted, UserChanged, UserRegistered
from smartgrid_schemas.metering import (
    MeterConfigured,
    MeterExchanged,
    MeterReadingRetracted,
    MeterReadingsRecorded,
    MeterRegistered,
    MeterReset,
)
from smartgrid_schemas.telemetry import ReadingRetracted, ReadingsRecorded, SensorConfigured, SensorRegistered
from smartgrid_schemas.upcasters import UPCASTERS, Upcaster

SENSOR_DATA = "smartgrid-sensor-data"
METER_READINGS = "smartgrid-meter-readings"
ALERTS = "smartgrid-alerts"
NOTIFICATIONS = "smartgrid-notifications"
USERS = "smartgrid-users"
DEAD_LETTER = "smartgrid-dead-letter"

TOPIC_OF: dict[type[Event], str] = {
    ReadingsRecorded: SENSOR_DATA,
    ReadingRetracted: SENSOR_DATA,
    SensorRegistered: SENSOR_DATA,
    SensorConfigured: SENSOR_DATA,
    MeterReadingsRecorded: METER_READINGS,
    MeterReadingRetracted: METER_READINGS,
    MeterRegistered: METER_READINGS,
    MeterConfigured: METER_READINGS,
    MeterExchanged: METER_READINGS,
    MeterReset: METER_READINGS,
    UserRegistered: USERS,
    UserChanged: USERS,
    PasswordChanged: USERS,
    SessionStarted: USERS,
    SessionEnded: USERS,
}
"""The bus topic of each event of today; those of older shapes are in :data:`~smartgrid_schemas.upcasters.UPCASTERS`."""

_NAME = re.compile(r"([a-z]+\.[a-z]+(?:-[a-z]+)*)\.v([1-9][0-9]*)\Z")


def name_of(event: type[Event] | Event) -> str:
    """
    Return the name of *event* in the log.

    Example:
        >>> name_of(SensorRegistered)
        'telemetry.sensor-registered.v1'
    """
    config: StructConfig = event.__struct_config__
    return str(config.tag)


def parts_of(name: str) -> tuple[str, int]:
    """
    Return the fact and the version in the event name *name*.

    Raises:
        ValueError: It is not ``subject.fact-in-words.vN``.

    Example:
        >>> parts_of("metering.meter-reset.v1")
        ('metering.meter-reset', 1)
    """
    found = _NAME.match(name)
    if found is None:
        raise ValueError(f"{name!r} is no event name; write subject.fact-in-words.vN")
    return found[1], int(found[2])


class Registry:
    """
    Which events there are, and how those of older shapes become one of today's.

    Args:
        topics: Today's events, each with its bus topic.
        upcasters: Struct of an older shape → function that makes the next shape of it.

    Attributes:
        topics: As given.
        events: Event name → struct, those of older shapes too.
        older: Names of the older shapes.

    Guarantees:
        Every fact has all its versions from 1 on; the last is today's, and each one before has an upcaster.

    Raises:
        ValueError: One of these is missing; the text says which.
    """

    def __init__(self, topics: Mapping[type[Event], str], upcasters: Mapping[type[Event], Upcaster]) -> None:
        self.topics = dict(topics)
        self._upcasters = dict(upcasters)
        self.events = {name_of(event): event for event in (*topics, *upcasters)}
        self.older = frozenset(name_of(event) for event in upcasters)
        versions: dict[str, set[int]] = defaultdict(set)
        for name in self.events:
            fact, version = parts_of(name)
            versions[fact].add(version)
        self._newest = {fact: max(known) for fact, known in versions.items()}
        for fact, known in versions.items():
            self._check(fact, known)

    def _check(self, fact: str, versions: set[int]) -> None:
        newest = max(versions)
        for version in range(1, newest + 1):
            name = f"{fact}.v{version}"
            if version not in versions:
                raise ValueError(f"{name} is missing: what is stored has that shape; keep its struct and an upcaster")
            if (name in self.older) != (version < newest):
                problem = (
                    "has no upcaster; write one" if version < newest else "has an upcaster to a shape that is missing"
                )
                raise ValueError(f"{name} {problem} to {fact}.v{version + 1}")

    def today_of(self, name: str) -> type[Event]:
        """
        Return the struct that an event stored as *name* has when it is read.

        Raises:
            KeyError: No event has that name.
        """
        fact, _ = parts_of(name_of(self.events[name]))
        return self.events[f"{fact}.v{self._newest[fact]}"]

    def names_of(self, event: type[Event]) -> list[str]:
        """Return all names under which what is read as *event* may be stored, oldest first."""
        fact, newest = parts_of(name_of(event))
        return [f"{fact}.v{version}" for version in range(1, newest + 1)]

    def topic_of(self, name: str) -> str:
        """
        Return the bus topic of the event *name*; one of an older shape goes where today's goes.

        Raises:
            KeyError: No event has that name.
        """
        return self.topics[self.today_of(name)]

    def steps_of(self, name: str) -> list[tuple[Upcaster, type[Event]]]:
        """
        Return the upcasters from *name* to today's shape, in order, each with the struct that it makes.

        Raises:
            KeyError: No event has that name.
        """
        fact, version = parts_of(name_of(self.events[name]))
        shapes = [self.events[f"{fact}.v{later}"] for later in range(version, self._newest[fact] + 1)]
        return [(self._upcasters[old], new) for old, new in pairwise(shapes)]


REGISTRY: Final = Registry(TOPIC_OF, UPCASTERS)
"""The events of this product."""

EVENT_OF: Final[Mapping[str, type[Event]]] = REGISTRY.events
"""Event name → struct, those of older shapes too."""
