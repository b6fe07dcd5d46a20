"""How much of anything a client may send (``SMARTGRID_LIMIT_*``)."""

from msgspec import Struct

from smartgrid_domain.strict_json import JsonLimits
from smartgrid_http.policy import Body


class Limits(Struct, frozen=True, kw_only=True):
    """
    The limits of the HTTP front; each field is a setting ``SMARTGRID_LIMIT_<FIELD>``.

    Attributes:
        header_bytes: Header block [bytes].
        header_count: Number of headers.
        uri_bytes: Path with query [bytes].
        body_s: Time for a body [s].
        idle_s: Longest pause of an upload or an export [s].
        body_bytes: Body by default [bytes].
        auth_body_bytes: Body of the routes that take secrets [bytes].
        batch_bytes: Body of a batch [bytes].
        batch_items: Items of a batch.
        import_bytes: Body of an import [bytes], streamed.
        json_depth: Nesting of arrays and objects.
        string_bytes: One string in JSON [bytes].
        in_flight: Requests of one service that are worked on at a time.
        deadline_s: Time for a request [s]; ``Deadline-Ms`` shortens it.
    """

    header_bytes: int = 16 * 1024
    header_count: int = 64
    uri_bytes: int = 8 * 1024
    body_s: float = 10.0
    idle_s: float = 30.0
    body_bytes: int = 1024 * 1024
    auth_body_bytes: int = 16 * 1024
    batch_bytes: int = 5 * 1024 * 1024
    batch_items: int = 10_000
    import_bytes: int = 64 * 1024 * 1024
    json_depth: int = 32
    string_bytes: int = 64 * 1024
    in_flight: int = 128
    deadline_s: float = 10.0

    def bytes_of(self, body: Body) -> int:
        """Return how long a body of this kind may be [bytes]."""
        match body:
            case "auth" | "optional":
                return self.auth_body_bytes
            case "batch":
                return self.batch_bytes
            case "import":
                return self.import_bytes
            case "json" | "none":
                return self.body_bytes

    def json(self) -> JsonLimits:
        """Return the limits inside a JSON document."""
        return JsonLimits(depth=self.json_depth, string_bytes=self.string_bytes)


DEFAULT_LIMITS = Limits()
