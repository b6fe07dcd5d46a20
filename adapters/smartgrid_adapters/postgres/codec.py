"""Events as bytes, and back; whatever the bytes are, only errors of this module come out."""

from functools import cache
from typing import Self

import msgspec
from msgspec import msgpack

from smartgrid_schemas.envelope import Metadata
from smartgrid_schemas.event import Event
from smartgrid_schemas.registry import EVENT_OF

_ENCODER = msgpack.Encoder()
_NO_METADATA = Metadata()
_METADATA = msgpack.Decoder(Metadata)
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


def encode(event: Event) -> bytes:
    """Return *event* as MessagePack, its name included."""
    return _ENCODER.encode(event)


def decode(name: str, data: bytes) -> Event:
    """
    Return the event *name* that *data* holds.

    Raises:
        UnknownEvent: No event has that name.
        DamagedEvent: *data* is not one.
    """
    decoder = _decoder_of(name)
    try:
        return decoder.decode(data)
    except _DAMAGE as error:
        raise DamagedEvent(name, str(error)) from error


@cache
def _known_decoder_of(name: str) -> msgpack.Decoder[Event]:
    return msgpack.Decoder(EVENT_OF[name])


def _decoder_of(name: str) -> msgpack.Decoder[Event]:
    if name not in EVENT_OF:
        raise UnknownEvent(name, "no event has this name")
    return _known_decoder_of(name)


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
