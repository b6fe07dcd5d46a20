"""The logs on the command line: ``events tail``, ``events export`` and ``audit verify``."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from msgspec import json
from msgspec.structs import replace

from smartgrid_adapters.postgres.audit import PostgresChains
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import Pool, open_pool
from smartgrid_adapters.postgres.queries.events import PostgresEvents
from smartgrid_commands.ports import StoreUnavailable
from smartgrid_http.logs import EventLine, all_events, event_lines
from smartgrid_http.pages import lines_of
from smartgrid_ops.cli.common import exit_codes, settings_of
from smartgrid_ops.cli.operate import database
from smartgrid_ops.exits import CRASH
from smartgrid_projections.queries.events import EventFilter, LoggedEvent

T = TypeVar("T")
LogName = Literal["telemetry", "operations", "identity"]
Log = Annotated[LogName, typer.Option("--log", help="Which log.")]
Name = Annotated[str | None, typer.Option("--type", help="Only events of this name.")]
Stream = Annotated[str | None, typer.Option("--stream", help="Only events of this stream.")]

LOOK_S = 60.0
"""How long one wait for news takes at most [s]."""

events = typer.Typer(no_args_is_help=True, help="Read the logs.")
audit = typer.Typer(no_args_is_help=True, help="Prove the logs.")


def register(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.add_typer(events, name="events")
    app.add_typer(audit, name="audit")


@events.command("tail")
def tail(  # noqa: PLR0913, PLR0917  # the options
    log: Log = "telemetry",
    name: Name = None,
    stream: Stream = None,
    number: Annotated[int, typer.Option("-n", min=0, help="How many of the newest events, if all are wanted.")] = 10,
    after: Annotated[int | None, typer.Option(min=0, help="Begin behind this position instead.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is recorded from now on.")] = False,  # noqa: FBT002  # a flag
) -> None:
    """Print the newest events of a log, one JSON object a line."""

    async def run(pool: Pool) -> None:
        store = PostgresEventStore(pool)
        head = await store.head(log)
        first = max(0, head - number) if after is None else after
        wanted = EventFilter(log=log, after=first, up_to=head, name=name, stream=stream, limit=1)
        while True:
            async for lines in lines_of("ndjson", LoggedEvent, all_events(PostgresEvents(pool), wanted)):
                _write(lines)
            if not follow:
                return
            while not await store.wait_for(log, wanted.up_to + 1, timeout_s=LOOK_S):
                pass
            wanted = replace(wanted, after=wanted.up_to, up_to=await store.head(log))

    _on_database(run)


@events.command("export")
def export(  # noqa: PLR0913, PLR0917  # the options
    output: Annotated[Path, typer.Argument(help="A new file; - for the standard output.")],
    log: Log = "telemetry",
    name: Name = None,
    stream: Stream = None,
    after: Annotated[int, typer.Option(min=0, help="Only positions above this one.")] = 0,
    up_to: Annotated[int | None, typer.Option(min=0, help="Only positions up to this one.")] = None,
    form: Annotated[Literal["ndjson", "csv"], typer.Option("--format", help="One object a line, or cells.")] = "ndjson",
) -> None:
    """Write the events of a log to a file."""

    async def run(pool: Pool) -> None:
        head = await PostgresEventStore(pool).head(log)
        until = head if up_to is None else min(head, up_to)
        wanted = EventFilter(log=log, after=after, up_to=until, name=name, stream=stream, limit=1)
        found = all_events(PostgresEvents(pool), wanted)
        lines = (
            lines_of("ndjson", LoggedEvent, found)
            if form == "ndjson"
            else lines_of("csv", EventLine, event_lines(found))
        )
        if str(output) == "-":
            async for chunk in lines:
                _write(chunk)
            return
        with output.open("xb") as file:  # never over what is there
            async for chunk in lines:
                file.write(chunk)

    try:
        _on_database(run)
    except FileExistsError as error:
        typer.echo(f"smartgrid events export: {output} exists", err=True)
        raise typer.Exit(CRASH) from error


@audit.command("verify")
def verify() -> None:
    """Recompute the hash chain of every log; prints what was found as JSON and ends with 1 when a row is not right."""
    found = _on_database(lambda pool: PostgresChains(pool).verify())
    typer.echo(json.encode(found).decode())
    if found.first_bad is not None:
        bad = found.first_bad
        rows = str(bad.position) if bad.position == bad.last_position else f"{bad.position} to {bad.last_position}"
        typer.echo(f"smartgrid audit: {bad.log} is not what was written at {rows}: {bad.reason}", err=True)
        raise typer.Exit(CRASH)


def _write(lines: bytes) -> None:
    sys.stdout.buffer.write(lines)
    sys.stdout.buffer.flush()


def _on_database(run: Callable[[Pool], Coroutine[Any, Any, T]]) -> T:
    async def scenario(url: str) -> T:
        async with _pool(url) as pool:
            return await run(pool)

    with exit_codes(), database(settings_of()) as url:
        try:
            return asyncio.run(scenario(url))
        except StoreUnavailable as error:
            typer.echo(f"smartgrid: {error}", err=True)
            raise typer.Exit(CRASH) from error


@asynccontextmanager
async def _pool(url: str) -> AsyncGenerator[Pool]:
    pool = await open_pool(url, max_size=2)
    try:
        yield pool
    finally:
        await pool.close()
