"""The command line: ``smartgrid``."""

import sys

import typer

from smartgrid_ops.cli import operate, run, schema

LIGHT = frozenset({"up", "serve", "worker", "migrate", "doctor", "openapi", "schema", "users"})
"""Commands that need none of the tools of the others: those stay out of the memory of what runs for months."""


def main() -> None:
    """Run the command line."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    run.register(app)
    operate.register(app)
    schema.register(app)
    if not LIGHT.intersection(sys.argv[1:2]):
        from smartgrid_ops.cli import importing, logs, rebuilding, simulate  # noqa: PLC0415 - see LIGHT

        importing.register(app)
        logs.register(app)
        rebuilding.register(app)
        simulate.register(app)
    app()
