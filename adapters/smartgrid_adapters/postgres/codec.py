"""Events as bytes, and back; whatever the bytes are, only errors of this module come out."""

from collections.abc import Sequence
from typing import Self

import msgspec
from msgspec import msgpack

from smartgrid_schemas.envelope import Metadata
from smartgrid_schemas.event import Event
from smartgrid_schemas.registry import REGISTRY, Registry, name_of
from smartgrid_schemas.upcasters import Upcaster

_ENCODER = msgpack.Encoder()
_NO_METADATA = Metadata()
_METADATA = msgpack.Decoder(Metadata)
_Form = tuple[msgpack.Decoder[Event], Sequence[tuple[Upcaster, type[Event]]]]
_DAMAGE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError)


class UndecodableEvent(Exception):
    """
    Stored bytes that cannot be read as an event.

    Attributes:
        name: The event name stored beside them.
        log: Their log, empty if they come from elsewhere.
        position: Their place in it.
        stream: Their stream.
    """

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name
        self.detail = detail
        self.log = ""
        self.position = 0
        self.stream = ""

    def at(self, log: str, position: int, stream: str) -> Self:
        """Return the same error, telling where it was met."""
        found = type(self)(self.name, f"{self.detail} (at {log}@{position}, {stream})")
        found.log, found.position, found.stream = log, position, stream
        return found


class UnknownEvent(UndecodableEvent):
    """This code knows no event of that name: it is older than the log."""


class DamagedEvent(UndecodableEvent):
    """The bytes are not what was written."""


class UpcasterFailed(UndecodableEvent):
    """The bytes are whole, but an upcaster of ours cannot make today's shape of them: mend it and read again."""


class Codec:
    """
    Reads the events of a registry.

    Args:
        registry: Which events there are.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._forms: dict[str, _Form] = {}

    def decode(self, name: str, data: bytes) -> Event:
        """
        Return the event that *data*, stored as *name*, holds, in today's shape.

        Raises:
            UnknownEvent: No event has that name.
            DamagedEvent: *data* is not one.
            UpcasterFailed: It cannot be brought into today's shape.
        """
        decoder, steps = self._forms.get(name) or self._form_of(name)
        try:
            event = decoder.decode(data)
        except _DAMAGE as error:
            raise DamagedEvent(name, str(error)) from error
        return _upcast(name, event, steps) if steps else event

    def stored_as(self, name: str) -> str:
        """Return *name* if it is that of an older shape, else nothing; for ``Recorded.stored_as``."""
        return name if name in self._registry.older else ""

    def _form_of(self, name: str) -> _Form:
        if name not in self._registry.events:
            raise UnknownEvent(name, "no event has this name")
        form = msgpack.Decoder(self._registry.events[name]), self._registry.steps_of(name)
        return self._forms.setdefault(name, form)


def _upcast(name: str, event: Event, steps: Sequence[tuple[Upcaster, type[Event]]]) -> Event:
    for upcaster, wanted in steps:
        try:
            event = upcaster(event)
        except Exception as error:  # an upcaster may fail in any way, and what it was given stays readable
            raise UpcasterFailed(name, f"upcasting to {name_of(wanted)}: {error!r}") from error
        if type(event) is not wanted:
            raise UpcasterFailed(name, f"the upcaster to {name_of(wanted)} returned {type(event).__name__}")
    return event


def encode(event: Event) -> bytes:
    """Return *event* as MessagePack, its name included."""
    return _ENCODER.encode(event)


CODEC = Codec(REGISTRY)
"""Reads the events of this product."""
decode = CODEC.decode


def encode_metadata(metadata: Metadata) -> bytes | None:
    """Return *metadata* as MessagePack, None for an empty one."""
    return None if metadata == _NO_METADATA else _ENCODER.encode(metadata)


def decode_metadata(name: str, data: bytes | None) -> Metadata:
    """
    Return the metadata that :func:`encode_metadata` made of an event called *name*.

    Raises:
        DamagedEvent: *data* is not one.
    """
    if data is None:
        return _NO_METADATA
    try:
        return _METADATA.decode(data)
    except _DAMAGE as error:
        raise DamagedEvent(name, f"metadata: {error}") from error
