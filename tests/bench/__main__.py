"""``python -m tests.bench [figure …]``: measure, print, and write ``docs/figures.json`` and ``docs/figures.md``."""

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import report
from tests.bench.audit_rows import audit
from tests.bench.database import server
from tests.bench.fold_rows import rollups_in_parts
from tests.bench.harness import Figure, Row
from tests.bench.product_rows import batches, single_posts, start_and_memory, visible, without_append
from tests.bench.projection_rows import projections_in_batches, soon_visible
from tests.bench.size_rows import statistics_at_size
from tests.bench.store import append_at_size, append_by_copy, append_by_stock, grouped, many_callers

ROWS: dict[str, Row] = {
    "1": append_by_copy,
    "2": append_by_stock,
    "3": grouped,
    "4": many_callers,
    "5": append_at_size,
    "6": single_posts,
    "7": without_append,
    "8": batches,
    "11": rollups_in_parts,
    "12": projections_in_batches,
    "13": soon_visible,
    "14": visible,
    "16": statistics_at_size,
    "19": start_and_memory,
    "audit": audit,
}
SLOW = {"5", "16", "audit"}


def main() -> int:
    """Run the figures that are asked for; all but the slow ones if none is. Ends with 1 if one is below its floor."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(ROWS)}; slow: {', '.join(SLOW)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="the slow ones too")
    parser.add_argument("--folder", type=Path, default=report.DOCS, help="where figures.json and figures.md go")
    asked = parser.parse_args()
    unknown = set(asked.figures) - set(ROWS)
    if unknown:
        parser.error(f"no figure {', '.join(sorted(unknown))}")
    names = asked.figures or [name for name in ROWS if asked.all or name not in SLOW]
    return asyncio.run(_run(names, asked.rounds, asked.folder))


async def _run(names: list[str], rounds: int, folder: Path) -> int:
    today = datetime.now(UTC).date().isoformat()
    below = 0
    async with server(rounds) as postgres:
        where = report.machine(postgres.version)
        for name in names:
            found: list[Figure] = await ROWS[name](postgres)
            for figure in found:
                figure.date = today
                below += figure.verdict == "below"
                sys.stdout.write(report.shown(figure) + "\n")
                sys.stdout.flush()
            report.update(found, where, folder)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
