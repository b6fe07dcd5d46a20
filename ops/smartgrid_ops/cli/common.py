"""What all commands share."""

import contextlib
import os
from collections.abc import Generator

import typer

from smartgrid_ops.exits import PORT_IN_USE, SETTING, Exit
from smartgrid_ops.listener import PortInUse
from smartgrid_ops.settings import BadSetting, Settings, load


def settings_of() -> Settings:
    """Return the settings of this process, or end it with 2 and the name of the bad one."""
    try:
        return load(os.environ)
    except BadSetting as error:
        typer.echo(f"smartgrid: {error}", err=True)
        raise typer.Exit(SETTING) from error


@contextlib.contextmanager
def exit_codes() -> Generator[None, None, None]:
    """Turn what can go wrong at a start into the exit code it has."""
    try:
        yield
    except Exit as end:
        raise typer.Exit(end.code) from end
    except BadSetting as error:
        typer.echo(f"smartgrid: {error}", err=True)
        raise typer.Exit(SETTING) from error
    except PortInUse as error:
        typer.echo(f"smartgrid: {error}", err=True)
        raise typer.Exit(PORT_IN_USE) from error
