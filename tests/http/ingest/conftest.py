import pytest
from tests.http.ingest.kit import World, memory_world


@pytest.fixture
def world() -> World:
    return memory_world()
