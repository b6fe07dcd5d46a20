"""
One JSON object per line, to stderr and to a file of the process below ``<home>/logs``.

Only fields that are named here leave the process; a value is cut at 1 KiB; of an exception its type and where it went
through the code are kept, its text only where it is ours (PostgreSQL's quotes the values of rows).
"""

import atexit
import contextlib
import logging
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import cast

import msgspec
import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

LONGEST = 1024
"""Longest text of a field [characters]."""

FIELDS = frozenset(
    {
        *("event", "level", "timestamp", "logger", "process", "pid", "exception"),
        *("service", "route", "method", "status", "duration_ms", "request_id", "error", "code"),
        *("log", "position", "head", "stream", "version", "projection", "name", "lag_s", "rows", "parked_keys"),
        *("address", "port", "path", "child", "exit_code", "signal", "delay_s", "wait_s", "reason", "what", "count"),
        *("applied", "attempt", "attempts", "epoch", "owner", "job", "verdict", "key_id", "session_id", "user_id"),
    }
)
"""The fields that may be logged."""

_FILE_BYTES = 10 * 1024 * 1024
_FILES = 3
_WAITING = 10_000
_OUR_ERRORS = ("smartgrid_", "builtins")


def configure(process: str, folder: Path | None) -> None:
    """
    Send all logging of this process to stderr and, if *folder* is given, to ``<folder>/<process>.log``.

    May be called again; the last call counts.
    """
    handlers: list[logging.Handler] = [_Stderr()]
    if folder is not None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handlers.append(
            RotatingFileHandler(
                folder / f"{process}.log", maxBytes=_FILE_BYTES, backupCount=_FILES, encoding="utf-8", delay=True
            )
        )
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _of_process(process),
        _exceptions,
        _allowed,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _line],
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    sys.excepthook = _uncaught


class _Stderr(logging.Handler):
    """
    Writes to stderr from a thread of its own, so that a reader who stopped reading never stops the program.

    Lines beyond :data:`_WAITING` are dropped; the file has them all.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._written = 0
        self._put = 0
        threading.Thread(target=self._write, name="stderr", daemon=True).start()
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        if self._lines.qsize() < _WAITING:
            self._put += 1
            self._lines.put(self.format(record).encode() + b"\n")

    def flush(self) -> None:
        end = time.monotonic() + 1.0
        while self._written < self._put and time.monotonic() < end:
            time.sleep(0.005)

    def _write(self) -> None:
        while True:
            rest = self._lines.get()
            with contextlib.suppress(OSError):
                while rest:
                    rest = rest[os.write(2, rest) :]
            self._written += 1


def _of_process(process: str) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        event["pid"] = os.getpid()
        return event

    return add


def _exceptions(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    given = event.pop("exc_info", None) or getattr(record, "exc_info", None)
    error = _error_of(cast("ExcInfo | BaseException | bool | None", given))
    if error is not None:
        event["exception"] = list(_described(error))
    if isinstance(record, logging.LogRecord):
        record.exc_info = record.exc_text = None  # else the formatter adds the whole text again
    return event


def _error_of(given: "ExcInfo | BaseException | bool | None") -> BaseException | None:
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        return given[1]
    return sys.exc_info()[1] if given else None


def _described(error: BaseException) -> Iterator[dict[str, object]]:
    seen: BaseException | None = error
    for _ in range(5):
        if seen is None:
            return
        kind = type(seen)
        described: dict[str, object] = {
            "type": f"{kind.__module__}.{kind.__qualname__}",
            "where": [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(seen.__traceback__)][-20:],
        }
        if kind.__module__.startswith(_OUR_ERRORS):
            described["text"] = str(seen)[:LONGEST]
        yield described
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _allowed(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    kept: EventDict = {}
    for name, value in event.items():
        if name in FIELDS or name.startswith("_"):
            kept[name] = f"{value[:LONGEST]}…" if isinstance(value, str) and len(value) > LONGEST else value
    return kept


def _line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


def _uncaught(kind: type[BaseException], error: BaseException, _where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger("smartgrid").error("uncaught", exc_info=error)
