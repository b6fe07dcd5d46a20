"""Batches over HTTP, again and again until each is answered."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from http import HTTPStatus
from types import TracebackType
from typing import Self

import aiohttp
import msgspec
from msgspec import Struct

from smartgrid_ops.importing.batches import Batch, Wire, batch_of, chunks, halves
from smartgrid_ops.importing.items import Item
from smartgrid_ops.importing.summary import BatchAnswer, Summary

BATCH_PATH = "/api/v1/ingest/batch"
LOGIN_PATH = "/api/v1/auth/login"
_AGAIN = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 10.0
_ANSWER_S = 60.0
_UNSPLITTABLE = 1


class Refused(Exception):
    """The server does not take what we send: credentials, address or version are wrong."""


class GaveUp(Exception):
    """The server did not answer in time. What it stored is stored: the same command goes on from there."""


class Login(Struct, frozen=True):
    """
    Who sends, by name and password; a token that ran out is replaced.

    Attributes:
        username: Of an operator.
        password: Theirs.
    """

    username: str
    password: str


class _Problem(Struct, frozen=True):
    code: str = ""
    error: str = ""


class _LoggedIn(Struct, frozen=True):
    token: str


class Sender:
    """
    Sends batches to one server.

    Batches carry no key of their own: sent twice, their readings are duplicates by natural key.

    Args:
        url: Address of the server.
        credentials: A bearer token, an API key (``sga_…``), or a login.
        patience_s: How long one batch is tried [s].
        wait: Sleeps; tests put their own here.
    """

    def __init__(
        self,
        url: str,
        credentials: str | Login,
        *,
        patience_s: float = 120.0,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = url.rstrip("/")
        self._credentials = credentials
        self._patience_s = patience_s
        self._wait = wait
        self._headers: dict[str, str] = {}
        self._login = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
        self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=True)
        try:
            await self._authenticate({})
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, batch: Batch, summary: Summary, wire: Wire) -> None:
        """
        Send *batch* until it is answered and count its items in *summary*.

        Raises:
            Refused: Sending it again would not help.
            GaveUp: No answer in time.
        """
        tried_s = 0.0
        wait_s = _FIRST_WAIT_S
        first = True
        while True:
            headers = self._headers
            status, answer, after_s = await self._post(BATCH_PATH, batch.body, batch.content_type, headers)
            if status == HTTPStatus.OK:
                count(batch, answer, summary)
                return
            if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and len(batch.items) > _UNSPLITTABLE:
                for half in halves(batch, wire):
                    await self.send(half, summary, wire)
                return
            if status == HTTPStatus.UNAUTHORIZED and first and isinstance(self._credentials, Login):
                await self._authenticate(headers)
                first = False
                continue
            if status is not None and status not in _AGAIN:
                raise Refused(_said(status, answer))
            if tried_s >= self._patience_s:
                reason = "no answer" if status is None else _said(status, answer)
                raise GaveUp(f"{self._url}: {reason}; tried for {tried_s:.0f} s")
            pause_s = max(wait_s, after_s)
            await self._wait(pause_s)
            tried_s += pause_s
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            summary.resent += 1
            first = True

    async def _authenticate(self, stale: dict[str, str]) -> None:
        credentials = self._credentials
        if isinstance(credentials, str):
            key = credentials.startswith("sga_")
            self._headers = {"X-API-Key": credentials} if key else {"Authorization": f"Bearer {credentials}"}
            return
        async with self._login:
            if self._headers is not stale and self._headers:
                return  # another batch did it meanwhile
            body = msgspec.json.encode({"username": credentials.username, "password": credentials.password})
            status, answer, _ = await self._post(LOGIN_PATH, body, "application/json", {})
            if status is None:
                raise GaveUp(f"{self._url}: no answer; is the server up?")
            if status != HTTPStatus.OK:
                raise Refused(f"login of {credentials.username}: {_said(status, answer)}")
            self._headers = {"Authorization": f"Bearer {msgspec.json.decode(answer, type=_LoggedIn).token}"}

    async def _post(
        self, path: str, body: bytes, content_type: str, headers: dict[str, str]
    ) -> tuple[int | None, bytes, float]:
        if self._session is None:
            raise RuntimeError("use the sender as a context manager")
        try:
            async with self._session.post(
                self._url + path, data=body, headers={**headers, "Content-Type": content_type}, allow_redirects=False
            ) as response:
                after = response.headers.get("Retry-After", "")
                return response.status, await response.read(), float(after) if after.isdecimal() else 0.0
        except aiohttp.InvalidURL as error:
            raise Refused(f"{self._url} is no address") from error
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None, b"", 0.0


def _said(status: int, answer: bytes) -> str:
    try:
        problem = msgspec.json.decode(answer, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = _Problem()
    return " ".join(part for part in (str(status), problem.code, problem.error) if part)


def count(batch: Batch, answer: bytes, summary: Summary) -> None:
    """
    Add the *answer* to *batch* to *summary*.

    Raises:
        Refused: The counts do not add up to the items sent, so the server speaks another language than we do.
    """
    try:
        told = msgspec.json.decode(answer, type=BatchAnswer)
    except msgspec.DecodeError as error:
        raise Refused(f"an answer that is none: {error}") from error
    if told.accepted + told.duplicates + told.rejected != len(batch.items):
        raise Refused(f"{len(batch.items)} readings sent and {told} answered")
    summary.accepted += told.accepted
    summary.duplicates += told.duplicates
    for refusal in told.errors:
        summary.refused_by_server(batch.items[refusal.index], refusal)
    for _ in range(told.rejected - len(told.errors)):
        summary.refuse("unlisted", "-", batch.items[0].line, "the server refused it without a reason")
    if told.last_position is not None:
        summary.last_position = max(summary.last_position, int(told.last_position.rpartition("@")[2]))


class Target(Struct, frozen=True, kw_only=True):
    """
    Where and how items are sent.

    Attributes:
        url: Address of the server.
        credentials: Who sends.
        parallel: Requests in flight.
        batch_size: Items per request.
        wire: How readings are written.
        patience_s: How long one request is tried [s].
    """

    url: str
    credentials: str | Login
    parallel: int = 4
    batch_size: int = 5_000
    wire: Wire = "auto"
    patience_s: float = 120.0


async def send_items(target: Target, items: Iterable[Item], summary: Summary) -> None:
    """
    Send *items* and count what becomes of them.

    Raises:
        Refused: Sending again would not help.
        GaveUp: No answer in time.
    """
    batches = (batch_of(chunk, target.wire) for chunk in chunks(items, target.batch_size))
    async with Sender(target.url, target.credentials, patience_s=target.patience_s) as sender:
        await send_all(sender, batches, summary, parallel=target.parallel, wire=target.wire)


async def send_all(
    sender: Sender, batches: Iterator[Batch], summary: Summary, *, parallel: int, wire: Wire = "auto"
) -> None:
    """
    Send *batches*, up to *parallel* at a time.

    Raises:
        Refused: Sending again would not help.
        GaveUp: No answer in time.
    """
    free = asyncio.Semaphore(parallel)

    async def one(batch: Batch) -> None:
        try:
            await sender.send(batch, summary, wire)
        finally:
            free.release()

    try:
        async with asyncio.TaskGroup() as group:
            for batch in batches:
                await free.acquire()
                group.create_task(one(batch))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
