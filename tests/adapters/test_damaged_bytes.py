"""Whatever happens to stored bytes, reading them gives an event or a typed error, never anything else."""

import random
from collections import Counter

import pytest
from tests.kit.damage import WAYS, State, damaged_states, outcome_of, outcomes, whole_states

from smartgrid_adapters.memory.data_keys import MemoryDataKeys
from smartgrid_adapters.memory.event_store import MemoryEventStore
from smartgrid_adapters.postgres.codec import DamagedEvent, decode, decode_metadata, encode, encode_metadata
from smartgrid_adapters.sealing import KeySealer
from smartgrid_commands.ports import StreamWrite
from smartgrid_commands.sealing import DamagedSeal
from smartgrid_schemas.envelope import Metadata
from smartgrid_schemas.identity import PasswordChanged, UserRegistered
from smartgrid_schemas.registry import EVENT_OF

SAMPLE = 20_000
WHOLE = 400_000
"""A quarter of it is flipped or truncated, 100,000; the rest is worse."""
REFUSALS = {"DamagedEvent", "DamagedColumn", "UnknownEvent"}


def holds(found: Counter[tuple[str, str]], number: int) -> None:
    """Assert what each way of damage may come to; the counts are shown when the test fails or with ``-s``."""
    print(*(f"{count:7} {way}: {outcome}" for (way, outcome), count in sorted(found.items())), sep="\n")  # noqa: T201
    assert sum(found.values()) == number
    assert {way for way, _ in found} == set(WAYS)
    assert {outcome for _, outcome in found} == {*REFUSALS, "the same", "another event"}
    assert {outcome for way, outcome in found if way == "truncated"} == {"DamagedEvent"}
    assert {outcome for way, outcome in found if way == "column"} <= {"DamagedColumn", "the same"}
    assert {outcome for way, outcome in found if way == "another name"} <= {"UnknownEvent", "DamagedEvent", "the same"}


def test_a_sample_of_damaged_states_gives_only_typed_errors() -> None:
    holds(outcomes(seed=1, number=SAMPLE), SAMPLE)


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_a_hundred_thousand_flipped_or_truncated_states_and_more_give_only_typed_errors() -> None:
    found = outcomes(seed=2, number=WHOLE)

    holds(found, WHOLE)
    assert sum(count for (way, _), count in found.items() if way in ("flipped", "truncated")) >= 99_000


def test_one_seed_gives_the_same_damage_again() -> None:
    assert list(damaged_states(3, 50)) == list(damaged_states(3, 50))
    assert list(damaged_states(3, 50)) != list(damaged_states(4, 50))


def test_states_that_are_whole_are_read() -> None:
    for name, data in whole_states():
        assert outcome_of(State("none", name, data, data)) == "the same"


@pytest.mark.parametrize("filling", [b"\x00", b"\x91", b"\xff", b"\xc1", b"\xa5event"])
def test_ten_megabytes_of_anything_are_damage(filling: bytes) -> None:
    data = filling * (10_000_000 // len(filling))

    for name in EVENT_OF:
        with pytest.raises(DamagedEvent):
            decode(name, data)


def test_a_text_of_ten_megabytes_is_an_event_all_the_same() -> None:
    text = "x" * 10_000_000

    event = decode("identity.password-changed.v1", encode(PasswordChanged(user_id=text)))

    assert event == PasswordChanged(user_id=text)


def test_damaged_metadata_gives_only_typed_errors() -> None:
    draw = random.Random(5)  # noqa: S311  # repeatable, not secret
    whole = encode_metadata(Metadata(actor="user:ana", correlation_id="c" * 36, causation_id="p" * 36)) or b""
    refused = 0
    for _ in range(5_000):
        changed = bytearray(whole)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        try:
            decode_metadata("x", bytes(changed[: draw.choice((len(changed), draw.randrange(1, len(changed))))]))
        except DamagedEvent:
            refused += 1
    assert 2_500 < refused < 5_000


async def test_a_damaged_sealed_value_opens_to_nothing_or_is_a_typed_error() -> None:
    sealer = KeySealer(MemoryDataKeys(), b"m" * 32)
    store = MemoryEventStore(sealer=sealer)
    event = UserRegistered(user_id="u", username="dritan", email="d@oshee.example", role="viewer", via="admin")
    await store.append("identity", [StreamWrite(stream="user:u", events=[event], expected_version=0)])
    (recorded,) = await store.read_log("identity")
    packed = sealer.pack_sealed(recorded, "username") or b""
    refused = 0
    for at in range(8 * len(packed)):
        changed = bytearray(packed)
        changed[at // 8] ^= 1 << at % 8
        try:
            assert await sealer.open_packed(bytes(changed)) is None  # another subject, who has no key
        except DamagedSeal:
            refused += 1
    for length in range(len(packed)):
        with pytest.raises(DamagedSeal):
            await sealer.open_packed(packed[:length])
    assert refused > 4 * len(packed)
