"""AES-256-GCM with a data key per subject; the data keys are wrapped by one master key."""

import hashlib
import hmac
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct, msgpack
from msgspec.structs import replace

from smartgrid_commands.sealing import DamagedSeal
from smartgrid_schemas.envelope import Recorded
from smartgrid_schemas.event import Event, Sealed
from smartgrid_schemas.privacy import personal_fields
from smartgrid_schemas.registry import name_of

E = TypeVar("E", bound=Event)

KEY_BYTES = 32
NONCE_BYTES = 12
CACHED_KEYS = 10_000
"""How many key objects are kept: making one costs more than sealing with it."""


class DataKeys(Protocol):
    """Where wrapped data keys lie."""

    async def load(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        """Return the wrapped keys of those of *subjects* that have one, None where it was destroyed."""
        ...

    async def add(self, wrapped: Mapping[str, bytes]) -> None:
        """Store keys of subjects that have none, durably; those that have one, or had, keep what they have."""
        ...


class _Packed(Struct, frozen=True, array_like=True):
    name: str
    stream: str
    event_id: bytes
    field: str
    value: str | Sealed


_PACKED = msgpack.Decoder(_Packed)


class KeySealer:
    """
    Seals with keys from *keys*; fulfils ``smartgrid_commands.sealing.Sealer``.

    Args:
        keys: The data keys.
        master: 32 bytes; whoever has them and *keys* can open everything.
    """

    def __init__(self, keys: DataKeys, master: bytes) -> None:
        if len(master) != KEY_BYTES:
            raise ValueError(f"a master key has {KEY_BYTES} bytes")
        self._keys = keys
        self._wrapping = AESGCM(_derived(master, b"wrap"))
        self._lookup_key = _derived(master, b"lookup")
        self._cached: dict[str, AESGCM] = {}

    async def prepare(self, events: Iterable[Event]) -> None:
        subjects = {
            f"{kind}:{getattr(event, named_by)}"
            for event in events
            for field, (kind, named_by) in personal_fields(type(event)).items()
            if isinstance(getattr(event, field), str)
        }
        missing = [subject for subject in subjects if subject not in self._cached]
        if not missing:
            return
        while len(self._cached) > CACHED_KEYS:
            self._cached.pop(next(iter(self._cached)))  # the oldest
            missing = [subject for subject in subjects if subject not in self._cached]
        found = await self._keys.load(missing)
        fresh = {s: self._wrapped(s, AESGCM.generate_key(8 * KEY_BYTES)) for s in missing if s not in found}
        if fresh:
            await self._keys.add(fresh)
            found = {**found, **await self._keys.load(list(fresh))}  # another process may have been first
        self._keep(found)

    def seal(self, event: E, *, stream: str, event_id: UUID) -> E:
        name = name_of(event)
        changes: dict[str, Sealed] = {}
        for field, (kind, named_by) in personal_fields(type(event)).items():
            value = getattr(event, field)
            if isinstance(value, str):
                subject = f"{kind}:{getattr(event, named_by)}"
                nonce = os.urandom(NONCE_BYTES)
                place = _place(name, stream, event_id.bytes, field)
                data = self._cached[subject].encrypt(nonce, value.encode(), place)
                changes[field] = Sealed(subject, nonce, data)
        return replace(event, **changes) if changes else event

    async def open(
        self, value: str | Sealed | None, *, name: str, stream: str, event_id: UUID, field: str
    ) -> str | None:
        return await self._open(value, _place(name, stream, event_id.bytes, field))

    def pack_sealed(self, recorded: Recorded[Event], field: str) -> bytes | None:
        value: str | Sealed | None = getattr(recorded.event, field)
        if value is None:
            return None
        return msgpack.encode(_Packed(recorded.name, recorded.stream, recorded.event_id.bytes, field, value))

    async def open_packed(self, packed: bytes | None) -> str | None:
        if packed is None:
            return None
        try:
            there = _PACKED.decode(packed)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DamagedSeal("not a packed value") from error
        return await self._open(there.value, _place(there.name, there.stream, there.event_id, there.field))

    def lookup(self, kind: str, text: str) -> bytes:
        return hmac.digest(self._lookup_key, f"{kind}\0{text}".encode(), hashlib.sha256)

    def forget(self, subject: str) -> None:
        """Drop the cached key of *subject*."""
        self._cached.pop(subject, None)

    async def _open(self, value: str | Sealed | None, place: bytes) -> str | None:
        if value is None or isinstance(value, str):
            return value
        if value.subject not in self._cached:
            self._keep(await self._keys.load([value.subject]))
        key = self._cached.get(value.subject)
        if key is None:
            return None
        try:
            return key.decrypt(value.nonce, value.data, place).decode()
        except (InvalidTag, ValueError) as error:
            raise DamagedSeal("the value was not sealed for this place") from error

    def _wrapped(self, subject: str, key: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._wrapping.encrypt(nonce, key, subject.encode())

    def _keep(self, wrapped: Mapping[str, bytes | None]) -> None:
        for subject, blob in wrapped.items():
            if blob is not None:
                try:
                    key = self._wrapping.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], subject.encode())
                except InvalidTag as error:
                    raise DamagedSeal(f"the key of {subject} was wrapped by another master key") from error
                self._cached[subject] = AESGCM(key)


def _place(name: str, stream: str, event_id: bytes, field: str) -> bytes:
    return b"\0".join((name.encode(), stream.encode(), event_id, field.encode()))


def _derived(master: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"smartgrid sealing " + purpose).derive(master)


def master_key(path: Path) -> bytes:
    """
    Return the master key in the file *path*, made (0600) if there is none.

    Raises:
        ValueError: The file holds something else.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(made, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path} is not a master key of {KEY_BYTES} bytes")
    return key
