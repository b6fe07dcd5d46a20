"""``smartgrid simulate``: a plausible feeder, made up by a seed."""

import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from rich.console import Console
from rich.progress import Progress

from smartgrid_ops.cli.importing import (
    DEFAULT_URL,
    EXIT_BAD_INPUT,
    EXIT_GAVE_UP,
    EXIT_REJECTED,
    Password,
    Token,
    TokenFile,
    Url,
    Username,
    credentials_of,
    print_summary,
)
from smartgrid_ops.importing.items import Item, Reading
from smartgrid_ops.importing.sending import GaveUp, Refused, Target, send_items
from smartgrid_ops.importing.summary import Summary
from smartgrid_ops.simulator.stream import Plan, readings


def register(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command("simulate")(simulate)


def simulate(  # noqa: PLR0913  # the options of the command
    *,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same readings.")] = 1,
    start: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="First UTC day; default: so that the last one was yesterday."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3660)] = 1,
    houses: Annotated[int, typer.Option(min=1, max=200)] = 12,
    step: Annotated[int, typer.Option(min=1, max=3600, help="Time between two readings of a sensor [s].")] = 60,
    late: Annotated[float, typer.Option(min=0, max=1, help="Share of readings that come up to 6 h late.")] = 0.01,
    duplicates: Annotated[float, typer.Option(min=0, max=1, help="Share of readings that come twice.")] = 0.005,
    zone: Annotated[str, typer.Option(help="Zone of the people who live there.")] = "Europe/Tirane",
    output: Annotated[
        str | None, typer.Option(help="Write NDJSON to this file, - is stdout, instead of sending.", show_default=False)
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    token_file: TokenFile = None,
    username: Username = None,
    password: Password = None,
) -> None:
    """
    Make up the readings of a low-voltage feeder and send them, or write them as NDJSON.

    Simulated, all of it: loads with a daily and a weekly shape, voltage that falls with the load, frequency noise,
    meters, late and repeated readings. Ids begin with "sim-".
    """
    if 86_400 % step or (step > 60 and step % 60):  # noqa: PLR2004  # seconds
        _refuse(f"--step {step}: it must divide a minute, or be whole minutes that divide a day")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        _refuse(f"--zone {zone}: there is no such zone")
    first = start.date() if start else (datetime.now(UTC) - timedelta(days=days)).date()
    plan = Plan(
        seed=seed, start=first, days=days, houses=houses, step_s=step, late=late, duplicates=duplicates, zone=zone
    )
    made = readings(plan)
    if output is None:
        target = Target(url=url, credentials=credentials_of(token, token_file, username, password))
        _send(target, plan, made)
    elif output == "-":
        for reading in made:
            sys.stdout.buffer.write(reading.json() + b"\n")
    else:
        with Path(output).open("wb") as file:
            file.writelines(reading.json() + b"\n" for reading in made)


def _send(target: Target, plan: Plan, made: Iterator[Reading]) -> None:
    summary = Summary()
    try:
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("simulated days", total=plan.days)

            def shown() -> Iterator[Item]:
                first_s: int | None = None
                for number, reading in enumerate(made):
                    first_s = first_s or reading.at.micros
                    if number % 1000 == 0:
                        progress.update(task, completed=(reading.at.micros - first_s) / 86_400e6)
                    yield reading

            asyncio.run(send_items(target, shown(), summary))
            progress.update(task, completed=plan.days)
    except Refused as error:
        typer.echo(f"smartgrid simulate: {error}", err=True)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    except GaveUp as error:
        typer.echo(f"smartgrid simulate: {error}", err=True)
        raise typer.Exit(EXIT_GAVE_UP) from error
    print_summary(summary, "text")
    if summary.rejected:
        raise typer.Exit(EXIT_REJECTED)


def _refuse(message: str) -> None:
    typer.echo(f"smartgrid simulate: {message}", err=True)
    raise typer.Exit(EXIT_BAD_INPUT)
