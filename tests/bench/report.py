"""``docs/figures.json`` and ``docs/figures.md``: what the last run of each figure gave."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct, field
from tests.bench.harness import Figure, amount

DOCS = Path(__file__).parents[2] / "docs"
_PACKAGES = ("psycopg", "granian", "litestar", "msgspec", "numpy", "eventsourcing", "flask", "gunicorn")


class Report(Struct, kw_only=True):
    """All figures, and where the last run happened."""

    machine: dict[str, str] = field(default_factory=dict[str, str])
    figures: list[Figure] = field(default_factory=list[Figure])


def machine(postgres: str) -> dict[str, str]:
    """Return what a reader needs to judge the numbers."""
    cpu = "unknown"
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*:\s*(.+)", info.read_text())):
        cpu = found[1].strip()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return {
        "cpu": f"{os.cpu_count()} times {cpu}",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        "postgresql": postgres,
        "packages": versions,
        "load": f"{os.getloadavg()[2]:.1f} processes wanted a processor in the 15 minutes before",
    }


def update(figures: Sequence[Figure], where: dict[str, str], folder: Path = DOCS) -> None:
    """Put *figures* in the place of those of the same number and write both files."""
    path = folder / "figures.json"
    report = msgspec.json.decode(path.read_bytes(), type=Report) if path.exists() else Report()
    new = {figure.number for figure in figures}
    kept = [figure for figure in report.figures if figure.number not in new]
    merged = sorted([*kept, *figures], key=_order)
    report = Report(machine=where, figures=merged)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    (folder / "figures.md").write_text(as_markdown(report), encoding="utf-8")


def _order(figure: Figure) -> tuple[int, str]:
    found = re.match(r"\d+", figure.number)
    return (int(found[0]) if found else 999, figure.number)


def as_markdown(report: Report) -> str:
    """Return the figures as a table for people."""
    lines = [
        "# Figures",
        "",
        "Written by `./taskw bench`; do not edit. A ratio compares two sides measured in turns in one run on one",
        "machine, and is the median over its rounds: *value* is the first side by the second. PostgreSQL runs with",
        "fsync, synchronous_commit and full_page_writes on. *Result*: `goal` reached, `floor` reached, or `below`.",
        "",
    ]
    lines += [f"- {name}: {text}" for name, text in report.machine.items()]
    lines += [
        "",
        "| # | figure | value | floor | goal | result | sides (medians) | run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for it in report.figures:
        sides = "; ".join(f"{name} {text}" for name, text in it.sides.items())
        if it.note:
            sides = f"{sides}. {it.note}" if sides else it.note
        lines.append(
            f"| {it.number} | {it.what} | {_cell(it.value, it.unit)} | {_cell(it.floor, it.unit)} "
            f"| {_cell(it.goal, it.unit)} | {it.verdict} | {sides} | {it.date} |"
        )
    return "\n".join(lines) + "\n"


def _cell(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{amount(value)} {unit}".replace(" x", "")


def shown(figure: Figure) -> str:
    """Return one line for the terminal."""
    sides = "; ".join(f"{name} {text}" for name, text in figure.sides.items())
    return (
        f"{figure.number:>12}  {amount(figure.value):>8} {figure.unit:<4} {figure.verdict:<6} {figure.what}  [{sides}]"
    )
