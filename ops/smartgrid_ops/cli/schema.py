"""Commands about the events that this code knows."""

from pathlib import Path
from typing import Annotated

import typer

import smartgrid_schemas
from smartgrid_ops.exits import CRASH, SETTING

Folder = Annotated[
    Path | None, typer.Option(help="Where golden/ and frozen/ are; by default those of the checkout this runs from.")
]

schema = typer.Typer(no_args_is_help=True, help="Check that events stay readable, and write down what they promise.")


def register(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.add_typer(schema, name="schema")


@schema.command("check")
def check(folder: Folder = None) -> None:
    """Say whether all that was ever stored or published stays readable; ends with 1 and what to do if not."""
    from smartgrid_ops import schema_files  # noqa: PLC0415 - each command imports what it runs, no more
    from smartgrid_schemas.registry import REGISTRY  # noqa: PLC0415

    where = _found(folder)
    problems = schema_files.check(where)
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(CRASH)
    names = REGISTRY.events
    examples = sum(len(schema_files.examples(where, name)) for name in names)
    copies = sum(len(schema_files.frozen_copies(where, name)) for name in names)
    typer.echo(f"{len(names)} events, {examples} stored examples, {copies} frozen schemas: all readable")


@schema.command("freeze")
def freeze(folder: Folder = None) -> None:
    """Write down what new events promise, and those that gained something; ends with 1 if one broke its promise."""
    from smartgrid_ops import schema_files  # noqa: PLC0415 - as above

    try:
        fresh = schema_files.freeze(_found(folder))
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(CRASH) from error
    for name in fresh:
        typer.echo(f"froze {name}")


def _found(folder: Path | None) -> Path:
    where = folder or Path(smartgrid_schemas.__file__).parents[1]
    if not (where / "frozen").is_dir():
        typer.echo(
            f"smartgrid: there is no frozen/ in {where}; run this in a checkout or name one by --folder", err=True
        )
        raise typer.Exit(SETTING)
    return where
