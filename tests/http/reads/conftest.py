import pytest
from tests.http.reads.filling import Filler, Pool


@pytest.fixture
def filler(pool: Pool) -> Filler:
    return Filler(pool)
