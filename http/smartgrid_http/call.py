"""One request on its way: what the front knows of it, for every handler behind."""

from collections.abc import Mapping
from typing import Any, cast

from smartgrid_http.limits import Limits
from smartgrid_http.policy import Access
from smartgrid_http.principal import Principal
from smartgrid_schemas.envelope import Metadata

KEY = "smartgrid.call"


class Call:
    """
    A request that the front let through.

    Attributes:
        request_id: Id of the request; correlation id of what it leads to.
        method: HTTP method.
        template: Path template of its route.
        access: Who may come here, and with what body.
        principal: Who asks; None on public routes without credentials.
        deadline: When the answer is due, on the monotonic clock [s].
        peer: Address of the client.
        limits: How much the client may send.
        idempotency_key: The header ``Idempotency-Key``, of good form.
        headers: Further headers that handlers look at, by lower-case name; the last one counts.
        reading: Whether the body is being read: a deadline that passes then is the client's.
    """

    __slots__ = (
        "access",
        "deadline",
        "headers",
        "idempotency_key",
        "limits",
        "method",
        "peer",
        "principal",
        "reading",
        "request_id",
        "template",
    )

    def __init__(  # noqa: PLR0913, PLR0917  # made in one place
        self,
        request_id: str,
        method: str,
        template: str,
        access: Access,
        peer: str,
        headers: dict[bytes, bytes],
        limits: Limits,
    ) -> None:
        self.request_id = request_id
        self.method = method
        self.template = template
        self.access = access
        self.peer = peer
        self.headers = headers
        self.limits = limits
        self.principal: Principal | None = None
        self.deadline = 0.0
        self.idempotency_key: str | None = None
        self.reading = False

    def header(self, name: bytes) -> str | None:
        """Return the header *name* (lower case) as text, None when it is absent."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


def call_of(scope: Mapping[str, Any]) -> Call:
    """Return what the front knows of the request in *scope*."""
    return cast("Call", scope[KEY])


def principal_of(scope: Mapping[str, Any]) -> Principal:
    """Return who asks; only for routes that are not public."""
    principal = call_of(scope).principal
    if principal is None:
        raise RuntimeError("a public route has no principal")  # a mistake of ours, never of a client
    return principal


def metadata_of(call: Call) -> Metadata:
    """Return what the events that *call* leads to say of it."""
    actor = call.principal.actor if call.principal is not None else None
    return Metadata(actor=actor, correlation_id=call.request_id)
