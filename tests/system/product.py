"""The whole product as a newcomer starts it, with the few things that a test asks of it."""

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import msgspec
import psycopg
from psycopg.rows import TupleRow

from smartgrid_ops.embedded_postgres import url_of

PROGRAM = Path(sys.executable).parent / "smartgrid"
READY_S = 90.0
STOP_S = 40.0
NAME = "admin"


class Refused(AssertionError):
    """An answer that is not 2xx."""


class Product:
    """
    ``smartgrid up`` in a home and on a port of its own.

    Args:
        home: The state folder.
        settings: More environment.
    """

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.port = free_port()
        self.password = secrets.token_urlsafe(18)
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._token: tuple[str, float] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> str:
        return url_of(self.home)

    @property
    def environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("SMARTGRID_")}
        return {**ours, "SMARTGRID_HOME": str(self.home), "SMARTGRID_PORT": str(self.port), **self._settings}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            assert self.stop() == 0
        else:
            self.kill()

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home.parent / f"{self.home.name}.log").open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, "up"], env=self.environment, stdout=log, stderr=log)
        self.wait_ready()

    def wait_ready(self, limit_s: float = READY_S) -> None:
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            if self._process is not None and self._process.poll() is not None:
                log = (self.home.parent / f"{self.home.name}.log").read_text()[-4000:]
                raise AssertionError(f"smartgrid up ended with {self._process.returncode}:\n{log}")
            try:
                if self.request("GET", "/health/ready", token=None)[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready after {limit_s} s")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(STOP_S)

    def kill_supervisor(self) -> None:
        """End the supervisor with no chance to stop what it started."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def pids(self) -> dict[str, int | list[int] | None]:
        return msgspec.json.decode(
            (self.home / "run" / "pids.json").read_bytes(), type=dict[str, int | list[int] | None]
        )

    def pids_of(self, kind: str) -> list[int]:
        """Return the processes of ``api``, ``worker`` or ``postgres``; none while it is down."""
        found = self.pids().get(kind)
        return [found] if isinstance(found, int) else found or []

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Return status and decoded body; the admin's token unless *token* is another, or None for no credentials."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            sent = dict(headers or {})
            if body is not None:
                sent["Content-Type"] = "application/json"
            if token is not None:
                sent["Authorization"] = f"Bearer {token or self.token()}"
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text and "json" in answer.headers["Content-Type"] else text
        finally:
            connection.close()

    def get(self, path: str, **query: object) -> Any:  # noqa: ANN401  # JSON
        """Return the body of a 200."""
        status, body = self.request("GET", f"{path}?{urlencode(query)}" if query else path)
        if status != 200:
            raise Refused(f"{path} {query}: {status} {body}")
        return body

    def token(self) -> str:
        """Return a token of the first admin, who is made when asked for the first time."""
        if self._token is not None and time.monotonic() < self._token[1]:
            return self._token[0]
        code = self.home / "bootstrap-code"
        who = {"username": NAME, "password": self.password}
        if self._token is None and code.exists():
            body = {**who, "code": code.read_text().strip(), "email": "admin@example.com"}
            status, answer = self.request("POST", "/api/v1/auth/bootstrap", body, token=None)
        else:
            status, answer = self.request("POST", "/api/v1/auth/login", who, token=None)
        if status not in {200, 201}:
            raise Refused(f"{status} {answer}")
        self._token = (answer["token"], time.monotonic() + answer["expires_in"] / 2)
        return self._token[0]

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run another command of the program as the admin."""
        environment = {**self.environment, "SGA_PASSWORD": self.password}
        self.token()  # makes the admin
        return subprocess.run(
            [PROGRAM, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    def import_file(self, file: Path, mapping: Path, *more: str) -> dict[str, Any]:
        """Import *file* and return the summary."""
        options: list[str | Path] = [
            "--mapping",
            mapping,
            "--url",
            self.url,
            "--username",
            NAME,
            "--output",
            "json",
            *more,
        ]
        done = self.run("import", file, *options)
        assert done.returncode in {0, 1}, done.stderr
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[TupleRow]:
        """Return the rows of a query straight from the database."""
        with psycopg.connect(self.database, options="-c timezone=UTC") as conn:
            return conn.execute(query.encode(), parameters or None).fetchall()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
