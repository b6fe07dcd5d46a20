"""What all tests share; those of ``tests/`` have more in ``tests/conftest.py``."""

import subprocess

import pytest
from hypothesis import settings
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from smartgrid_ops.postgres_programs import wheel_binaries

settings.register_profile("shared-machine", deadline=None)  # how long an example takes says more of the neighbours
settings.load_profile("shared-machine")

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["*.md"]).pytest()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let long runs be cut into parts: ``--shard 2/8``."""
    parser.addoption("--shard", default="1/1", help="which part of the rounds of soak tests to do, such as 2/8")


def pytest_report_header() -> str:
    """Say which server the tests run on."""
    postgres = wheel_binaries() / "postgres"
    return subprocess.run(  # noqa: S603  # our own program
        [postgres, "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run asynchronous tests and fixtures on asyncio."""
    return "asyncio"
