"""Commands around read models: how far they are, and another version of one."""

import asyncio
import time
import uuid
from typing import Annotated, Literal

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from smartgrid_adapters.postgres.checkpoints import PostgresStandings
from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.pool import open_pool
from smartgrid_adapters.postgres.versions import PostgresVersions
from smartgrid_ops.cli.common import exit_codes, settings_of
from smartgrid_ops.cli.operate import database
from smartgrid_ops.exits import CRASH, SETTING
from smartgrid_ops.settings import Settings
from smartgrid_ops.system import SystemClock
from smartgrid_ops.worker import PROJECTIONS, run_worker
from smartgrid_projections.queries.standing import Progress as Standing
from smartgrid_projections.queries.standing import progress_of_all
from smartgrid_projections.versions import Rebuild, RebuildConflict

ENDED = frozenset({"switched", "aborted", "rolled_back", "failed"})
LOOK_S = 0.1

Output = Literal["text", "json"]


def register(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.command("projections")(projections)
    app.command("rebuild")(rebuild)


def projections(output: Annotated[Output, typer.Option(help="How the list is written.")] = "text") -> None:
    """Say how far every read model is."""
    with exit_codes(), database(settings_of()) as url:
        found = asyncio.run(_standing(url))
    if output == "json":
        typer.echo(msgspec.json.encode(found).decode())
        return
    for one in found:
        position = ",".join(f"{log}@{one.position[log]}" for log in sorted(one.position))
        behind = f"{one.lag_events} events behind" if one.lag_events else "up to date"
        error = f": {one.last_error}" if one.last_error else ""
        typer.echo(f"{one.name:12} version {one.version}  {one.state:8} {position:20} {behind}{error}")


async def _standing(url: str) -> list[Standing]:
    pool = await open_pool(url, max_size=2)
    store = PostgresEventStore(pool)
    await store.start()
    try:
        return await progress_of_all(PostgresStandings(pool), store, SystemClock().now())
    finally:
        await store.stop()
        await pool.close()


def rebuild(
    name: Annotated[str, typer.Argument(help="The read model.", show_default=False)],
    *,
    auto_switch: Annotated[bool, typer.Option(help="Let the new version answer as soon as it is ready.")] = False,
    wait: Annotated[bool, typer.Option(help="Stay until it is ready, and help to build it.")] = False,
) -> None:
    """
    Build another version of the read model NAME beside the one in use.

    Exit codes: 0 begun, or with --wait ready or switched to; 1 refused or failed; 2 there is no such read model.
    """
    if name not in PROJECTIONS:
        typer.echo(f"smartgrid rebuild: there is no {name}; there are {', '.join(sorted(PROJECTIONS))}", err=True)
        raise typer.Exit(SETTING)
    settings = settings_of()
    with exit_codes(), database(settings) as url:
        try:
            ended = asyncio.run(_rebuild(msgspec.structs.replace(settings, pg_url=url), url, name, auto_switch, wait))
        except RebuildConflict as error:
            typer.echo(f"smartgrid rebuild: {error}", err=True)
            raise typer.Exit(CRASH) from error
    if ended is not None and ended.state in ("failed", "aborted"):
        typer.echo(f"smartgrid rebuild: {ended.state}{f': {ended.error}' if ended.error else ''}", err=True)
        raise typer.Exit(CRASH)


async def _rebuild(settings: Settings, url: str, name: str, auto_switch: bool, wait: bool) -> Rebuild | None:  # noqa: FBT001  # the options
    pool = await open_pool(url, max_size=2)
    try:
        versions = PostgresVersions(pool)
        rebuild_id = f"rb_{uuid.uuid4().hex}"
        version = await versions.start(name, rebuild_id, auto_switch=auto_switch)
        typer.echo(f"{rebuild_id} builds version {version} of {name}")
        if not wait:
            return None
        stop = asyncio.Event()
        worker = asyncio.create_task(run_worker(settings, [name], stop))
        try:
            ended = await _followed(versions, name, rebuild_id, auto_switch=auto_switch)
        finally:
            stop.set()
            await worker
    finally:
        await pool.close()
    if ended.verify is not None:
        found = ended.verify
        typer.echo(
            f"{ended.state}: {found.rows_new} rows, {found.rows_active} in use, {found.rows_differing} differ"
            f" by {found.max_deviation:g} at most"
        )
    return ended


async def _followed(versions: PostgresVersions, name: str, rebuild_id: str, *, auto_switch: bool) -> Rebuild:
    """Show how far a rebuild is until it is ready, or switched to if it is to be, or has ended."""
    wanted = ENDED if auto_switch else ENDED | {"ready"}
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    eta = TextColumn("{task.fields[eta]}")
    with Progress(*columns, eta, console=Console(stderr=True)) as progress:
        task = progress.add_task("building", total=None, eta="")
        started = time.monotonic()
        while True:
            found = await versions.rebuild(name, rebuild_id)
            live = sum((await versions.positions(name)).values())
            done = sum(found.position.values())
            rate = done / (time.monotonic() - started + LOOK_S)
            left = f"{(live - done) / rate:.0f} s left" if rate > 0 and live > done else ""
            progress.update(task, description=found.state, completed=done, total=live, eta=left)
            if found.state in wanted:
                return found
            await asyncio.sleep(LOOK_S)
