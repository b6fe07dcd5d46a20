"""The command line: ``smartgrid``."""


def main() -> None:
    """Run the command line."""
