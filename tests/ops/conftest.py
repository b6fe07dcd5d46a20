"""A fake server on a free port."""

import asyncio
from collections.abc import Iterator
from threading import Thread

import pytest
from tests.ops.fake_ingest import FakeIngest, served


@pytest.fixture
def fake() -> FakeIngest:
    return FakeIngest()


@pytest.fixture
def address(fake: FakeIngest) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    server = served(fake)
    url = loop.run_until_complete(server.__aenter__())
    thread = Thread(target=loop.run_forever)
    thread.start()
    yield url
    asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
