"""
``Idempotency-Key``: the first answer again, however often a request comes.

Handlers of commands wrap what they do in :func:`once`; recording readings keeps its answer in the transaction of the
events instead (``smartgrid_http.hot.ingest``).
"""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from smartgrid_commands.idempotency import IdempotencyKeys, Kept, request_hash
from smartgrid_commands.ports import OutcomeUnknown, StoreUnavailable
from smartgrid_commands.reading_calls import Lease, LeaseLost
from smartgrid_domain.errors import Invalid, Rejected
from smartgrid_http.answers import Answer
from smartgrid_http.call import call_of, principal_of
from smartgrid_http.problems import Problem, problem_of, render

REPLAYED = (b"idempotency-replayed", b"true")
_KEPT_ERRORS = range(400, 500)


class _KeptAnswer(Struct, frozen=True, array_like=True):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODER = msgspec.msgpack.Decoder(_KeptAnswer)


async def claimed(keys: IdempotencyKeys | None, scope: Mapping[str, Any], body: bytes) -> Lease | Kept | None:
    """
    Return the right to answer the request in *scope*, the answer that it got before, or None for one without a key.

    Raises:
        Problem: 409 ``idempotency_in_progress``.
        Rejected: 422 ``idempotency_key_reused``.
    """
    call = call_of(scope)
    if call.idempotency_key is None:
        return None
    query: bytes = scope["query_string"]
    path = f"{scope['path']}?{query.decode('latin-1')}" if query else str(scope["path"])
    return await _claimed(keys, scope, request_hash(call.method, path, body))


async def _claimed(keys: IdempotencyKeys | None, scope: Mapping[str, Any], request: bytes) -> Lease | Kept | None:
    call = call_of(scope)
    if call.idempotency_key is None or keys is None or call.principal is None:
        return None
    try:
        return await keys.claim(principal_of(scope).actor, call.idempotency_key, request)
    except Rejected as error:
        if error.code == "idempotency_in_progress":
            raise in_progress() from error
        raise


def in_progress() -> Problem:
    """Return the problem of a request whose first copy is being answered."""
    detail = "The first request with this Idempotency-Key is being answered; repeat it soon"
    return Problem(409, "idempotency_in_progress", detail, headers={"Retry-After": "1"})


@contextlib.asynccontextmanager
async def held(keys: IdempotencyKeys | None, lease: Lease | None) -> AsyncGenerator[None, None]:
    """
    Give *lease* back when what is done inside ends without an answer that counts.

    After an unknown outcome it is held until it ends by itself: the answer may be there already.
    """
    try:
        yield
    except LeaseLost as error:
        raise in_progress() from error
    except OutcomeUnknown:
        raise
    except Exception:
        if lease is not None and keys is not None:
            with contextlib.suppress(StoreUnavailable):
                await keys.release(lease)
        raise


async def once(
    keys: IdempotencyKeys | None,
    scope: Mapping[str, Any],
    body: bytes,
    run: Callable[[], Awaitable[Answer]],
) -> Answer:
    """
    Return what *run* answers, or what it answered to the first request with this key.

    2xx and refusals after validation are kept; refused input, failures and unavailability are not.

    Args:
        keys: Where answers are kept; None keeps none.
        scope: The request.
        body: Its body as sent.
        run: Does the work; called at most once.
    """
    query: bytes = scope["query_string"]
    path = f"{scope['path']}?{query.decode('latin-1')}" if query else str(scope["path"])
    return await once_of(keys, scope, request_hash(call_of(scope).method, path, body), run)


async def once_of(
    keys: IdempotencyKeys | None, scope: Mapping[str, Any], request: bytes, run: Callable[[], Awaitable[Answer]]
) -> Answer:
    """Do what :func:`once` does, of a request whose hash *request* is known."""
    claim = await _claimed(keys, scope, request)
    if isinstance(claim, Kept):
        kept = _DECODER.decode(claim.answer)
        return Answer(kept.status, kept.body, [*kept.headers, REPLAYED])
    async with held(keys, claim):
        try:
            answer = await run()
        except (Rejected, Problem) as error:
            problem = problem_of(error)
            if claim is None or keys is None or problem is None or not _counts(error, problem):
                raise
            answer = render(problem, call_of(scope).request_id)
        if claim is not None and keys is not None:
            await keys.keep(claim, _ENCODE(_KeptAnswer(answer.status, answer.headers, answer.body)))
        return answer


def _counts(error: Exception, problem: Problem) -> bool:
    validation = isinstance(error, Invalid) or problem.status in (400, 429)
    return problem.status in _KEPT_ERRORS and not validation
