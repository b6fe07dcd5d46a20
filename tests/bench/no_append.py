"""
The product's HTTP front over a store that stores nothing: what a post costs without the append.

``python -m tests.bench.no_append`` serves on ``SMARTGRID_PORT`` beside the product that runs in ``SMARTGRID_HOME``.
"""

import asyncio
import os
from datetime import UTC, datetime

from smartgrid_commands.ingestion import Ingestion
from smartgrid_commands.reading_calls import ACCEPTED, Call, One
from smartgrid_http.app import build_app
from smartgrid_ops import listener
from smartgrid_ops.embedded_postgres import url_of
from smartgrid_ops.serving import serve
from smartgrid_ops.settings import load
from smartgrid_ops.signals import stop_event
from smartgrid_ops.wiring import build_services


class NoAppend:
    """Fulfils ``ReadingStore`` and forgets."""

    async def record(self, call: Call) -> None:
        """Say that all of it was stored."""
        if isinstance(call, One):
            call.state, call.event = ACCEPTED, 0
        else:
            call.state[:], call.event[:] = ACCEPTED, 0
        call.first_position = 1
        call.recorded_at = datetime.now(UTC)

    async def recorded_at(self, position: int) -> datetime:  # noqa: ARG002  # of the port
        """Return any time."""
        return datetime.now(UTC)


async def main() -> None:
    """Serve until a signal."""
    settings = load(os.environ)
    async with build_services(settings, url_of(settings.home)) as services:
        services.ingestion = Ingestion(NoAppend(), services.clock)
        await serve(build_app(services), listener.bind(settings.host, settings.port or 0), stop=stop_event())


if __name__ == "__main__":
    asyncio.run(main())
