import hashlib
import json
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from smartgrid_adapters.postgres.codec import decode, encode
from smartgrid_domain.maths.columns import unpack
from smartgrid_schemas import event as event_module
from smartgrid_schemas.compatibility import breaks
from smartgrid_schemas.event import Event
from smartgrid_schemas.metering import MeterReadingsRecorded
from smartgrid_schemas.privacy import marks_of, personal_fields
from smartgrid_schemas.registry import EVENT_OF, TOPIC_OF, name_of
from smartgrid_schemas.telemetry import ReadingsRecorded

SCHEMAS = Path(__file__).parents[2] / "schemas"
GOLDEN = SCHEMAS / "golden"
FILES = sorted(GOLDEN.glob("*/*.msgpack"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_each_stored_example_decodes_today(path: Path) -> None:
    event = decode(path.parent.name, path.read_bytes())

    assert type(event) is EVENT_OF[path.parent.name]
    assert encode(event) == path.read_bytes()
    if isinstance(event, ReadingsRecorded | MeterReadingsRecorded):
        assert len(unpack(event)) == event.count == sum(event.runs)


def test_examples_are_never_edited_and_none_is_missing() -> None:
    lines = (GOLDEN / "checksums.txt").read_text(encoding="utf-8").splitlines()
    listed = {path: checksum for checksum, path in (line.split("  ") for line in lines)}

    found = {str(path.relative_to(GOLDEN)): hashlib.sha256(path.read_bytes()).hexdigest() for path in FILES}

    assert found == listed


@pytest.mark.parametrize("name", EVENT_OF)
def test_each_event_has_an_example(name: str) -> None:
    assert list((GOLDEN / name).glob("*.msgpack"))


@pytest.mark.parametrize("name", EVENT_OF)
def test_each_event_can_read_what_its_frozen_schema_promised(name: str) -> None:
    frozen = json.loads((SCHEMAS / "frozen" / f"{name}.json").read_text(encoding="utf-8"))

    assert breaks(frozen, msgspec.json.schema(EVENT_OF[name])) == []


def test_the_list_of_events_only_grows() -> None:
    assert {path.stem for path in (SCHEMAS / "frozen").glob("*.json")} <= set(EVENT_OF)
    assert {path.parent.name for path in FILES} <= set(EVENT_OF)


def _structs_of(kind: type[Struct]) -> set[type[Struct]]:
    """Return *kind* and the structs of ours that are in its fields."""
    found = {kind}
    for field in msgspec.structs.fields(kind):
        for part in _parts(field.type):
            if isinstance(part, type) and issubclass(part, Struct) and part is not event_module.Sealed:
                found |= _structs_of(part)
    return found


def _parts(hint: object) -> list[object]:
    return [hint, *(part for argument in getattr(hint, "__args__", ()) for part in _parts(argument))]


@pytest.mark.parametrize("kind", TOPIC_OF, ids=name_of)
def test_each_field_carries_one_privacy_mark(kind: type[Event]) -> None:
    for struct in _structs_of(kind):
        for field, mark in marks_of(struct).items():
            assert mark, f"{struct.__name__}.{field}"
            assert mark["privacy"] in {"none", "pseudonymous", "personal"}, f"{struct.__name__}.{field}"


@pytest.mark.parametrize("kind", TOPIC_OF, ids=name_of)
def test_each_personal_field_names_a_subject_of_its_event_and_can_be_sealed(kind: type[Event]) -> None:
    for field, (subject, named_by) in personal_fields(kind).items():
        assert subject in {"user", "meter"}
        assert named_by in kind.__struct_fields__
        hint = next(f.type for f in msgspec.structs.fields(kind) if f.name == field)
        assert event_module.Sealed in _parts(hint)


@pytest.mark.parametrize("kind", TOPIC_OF, ids=name_of)
def test_names_of_events_say_subject_fact_and_version(kind: type[Event]) -> None:
    subject, fact, version = name_of(kind).split(".")

    assert subject in {"telemetry", "metering", "identity"}
    assert fact.replace("-", "").isalpha()
    assert version[0] == "v"
    assert int(version[1:]) >= 1
