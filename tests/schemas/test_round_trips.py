import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.schemas.generated import events_of

from smartgrid_adapters.postgres.codec import decode, encode
from smartgrid_schemas.registry import EVENT_OF, REGISTRY


@pytest.mark.parametrize("name", sorted(EVENT_OF.keys() - REGISTRY.older))
@settings(max_examples=40)
@given(data=st.data())
def test_an_event_of_any_kind_comes_back_from_bytes_and_from_json(name: str, data: st.DataObject) -> None:
    event = data.draw(events_of(EVENT_OF[name]))

    again = decode(name, encode(event))

    assert again == event
    assert encode(again) == encode(event)
    assert msgspec.json.decode(msgspec.json.encode(event), type=EVENT_OF[name]) == event
