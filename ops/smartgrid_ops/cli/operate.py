"""Commands that look after an installation and end."""

import asyncio
import contextlib
from collections.abc import Generator

import typer

from smartgrid_ops.cli.common import exit_codes, settings_of
from smartgrid_ops.exits import CRASH, SETTING
from smartgrid_ops.settings import Settings

users = typer.Typer(no_args_is_help=True, help="Look after accounts.")


def register(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.command("migrate")(migrate)
    app.command("doctor")(doctor)
    app.command("openapi")(openapi)
    app.add_typer(users, name="users")


def migrate() -> None:
    """Bring the database to the version of this code; several at a time are safe."""
    from smartgrid_adapters.postgres.migrate import MigrationFailed, expected_version  # noqa: PLC0415
    from smartgrid_adapters.postgres.migrate import migrate as migrate_database  # noqa: PLC0415

    with exit_codes(), database(settings_of()) as url:
        try:
            for name in asyncio.run(migrate_database(url)):
                typer.echo(f"applied {name}")
        except MigrationFailed as error:
            typer.echo(f"smartgrid: {error}", err=True)
            raise typer.Exit(CRASH) from error
        typer.echo(f"at version {expected_version()}")


def doctor() -> None:
    """Say whether database and machine are fit; ends with 2 if something must be changed."""
    from smartgrid_ops.doctor import examine_host, examine_migrations, examine_store  # noqa: PLC0415

    with exit_codes(), database(settings_of()) as url:
        findings = [*examine_host(), *asyncio.run(examine_store(url)), asyncio.run(examine_migrations(url))]
    for finding in findings:
        verdict = "bad" if finding.refuses else "look" if finding.problem else "ok"
        typer.echo(
            f"{verdict:4} {finding.name}: {finding.value}" + (f" ({finding.problem})" if finding.problem else "")
        )
    if any(finding.refuses for finding in findings):
        raise typer.Exit(SETTING)


def openapi() -> None:
    """Print the OpenAPI document of the HTTP interface."""
    from smartgrid_http.app import whole_document  # noqa: PLC0415

    typer.echo(whole_document().decode())


@users.command("bootstrap-code")
def bootstrap_code() -> None:
    """Write another one-time code for the first admin, and say where it is; ends with 1 when there is an admin."""
    settings = settings_of()
    from smartgrid_ops.wiring import build_services  # noqa: PLC0415

    async def issue(url: str) -> bool:
        async with build_services(settings, url) as services:
            return services.identity is not None and await services.identity.issue_bootstrap_code()

    with exit_codes(), database(settings) as url:
        if not asyncio.run(issue(url)):
            typer.echo("smartgrid: there is an admin already", err=True)
            raise typer.Exit(CRASH)
    typer.echo(f"The code is in {settings.home / 'bootstrap-code'}")


@contextlib.contextmanager
def database(settings: Settings) -> Generator[str, None, None]:
    """Give the database: the external one, the one that runs in this home, or that one started for the moment."""
    from smartgrid_ops.embedded_postgres import EmbeddedPostgres, PostgresUnusable, attach  # noqa: PLC0415

    url = settings.pg_url or attach(settings.home)
    if url is not None:
        yield url
        return
    postgres = EmbeddedPostgres(settings.home)
    try:
        url = postgres.start()
    except PostgresUnusable as error:
        typer.echo(f"smartgrid: {error}", err=True)
        raise typer.Exit(SETTING) from error
    try:
        yield url
    finally:
        postgres.stop()
