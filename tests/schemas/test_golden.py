from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from smartgrid_adapters.postgres.codec import decode, encode
from smartgrid_domain.maths.columns import unpack
from smartgrid_ops.schema_files import check, examples
from smartgrid_schemas import event as event_module
from smartgrid_schemas.event import Event
from smartgrid_schemas.metering import MeterReadingsRecorded
from smartgrid_schemas.privacy import marks_of, personal_fields
from smartgrid_schemas.registry import EVENT_OF, REGISTRY, TOPIC_OF, name_of
from smartgrid_schemas.telemetry import ReadingsRecorded

SCHEMAS = Path(__file__).parents[2] / "schemas"
FILES = [path for name in EVENT_OF for path in examples(SCHEMAS, name)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_each_stored_example_decodes_today(path: Path) -> None:
    event = decode(path.parent.name, path.read_bytes())

    assert type(event) is REGISTRY.today_of(path.parent.name)
    assert decode(name_of(event), encode(event)) == event
    if isinstance(event, ReadingsRecorded | MeterReadingsRecorded):
        assert len(unpack(event)) == event.count == sum(event.runs)


def test_all_that_was_stored_and_promised_is_whole_and_readable() -> None:
    assert check(SCHEMAS) == []


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
