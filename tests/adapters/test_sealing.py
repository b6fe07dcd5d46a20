from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from smartgrid_adapters.memory.data_keys import MemoryDataKeys
from smartgrid_adapters.memory.event_store import MemoryEventStore
from smartgrid_adapters.postgres.codec import encode
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import Pool
from smartgrid_adapters.postgres.sealing import PostgresDataKeys
from smartgrid_adapters.sealing import KeySealer, master_key
from smartgrid_commands.ports import StreamWrite
from smartgrid_commands.sealing import DamagedSeal, Sealer
from smartgrid_schemas.event import Sealed
from smartgrid_schemas.identity import UserRegistered

MASTER = b"m" * 32
ID = UUID(int=1)
NAME = "identity.user-registered.v1"


def registered(username: str = "dritan", email: str = "dritan@oshee.example") -> UserRegistered:
    return UserRegistered(user_id="u1", username=username, email=email, role="viewer", via="self")


def sealer(keys: MemoryDataKeys | None = None) -> KeySealer:
    return KeySealer(keys or MemoryDataKeys(), MASTER)


async def sealed(with_sealer: Sealer, event: UserRegistered, stream: str = "user:u1") -> UserRegistered:
    await with_sealer.prepare([event])
    return with_sealer.seal(event, stream=stream, event_id=ID)


@given(text=st.text())
async def test_what_was_sealed_opens_to_the_same_text(text: str) -> None:
    ours = sealer()
    event = await sealed(ours, registered(username=text))

    opened = await ours.open(event.username, name=NAME, stream="user:u1", event_id=ID, field="username")

    assert opened == text


async def test_no_clear_text_is_left_and_absent_values_stay_absent() -> None:
    event = await sealed(sealer(), registered())

    assert b"dritan" not in encode(event)
    assert event.customer_id is None
    assert event.role == "viewer"


async def test_two_swapped_values_do_not_open() -> None:
    ours = sealer()
    event = await sealed(ours, registered())
    swapped = replace(event, username=event.email, email=event.username)

    for field in ("username", "email"):
        with pytest.raises(DamagedSeal):
            await ours.open(getattr(swapped, field), name=NAME, stream="user:u1", event_id=ID, field=field)


@pytest.mark.parametrize(
    "place",
    [
        {"name": "identity.user-changed.v1", "stream": "user:u1", "event_id": ID, "field": "email"},
        {"name": NAME, "stream": "user:u2", "event_id": ID, "field": "email"},
        {"name": NAME, "stream": "user:u1", "event_id": UUID(int=2), "field": "email"},
        {"name": NAME, "stream": "user:u1", "event_id": ID, "field": "username"},
    ],
)
async def test_a_value_opens_only_at_its_place(place: dict[str, object]) -> None:
    ours = sealer()
    event = await sealed(ours, registered())

    with pytest.raises(DamagedSeal):
        await ours.open(event.email, **place)  # type: ignore[arg-type]  # the four arguments by name


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
async def test_a_changed_byte_is_noticed(at: int, flip: int) -> None:
    ours = sealer()
    value = (await sealed(ours, registered())).email
    assert isinstance(value, Sealed)
    data = bytearray(value.data)
    data[at % len(data)] ^= flip

    with pytest.raises(DamagedSeal):
        await ours.open(replace(value, data=bytes(data)), name=NAME, stream="user:u1", event_id=ID, field="email")


async def test_a_destroyed_key_opens_nothing_and_is_not_made_again() -> None:
    keys = MemoryDataKeys()
    event = await sealed(sealer(keys), registered())
    keys.destroy("user:u1")
    other = sealer(keys)

    assert await other.open(event.email, name=NAME, stream="user:u1", event_id=ID, field="email") is None
    with pytest.raises(KeyError):
        await sealed(other, registered())


async def test_another_process_opens_with_the_same_master_key_only() -> None:
    keys = MemoryDataKeys()
    event = await sealed(sealer(keys), registered())

    opened = await sealer(keys).open(event.email, name=NAME, stream="user:u1", event_id=ID, field="email")

    assert opened == "dritan@oshee.example"
    with pytest.raises(DamagedSeal):
        await KeySealer(keys, b"x" * 32).open(event.email, name=NAME, stream="user:u1", event_id=ID, field="email")


async def test_a_packed_value_opens_from_a_column() -> None:
    ours = sealer()
    store = MemoryEventStore(sealer=ours)
    await store.append("identity", [StreamWrite(stream="user:u1", events=[registered()], expected_version=0)])
    (recorded,) = await store.read_log("identity")

    packed = ours.pack_sealed(recorded, "username")

    assert await ours.open_packed(packed) == "dritan"
    assert ours.pack_sealed(recorded, "customer_id") is None
    assert await ours.open_packed(None) is None
    with pytest.raises(DamagedSeal):
        await ours.open_packed((packed or b"")[:-1])


async def test_a_lookup_depends_on_kind_text_and_master() -> None:
    ours = sealer()

    assert ours.lookup("username", "a") == sealer().lookup("username", "a")
    assert ours.lookup("username", "a") != ours.lookup("email", "a")
    assert ours.lookup("username", "a") != KeySealer(MemoryDataKeys(), b"x" * 32).lookup("username", "a")


async def test_a_data_key_is_on_disk_before_the_append_that_uses_it(pool: Pool) -> None:
    keys = PostgresDataKeys(pool)

    await KeySealer(keys, MASTER).prepare([registered()])

    assert list(await keys.load(["user:u1", "user:u2"])) == ["user:u1"]


async def test_of_two_processes_that_make_a_key_one_wins_for_both(pool: Pool) -> None:
    first, second = KeySealer(PostgresDataKeys(pool), MASTER), KeySealer(PostgresDataKeys(pool), MASTER)

    event = await sealed(first, registered())
    await sealed(second, registered())

    opened = await second.open(event.email, name=NAME, stream="user:u1", event_id=ID, field="email")
    assert opened == "dritan@oshee.example"


async def test_the_store_seals_what_it_appends(store: PostgresEventStore, pool: Pool) -> None:
    writes = [StreamWrite(stream="user:u1", events=[registered(), registered("other")], expected_version=0)]
    await store.append("identity", writes)

    recorded = await store.read_stream("identity", "user:u1")

    ours = KeySealer(PostgresDataKeys(pool), MASTER)
    assert [await ours.open_packed(ours.pack_sealed(r, "username")) for r in recorded] == ["dritan", "other"]
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT string_agg(state, '') FROM identity_events")
        (states,) = await cursor.fetchone() or (b"",)
    assert b"dritan" not in states


async def test_a_store_without_a_sealer_refuses_personal_fields(pool: Pool) -> None:
    for store in (PostgresEventStore(pool), MemoryEventStore()):
        with pytest.raises(ValueError, match="sealer"):
            await store.append("identity", [StreamWrite(stream="user:u1", events=[registered()], expected_version=0)])


async def test_the_application_cannot_destroy_keys(pool: Pool) -> None:
    async with pool.connection() as conn:
        for statement in ("UPDATE smartgrid_keys.data_keys SET wrapped = NULL", "DELETE FROM smartgrid_keys.data_keys"):
            with pytest.raises(Exception, match="permission denied"):
                await conn.execute(statement)


def test_a_master_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"

    key = master_key(path)

    assert master_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="master key"):
        master_key(path)
