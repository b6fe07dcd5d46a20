"""Credentials of a request."""

from typing import Protocol, runtime_checkable

from smartgrid_http.principal import Principal
from smartgrid_http.problems import Problem

BEARER = b"bearer "
MAX_TOKEN_BYTES = 4096


@runtime_checkable
class Authenticator(Protocol):
    """
    Turns access tokens into principals.

    Guarantees:
        A token whose session ended, whose user changed or who is past its end is refused within 1 s.
    """

    def known(self, token: bytes) -> Principal | None:
        """Return the principal of a token that was verified before and whose session was looked up within 1 s."""
        ...

    async def verify(self, token: bytes, *, strict: bool) -> Principal:
        """
        Return the principal of *token*.

        Args:
            token: As sent.
            strict: Whether to refuse when no session source answers.

        Raises:
            Rejected: ``unauthenticated``, ``token_expired`` or ``token_revoked``.
            StoreUnavailable: *strict*, and nobody can tell whether the session lives.
        """
        ...


def bearer(authorization: bytes | None, api_key: bytes | None) -> bytes | None:
    """
    Return the access token of a request, None when it has no credentials.

    Raises:
        Problem: 400 ``ambiguous_credentials``, 401 for credentials of another kind.
    """
    if authorization is None:
        if api_key is None:
            return None
        raise unauthenticated("Unknown API key")
    if api_key is not None:
        raise ambiguous()
    if authorization[:7].lower() != BEARER:
        raise unauthenticated("Send the token as Authorization: Bearer <token>")
    token = authorization[7:]
    if len(token) > MAX_TOKEN_BYTES:
        raise unauthenticated("The token is invalid")
    return token


def ambiguous() -> Problem:
    """Return the problem of a request with more than one set of credentials."""
    return Problem(400, "ambiguous_credentials", "Send one Authorization header or one X-API-Key header")


def unauthenticated(detail: str = "Sign in first: send Authorization: Bearer <token>") -> Problem:
    """Return the problem of a request without good credentials."""
    return Problem(401, "unauthenticated", detail)
