"""
Who may call what: the one table, read by the front before any handler runs.

A handler without a row here stops start-up. A row says the least role, whether a device may come too, and which body
the route takes. Object rules (own meters, own sensors) are the handlers' own.
"""

from typing import Literal

from msgspec import Struct

from smartgrid_http.principal import Principal

Least = Literal["public", "optional", "token", "viewer", "analyst", "operator", "admin", "loopback"]
Body = Literal["none", "json", "optional", "auth", "batch", "import"]
Service = Literal["gateway", "ingestion", "analytics", "notification", "users"]

JSON = "application/json"
NDJSON = "application/x-ndjson"
CSV = "text/csv"
COLUMNS = "application/vnd.smartgrid.columns+msgpack"
MEDIA: dict[Body, tuple[str, ...]] = {
    "none": (),
    "json": (JSON,),
    "optional": (JSON,),
    "auth": (JSON,),
    "batch": (JSON, NDJSON, CSV, COLUMNS),
    "import": (NDJSON, CSV),
}


class Access(Struct, frozen=True, kw_only=True):
    """
    One row of the table.

    Attributes:
        least: ``public``; ``optional`` (public, but credentials that are given must be good); ``token`` (any user's);
            a least role; ``loopback`` (peers on this machine only).
        service: Which service owns the route.
        device: Whether a device key may come too.
        body: What body the route takes: ``auth`` is a small JSON one, ``optional`` a JSON one or none.
        strict: Whether the session must have been looked up: these routes fail closed when no session source answers.
    """

    least: Least
    service: Service
    device: bool = False
    body: Body = "none"
    strict: bool = False

    def allows(self, principal: Principal) -> bool:
        """Return whether *principal* may come here at all."""
        if principal.kind == "key":
            return self.device
        match self.least:
            case "public" | "optional" | "token" | "loopback":
                return True
            case role:
                return principal.at_least(role)


def _public(service: Service = "gateway", body: Body = "none") -> Access:
    return Access(least="public", service=service, body=body)


POLICY: dict[tuple[str, str], Access] = {
    # gateway
    ("GET", "/health"): _public(),
    ("GET", "/health/live"): _public(),
    ("GET", "/health/ready"): _public(),
    ("GET", "/metrics"): Access(least="loopback", service="gateway"),
    ("GET", "/api/test"): _public(),
    ("GET", "/api/v1/openapi.json"): _public(),
    ("GET", "/api/v1/schemas"): Access(least="viewer", service="gateway"),
    ("GET", "/api/v1/schemas/{event_name}"): Access(least="viewer", service="gateway"),
    # ingestion
    ("POST", "/api/v1/ingest/sensor"): Access(least="operator", device=True, service="ingestion", body="json"),
    ("POST", "/api/v1/ingest/meter"): Access(least="operator", device=True, service="ingestion", body="json"),
    ("POST", "/api/v1/ingest/batch"): Access(least="operator", device=True, service="ingestion", body="batch"),
    ("POST", "/api/v1/imports"): Access(least="operator", service="ingestion", body="import"),
    ("GET", "/api/v1/imports/{import_id}"): Access(least="operator", service="ingestion"),
    ("GET", "/api/v1/receipts/{event_id}"): Access(least="viewer", device=True, service="ingestion"),
    ("GET", "/api/v1/readings"): Access(least="viewer", service="ingestion"),
    ("POST", "/api/v1/readings/{event_id}/retract"): Access(least="operator", service="ingestion", body="json"),
    ("GET", "/api/v1/sensors"): Access(least="viewer", service="ingestion"),
    ("GET", "/api/v1/sensors/{sensor_id}"): Access(least="viewer", service="ingestion"),
    ("PUT", "/api/v1/sensors/{sensor_id}"): Access(least="operator", service="ingestion", body="json"),
    ("GET", "/api/v1/sensors/{sensor_id}/latest"): Access(least="viewer", service="ingestion"),
    ("GET", "/api/v1/meters"): Access(least="viewer", service="ingestion"),
    ("GET", "/api/v1/meters/{meter_id}"): Access(least="viewer", service="ingestion"),
    ("PUT", "/api/v1/meters/{meter_id}"): Access(least="operator", service="ingestion", body="json"),
    ("GET", "/api/v1/meters/{meter_id}/latest"): Access(least="viewer", service="ingestion"),
    ("GET", "/api/v1/meters/{meter_id}/readings"): Access(least="viewer", service="ingestion"),
    ("POST", "/api/v1/meters/{meter_id}/exchange"): Access(least="operator", service="ingestion", body="json"),
    ("POST", "/api/v1/meters/{meter_id}/reset"): Access(least="operator", service="ingestion", body="json"),
    # analytics
    ("GET", "/api/v1/analytics/sensor/stats"): Access(least="viewer", service="analytics"),
    ("GET", "/api/v1/analytics/consumption/trends"): Access(least="viewer", service="analytics"),
    # users
    ("POST", "/api/v1/auth/bootstrap"): _public("users", "auth"),
    ("POST", "/api/v1/auth/register"): Access(least="optional", service="users", body="auth", strict=True),
    ("POST", "/api/v1/auth/login"): _public("users", "auth"),
    ("GET", "/api/v1/auth/verify"): Access(least="token", service="users"),
    ("POST", "/api/v1/auth/logout"): Access(least="token", service="users", body="optional"),
    ("GET", "/api/v1/auth/jwks"): _public("users"),
    ("GET", "/api/v1/users/me"): Access(least="token", service="users"),
    ("GET", "/api/v1/users"): Access(least="admin", service="users", strict=True),
    ("GET", "/api/v1/admin/events"): Access(least="admin", service="users", strict=True),
    ("POST", "/api/v1/admin/audit/verify"): Access(least="admin", service="users", body="json", strict=True),
    ("GET", "/api/v1/admin/projections"): Access(least="admin", service="users", strict=True),
    ("GET", "/api/v1/admin/projections/{name}"): Access(least="admin", service="users", strict=True),
    ("POST", "/api/v1/admin/projections/{name}/rebuild"): Access(
        least="admin", service="users", body="optional", strict=True
    ),
    ("GET", "/api/v1/admin/projections/{name}/rebuilds/{rebuild_id}"): Access(
        least="admin", service="users", strict=True
    ),
    ("GET", "/api/v1/admin/projections/{name}/rebuilds/{rebuild_id}/diff"): Access(
        least="admin", service="users", strict=True
    ),
    ("POST", "/api/v1/admin/projections/{name}/switch"): Access(
        least="admin", service="users", body="json", strict=True
    ),
    ("POST", "/api/v1/admin/projections/{name}/abort"): Access(
        least="admin", service="users", body="json", strict=True
    ),
    ("POST", "/api/v1/admin/projections/{name}/rollback"): Access(
        least="admin", service="users", body="optional", strict=True
    ),
    ("POST", "/api/v1/admin/projections/{name}/pause"): Access(
        least="admin", service="users", body="optional", strict=True
    ),
    ("POST", "/api/v1/admin/projections/{name}/resume"): Access(
        least="admin", service="users", body="optional", strict=True
    ),
}
"""Method and path template to access. Parameters are ``{name}``, each one path segment."""
