"""A log line is one JSON object that holds nothing but named fields, and never what PostgreSQL quotes of a row."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = """
import logging, sys, warnings
from pathlib import Path
import psycopg, structlog
from smartgrid_ops.logs import configure

configure("test", Path(sys.argv[1]))
log = structlog.get_logger("smartgrid.test")
log.info("served", route="/health", status=200, password="canary-1")
log.warning("long", reason="x" * 5000)
logging.getLogger("someone.else").warning("line one\\nline two")
logging.getLogger("someone.else").info("of %s", "theirs", extra={"email": "canary-2"})
warnings.warn("old", DeprecationWarning, stacklevel=1)
class Ours(Exception): pass
Ours.__module__ = "smartgrid_ops.test"
try:
    try:
        raise psycopg.errors.UniqueViolation("Key (email)=(canary-3) already exists")
    except psycopg.Error as error:
        raise Ours("what to do next") from error
except Ours as error:
    log.error("failed", exc_info=error)
    logging.getLogger("someone.else").exception("theirs failed")
raise psycopg.errors.UniqueViolation("canary-4")
"""


def lines_of(tmp_path: Path) -> tuple[list[dict[str, Any]], str]:
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", PROGRAM, str(tmp_path / "logs")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    text = (tmp_path / "logs" / "test.log").read_text()
    lines, told = ([json.loads(line) for line in said.splitlines()] for said in (text, done.stderr))
    assert [line["event"] for line in told] == [line["event"] for line in lines]
    return lines, text + done.stderr


def test_lines_are_objects_with_named_fields_cut_at_1_kib_and_without_foreign_values(tmp_path: Path) -> None:
    lines, text = lines_of(tmp_path)
    by_event = {line["event"]: line for line in lines}

    assert "canary" not in text
    assert by_event["served"]["route"] == "/health"
    assert by_event["served"]["process"] == "test"
    assert len(by_event["long"]["reason"]) == 1025
    assert by_event["line one\nline two"]["logger"] == "someone.else"
    assert by_event["of theirs"]["level"] == "info"


def test_an_exception_tells_its_type_and_its_way_and_its_text_only_if_it_is_ours(tmp_path: Path) -> None:
    lines, _ = lines_of(tmp_path)
    failed = next(line for line in lines if line["event"] == "failed")["exception"]

    assert [part["type"] for part in failed] == ["smartgrid_ops.test.Ours", "psycopg.errors.UniqueViolation"]
    assert failed[0]["text"] == "what to do next"
    assert "text" not in failed[1]
    assert all(part["where"] for part in failed)
    assert next(line for line in lines if line["event"] == "theirs failed")["exception"] == failed
    assert next(line for line in lines if line["event"] == "uncaught")["exception"][0]["type"].endswith("Violation")


STUCK = """
import sys
import structlog
from smartgrid_ops.logs import configure

configure("test", None)
for number in range(5000):
    structlog.get_logger("smartgrid.test").info("tick", count=number, reason="x" * 100)
sys.stdout.write("done")
sys.stdout.flush()
"""


def test_a_reader_of_stderr_who_stops_reading_stops_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None

        assert process.stdout.read(4) == b"done"
        assert process.wait(10) == 0
