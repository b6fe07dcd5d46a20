"""What can be set from outside: environment variables that start with ``SMARTGRID_``, and nothing else."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

T = TypeVar("T")

PREFIX = "SMARTGRID_"
PORTS: Mapping[str, int] = {"gateway": 5000, "ingestion": 5001, "analytics": 5002, "notification": 5003, "users": 5004}
"""Where each service listens when it is served alone and ``SMARTGRID_PORT`` is unset."""
WORKER_PORT = 5010

LIMITS = (
    "header_bytes",
    "header_count",
    "uri_bytes",
    "body_s",
    "idle_s",
    "connections",
    "connections_per_address",
    "body_bytes",
    "auth_body_bytes",
    "batch_bytes",
    "batch_items",
    "import_bytes",
    "json_depth",
    "string_bytes",
    "in_flight",
    "streams",
    "quota_per_s",
    "quota_burst",
)
"""The limits that ``SMARTGRID_LIMIT_<NAME>`` changes."""


class BadSetting(Exception):
    """A setting that cannot be used; the text names it and says what it should look like."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name


class Settings(Struct, frozen=True, kw_only=True):
    """
    Every setting, checked.

    Attributes:
        home: State folder, absolute.
        host: Address to listen on.
        port: Port to listen on; None for the default of what is started.
        pg_url: PostgreSQL; None runs the embedded one.
        kafka: Bootstrap list, or the path of a librdkafka properties file.
        nats_url: NATS server.
        redis_url: Redis or Valkey server.
        profile: ``production`` refuses unsafe settings.
        bootstrap_ttl_s: Life of the bootstrap code [s].
        registration: Whether anyone may register as viewer.
        upstreams: Base URLs by service; the gateway proxies to these.
        breaker_open_s: How long a circuit stays open [s].
        retry_attempts: Attempts of the gateway in all.
        upstream_timeout_s: Time for one attempt [s].
        webhook_allow: Exceptions to the target rules, ``cidr:port``.
        notify_attempts: Attempts to deliver a notification.
        notify_retry_base_s: Base of the wait between them [s].
        smtp_url: Mail transport.
        sms_url: Transport of text messages.
        push_url: Transport of push messages.
        mail_from: Sender of mails.
        public_url: Address used in links.
        master_key: File of the key that wraps the data keys; None makes one in ``keys/``.
        pepper: File of the secret that passwords are peppered with; None makes one in ``keys/``.
        retention: What is kept how long, as given.
        drain_delay_s: How long a stopping server goes on as before [s].
        trusted_proxies: Networks whose forwarding headers count.
        hosts: Names accepted in ``Host``; None for the loopback names.
        cors_origins: Exact origins allowed.
        limits: Changed limits by name.
        jwt_keys: Folder of the signing keys; None for ``keys/``.
        metrics_port: Own listener of ``/metrics``.
        tz: Default zone of local days.
        price_eur_per_kwh: Flat price for ``cost_eur``.
        park_limit: Parked keys of a projection before it stops.
        failpoint: Test kit only.
    """

    home: Path = Path(".smartgrid")
    host: str = "127.0.0.1"
    port: int | None = None
    pg_url: str | None = None
    kafka: str | None = None
    nats_url: str | None = None
    redis_url: str | None = None
    profile: Literal["embedded", "production"] = "embedded"
    bootstrap_ttl_s: int = 900
    registration: Literal["open", "closed"] = "open"
    upstreams: Mapping[str, tuple[str, ...]] = {}
    breaker_open_s: float = 60.0
    retry_attempts: int = 3
    upstream_timeout_s: float = 5.0
    webhook_allow: tuple[str, ...] = ()
    notify_attempts: int = 12
    notify_retry_base_s: float = 5.0
    smtp_url: str | None = None
    sms_url: str | None = None
    push_url: str | None = None
    mail_from: str | None = None
    public_url: str | None = None
    master_key: Path | None = None
    pepper: Path | None = None
    retention: str | None = None
    drain_delay_s: float = 0.0
    trusted_proxies: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = None
    cors_origins: tuple[str, ...] = ()
    limits: Mapping[str, int] = {}
    jwt_keys: Path | None = None
    metrics_port: int | None = None
    tz: str = "Europe/Tirane"
    price_eur_per_kwh: float | None = None
    park_limit: int = 10_000
    failpoint: str | None = None

    @property
    def keys(self) -> Path:
        """Folder of the secrets made here."""
        return self.home / "keys"

    @property
    def logs(self) -> Path:
        """Folder of the log files."""
        return self.home / "logs"


def load(environ: Mapping[str, str]) -> Settings:
    """
    Return the settings in *environ*; an empty variable counts as unset.

    Raises:
        BadSetting: One is unknown, malformed, or refused by the profile.
    """
    given = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
    if unknown := sorted(given.keys() - READERS.keys()):
        raise BadSetting(unknown[0], "there is no such setting; docs/operations lists those there are")
    fields: dict[str, object] = {}
    for name, text in given.items():
        if not text:
            continue
        field, read = READERS[name]
        try:
            value = read(text)
        except (ValueError, OSError) as error:
            raise BadSetting(name, str(error)) from error
        group, _, key = field.partition(".")
        if key:
            fields[group] = {**_group(fields, group), key: value}
        else:
            fields[field] = value
    settings = Settings(**fields)  # type: ignore[arg-type]  # READERS gives each field its type; a test reads them all
    settings = replace(settings, home=settings.home.absolute())
    if settings.profile == "production":
        settings = _production(settings, given)
    return settings


def _group(fields: Mapping[str, object], name: str) -> dict[str, object]:
    found = fields.get(name)
    return dict(found) if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # our own dict of the lines above


def _production(settings: Settings, given: Mapping[str, str]) -> Settings:
    """Refuse what must not run in production, and close what is open by default."""
    missing = {
        "SMARTGRID_PG_URL": settings.pg_url,
        "SMARTGRID_JWT_KEYS": settings.jwt_keys,
        "SMARTGRID_MASTER_KEY": settings.master_key,
        "SMARTGRID_PEPPER": settings.pepper,
        "SMARTGRID_HOSTS": settings.hosts,
    }
    for name, value in missing.items():
        if value is None:
            raise BadSetting(name, "the production profile needs it")
    if settings.failpoint:
        raise BadSetting("SMARTGRID_FAILPOINT", "the production profile refuses failpoints")
    plain = {
        "SMARTGRID_PG_URL": _is_plain_postgres(settings.pg_url),
        "SMARTGRID_REDIS_URL": (settings.redis_url or "").startswith("redis:"),
        "SMARTGRID_NATS_URL": (settings.nats_url or "").startswith("nats:"),
    }
    for name, is_plain in plain.items():
        if is_plain:
            raise BadSetting(name, "the production profile refuses links without TLS")
    if not given.get("SMARTGRID_REGISTRATION"):
        settings = replace(settings, registration="closed")
    return settings


def _is_plain_postgres(url: str | None) -> bool:
    if url is None:
        return False
    query = parse_qs(urlsplit(url).query)
    local = (query.get("host") or [""])[0].startswith("/")
    return not local and (query.get("sslmode") or [""])[0] not in {"require", "verify-ca", "verify-full"}


def _text(text: str) -> str:
    if not text.isprintable():
        raise ValueError("printable text is needed")
    return text


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text) or not low <= float(text) <= high:
            raise ValueError(f"a number from {low:g} to {high:g} is needed")
        return float(text)

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high} is needed")
        return int(text)

    return read


def _one_of(*values: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in values:
            raise ValueError(f"one of {', '.join(values)} is needed")
        return text

    return read


def _url(*schemes: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        parts = urlsplit(_text(text))
        if parts.scheme not in schemes or not (parts.netloc or parts.query or parts.path):
            raise ValueError(f"a URL that starts with {' or '.join(f'{s}://' for s in schemes)} is needed")
        _ = parts.port  # raises ValueError for a port that is none
        return text

    return read


def _list(read: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    def read_all(text: str) -> tuple[T, ...]:
        return tuple(read(item.strip()) for item in text.split(",") if item.strip())

    return read_all


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text, strict=False))


def _target(text: str) -> str:
    network, _, port = text.rpartition(":")
    if port != "*":
        _whole(1, 65535)(port)
    return f"{ipaddress.ip_network(network.strip('[]'), strict=False)}:{port}"


def _origin(text: str) -> str:
    parts = urlsplit(_url("http", "https")(text))
    if parts.path or parts.query or parts.fragment:
        raise ValueError("an origin is needed: scheme, host and port only")
    return text


def _host(text: str) -> str:
    if not re.fullmatch(r"\*|[A-Za-z0-9._:\[\]-]{1,255}", text):
        raise ValueError("an address or host name is needed")
    return text


def _zone(text: str) -> str:
    try:
        return ZoneInfo(text).key
    except Exception as error:
        raise ValueError("a zone such as Europe/Tirane is needed") from error


def _existing(text: str) -> Path:
    path = Path(text).absolute()
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    return path


def _retention(text: str) -> str:
    for item in text.split(","):
        if not re.fullmatch(r"[a-z_]+=[0-9]{1,4}(d|mo|y)", item.strip()):
            raise ValueError("a list such as readings=13mo,hourly=37mo is needed")
    return text


def _failpoint(text: str) -> str:
    if not re.fullmatch(r"[a-z_]+:[0-9]{1,9}:(before|after):(die|raise|hang)", text):
        raise ValueError("<component>:<k>:<before|after>:<die|raise|hang> is needed")
    return text


_HOURS_S = 86_400.0
_port = _whole(1, 65535)

READERS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "SMARTGRID_HOME": ("home", lambda text: Path(_text(text))),
    "SMARTGRID_HOST": ("host", _host),
    "SMARTGRID_PORT": ("port", _port),
    "SMARTGRID_PG_URL": ("pg_url", _url("postgresql", "postgres")),
    "SMARTGRID_KAFKA": ("kafka", _text),
    "SMARTGRID_NATS_URL": ("nats_url", _url("nats", "tls")),
    "SMARTGRID_REDIS_URL": ("redis_url", _url("redis", "rediss", "unix")),
    "SMARTGRID_PROFILE": ("profile", _one_of("embedded", "production")),
    "SMARTGRID_BOOTSTRAP_TTL": ("bootstrap_ttl_s", _whole(1, 86_400)),
    "SMARTGRID_REGISTRATION": ("registration", _one_of("open", "closed")),
    **{
        f"SMARTGRID_UPSTREAM_{service.upper()}": (f"upstreams.{service}", _list(_url("http", "https")))
        for service in PORTS
        if service != "gateway"
    },
    "SMARTGRID_BREAKER_OPEN_S": ("breaker_open_s", _number(0.001, _HOURS_S)),
    "SMARTGRID_RETRY_ATTEMPTS": ("retry_attempts", _whole(1, 10)),
    "SMARTGRID_UPSTREAM_TIMEOUT_S": ("upstream_timeout_s", _number(0.001, 3600.0)),
    "SMARTGRID_WEBHOOK_ALLOW": ("webhook_allow", _list(_target)),
    "SMARTGRID_NOTIFY_ATTEMPTS": ("notify_attempts", _whole(1, 100)),
    "SMARTGRID_NOTIFY_RETRY_BASE_S": ("notify_retry_base_s", _number(0.001, 3600.0)),
    "SMARTGRID_SMTP_URL": ("smtp_url", _url("smtp", "smtps")),
    "SMARTGRID_SMS_URL": ("sms_url", _url("http", "https")),
    "SMARTGRID_PUSH_URL": ("push_url", _url("http", "https")),
    "SMARTGRID_MAIL_FROM": ("mail_from", _text),
    "SMARTGRID_PUBLIC_URL": ("public_url", _url("http", "https")),
    "SMARTGRID_MASTER_KEY": ("master_key", _existing),
    "SMARTGRID_PEPPER": ("pepper", _existing),
    "SMARTGRID_RETENTION": ("retention", _retention),
    "SMARTGRID_DRAIN_DELAY": ("drain_delay_s", _number(0.0, 3600.0)),
    "SMARTGRID_TRUSTED_PROXIES": ("trusted_proxies", _list(_network)),
    "SMARTGRID_HOSTS": ("hosts", _list(_host)),
    "SMARTGRID_CORS_ORIGINS": ("cors_origins", _list(_origin)),
    **{f"SMARTGRID_LIMIT_{name.upper()}": (f"limits.{name}", _whole(1, 10**12 - 1)) for name in LIMITS},
    "SMARTGRID_JWT_KEYS": ("jwt_keys", _existing),
    "SMARTGRID_METRICS_PORT": ("metrics_port", _port),
    "SMARTGRID_TZ": ("tz", _zone),
    "SMARTGRID_PRICE_EUR_PER_KWH": ("price_eur_per_kwh", _number(0.0, 1e6)),
    "SMARTGRID_PARK_LIMIT": ("park_limit", _whole(0, 10**9)),
    "SMARTGRID_FAILPOINT": ("failpoint", _failpoint),
}
"""Variable to field (``group.key`` for those of a kind) and how its text is read."""
