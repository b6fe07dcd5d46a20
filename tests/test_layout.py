"""The top folders are source roots, not packages: a package called ``http`` would hide Python's own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("schemas", "domain", "commands", "projections", "adapters", "http", "ops")


@pytest.mark.parametrize("folder", [*SOURCES, "tests"])
def test_a_top_folder_is_no_package(folder: str) -> None:
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize("folder", SOURCES)
def test_a_source_root_holds_one_package_of_its_own_name(folder: str) -> None:
    packages = [path.parent.name for path in (ROOT / folder).glob("*/__init__.py")]

    assert packages == [f"smartgrid_{folder}"]


def test_the_http_of_python_is_found_from_the_root() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import http.client; print(http.__file__)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert not done.stdout.startswith(str(ROOT / "http"))


def test_no_folder_below_tests_is_a_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
