"""``smartgrid import``: a file of measurements into a running product."""

import asyncio
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from smartgrid_ops.importing.batches import MAX_ITEMS, Wire
from smartgrid_ops.importing.files import BadFile, Source, kind_of
from smartgrid_ops.importing.items import Item, Skipped
from smartgrid_ops.importing.mapping import BadMapping, load_mapping
from smartgrid_ops.importing.reading import lines, readings
from smartgrid_ops.importing.sending import GaveUp, Login, Refused, Target, send_items
from smartgrid_ops.importing.summary import Summary

EXIT_REJECTED = 1
EXIT_BAD_INPUT = 2
EXIT_GAVE_UP = 3
DEFAULT_URL = "http://127.0.0.1:5000"

Output = Literal["text", "json"]

File = Annotated[Path, typer.Argument(help="CSV or NDJSON, plain or .gz.", show_default=False)]
MappingFile = Annotated[
    Path | None,
    typer.Option("--mapping", "-m", help="TOML file that says what the columns mean; NDJSON in API form needs none."),
]
Url = Annotated[str, typer.Option(help="Address of the gateway.")]
Token = Annotated[
    str | None, typer.Option(envvar="SGA_TOKEN", help="Access token of an operator, or an API key.", show_default=False)
]
TokenFile = Annotated[Path | None, typer.Option(help="File that holds the token.", show_default=False)]
Username = Annotated[str | None, typer.Option(help="Log in by name; asks for the password.", show_default=False)]
Password = Annotated[
    str | None,
    typer.Option(envvar="SGA_PASSWORD", help="Better left out: asked for, or taken from SGA_PASSWORD."),
]
Parallel = Annotated[int, typer.Option(min=1, max=64, help="Requests in flight.")]
BatchSize = Annotated[int, typer.Option(min=1, max=MAX_ITEMS, help="Readings per request.")]
Patience = Annotated[float, typer.Option(min=0, help="How long a request is repeated while nobody answers [s].")]


def register(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command("import")(import_file)


def import_file(  # noqa: PLR0913  # the options of the command
    file: File,
    mapping: MappingFile = None,
    *,
    url: Url = DEFAULT_URL,
    token: Token = None,
    token_file: TokenFile = None,
    username: Username = None,
    password: Password = None,
    parallel: Parallel = 4,
    batch_size: BatchSize = 5_000,
    wire: Annotated[Wire, typer.Option(help="How readings are written; auto takes columns where they fit.")] = "auto",
    shuffle: Annotated[
        int | None, typer.Option(help="Send the readings in an order drawn from this seed.", show_default=False)
    ] = None,
    patience: Patience = 120.0,
    output: Annotated[Output, typer.Option(help="How the summary is written.")] = "text",
) -> None:
    """
    Import FILE into a running product.

    Importing a file again stores nothing new, so the way to resume is to give the same command again.

    Exit codes: 0 everything is stored; 1 some readings were refused, the summary says which and why; 2 the file, the
    mapping or the credentials cannot be used; 3 the server did not answer, the same command goes on from there.
    """
    target = Target(
        url=url,
        credentials=credentials_of(token, token_file, username, password),
        parallel=parallel,
        batch_size=batch_size,
        wire=wire,
        patience_s=patience,
    )
    summary = Summary()
    try:
        with Source(file) as source, _progress() as progress:
            items = _counted(found_in(source, mapping), summary)
            task = progress.add_task(file.name, total=source.size)
            read = _shown(items, source, progress, task)
            if shuffle is not None:
                read = _shuffled(read, shuffle)
            asyncio.run(send_items(target, read, summary))
            progress.update(task, completed=source.size)
    except (BadMapping, BadFile, Refused) as error:
        _fail(f"smartgrid import: {error}", summary, output, EXIT_BAD_INPUT)
    except GaveUp as error:
        _fail(f"smartgrid import: {error}\nThe same command goes on from there.", summary, output, EXIT_GAVE_UP)
    print_summary(summary, output)
    if summary.rejected:
        raise typer.Exit(EXIT_REJECTED)


def credentials_of(
    token: str | None, token_file: Path | None, username: str | None, password: str | None
) -> str | Login:
    """Return what the options say, asking for a password where one is needed; exit with 2 where there is nothing."""
    if username is not None:
        return Login(
            username, password if password is not None else typer.prompt("Password", hide_input=True, err=True)
        )
    if token_file is not None:
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            typer.echo(f"{token_file}: {error.strerror}", err=True)
            raise typer.Exit(EXIT_BAD_INPUT) from error
    if not token:
        typer.echo("Give --token, --token-file, SGA_TOKEN or --username.", err=True)
        raise typer.Exit(EXIT_BAD_INPUT)
    return token


def found_in(source: Source, mapping: Path | None) -> Iterator[Item | Skipped | None]:
    """
    Return what *source* holds, as the file *mapping* says.

    Raises:
        BadMapping: It cannot be used, or there is none where one is needed.
    """
    if mapping is not None:
        return readings(source, load_mapping(mapping))
    if kind_of(source, None) == "csv":
        raise BadMapping("a CSV file needs --mapping")
    return (line for line in lines(source))


def _counted(found: Iterator[Item | Skipped | None], summary: Summary) -> Iterator[Item]:
    for item in found:
        if item is None:
            summary.missing += 1
        elif isinstance(item, Skipped):
            summary.skip(item)
        else:
            yield item


def _shuffled(items: Iterator[Item], seed: int) -> Iterator[Item]:
    everything = list(items)
    random.Random(seed).shuffle(everything)  # noqa: S311  # an order to test with, no secret
    yield from everything


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _shown(items: Iterator[Item], source: Source, progress: Progress, task: TaskID) -> Iterator[Item]:
    for number, item in enumerate(items, 1):
        yield item
        if number % 1000 == 0:
            progress.update(task, completed=source.done)


def _fail(message: str, summary: Summary, output: Output, code: int) -> None:
    print_summary(summary, output)
    typer.echo(message, err=True)
    raise typer.Exit(code)


def print_summary(summary: Summary, output: Output) -> None:
    """Write *summary* to stdout."""
    if output == "json":
        sys.stdout.write(msgspec.json.encode(summary.as_dict()).decode() + "\n")
        return
    typer.echo(f"accepted {summary.accepted}  duplicates {summary.duplicates}  rejected {summary.rejected}")
    if summary.missing:
        typer.echo(f"missing values, not sent: {summary.missing}")
    if summary.resent:
        typer.echo(f"requests repeated: {summary.resent}")
    for (code, column), reason in sorted(summary.reasons.items()):
        where = ", ".join(str(line) for line in reason.lines) + (" …" if reason.count > len(reason.lines) else "")
        typer.echo(f"  {reason.count} times {code} in {column}, line {where}: {reason.message}")
    if summary.last_position:
        typer.echo(f"stored up to telemetry@{summary.last_position}")
