"""Every setting of the contract is read, and nothing else is."""

from pathlib import Path

import pytest

from smartgrid_ops.settings import LIMITS, READERS, BadSetting, Settings, load

GIVEN = {
    "SMARTGRID_HOME": ("/srv/grid", "home", Path("/srv/grid")),
    "SMARTGRID_HOST": ("0.0.0.0", "host", "0.0.0.0"),  # noqa: S104 - a value to read
    "SMARTGRID_PORT": ("5055", "port", 5055),
    "SMARTGRID_PG_URL": (
        "postgresql://u@db/grid?sslmode=verify-full",
        "pg_url",
        "postgresql://u@db/grid?sslmode=verify-full",
    ),
    "SMARTGRID_KAFKA": ("k1:9092,k2:9092", "kafka", "k1:9092,k2:9092"),
    "SMARTGRID_NATS_URL": ("tls://n:4222", "nats_url", "tls://n:4222"),
    "SMARTGRID_REDIS_URL": ("rediss://r:6379/0", "redis_url", "rediss://r:6379/0"),
    "SMARTGRID_PROFILE": ("embedded", "profile", "embedded"),
    "SMARTGRID_BOOTSTRAP_TTL": ("60", "bootstrap_ttl_s", 60),
    "SMARTGRID_REGISTRATION": ("closed", "registration", "closed"),
    "SMARTGRID_UPSTREAM_INGESTION": ("http://a:1,http://b:2", "upstreams", {"ingestion": ("http://a:1", "http://b:2")}),
    "SMARTGRID_UPSTREAM_ANALYTICS": ("http://a:1", "upstreams", {"analytics": ("http://a:1",)}),
    "SMARTGRID_UPSTREAM_NOTIFICATION": ("http://a:1", "upstreams", {"notification": ("http://a:1",)}),
    "SMARTGRID_UPSTREAM_USERS": ("http://a:1", "upstreams", {"users": ("http://a:1",)}),
    "SMARTGRID_BREAKER_OPEN_S": ("0.5", "breaker_open_s", 0.5),
    "SMARTGRID_RETRY_ATTEMPTS": ("1", "retry_attempts", 1),
    "SMARTGRID_UPSTREAM_TIMEOUT_S": ("2", "upstream_timeout_s", 2.0),
    "SMARTGRID_WEBHOOK_ALLOW": ("127.0.0.0/8:*,::1/128:8080", "webhook_allow", ("127.0.0.0/8:*", "::1/128:8080")),
    "SMARTGRID_NOTIFY_ATTEMPTS": ("2", "notify_attempts", 2),
    "SMARTGRID_NOTIFY_RETRY_BASE_S": ("0.1", "notify_retry_base_s", 0.1),
    "SMARTGRID_SMTP_URL": ("smtp://m:25", "smtp_url", "smtp://m:25"),
    "SMARTGRID_SMS_URL": ("https://sms", "sms_url", "https://sms"),
    "SMARTGRID_PUSH_URL": ("https://push", "push_url", "https://push"),
    "SMARTGRID_MAIL_FROM": ("grid@example.com", "mail_from", "grid@example.com"),
    "SMARTGRID_PUBLIC_URL": ("https://grid.example.com", "public_url", "https://grid.example.com"),
    "SMARTGRID_MASTER_KEY": ("/dev/null", "master_key", Path("/dev/null")),
    "SMARTGRID_PEPPER": ("/dev/null", "pepper", Path("/dev/null")),
    "SMARTGRID_RETENTION": ("readings=13mo,hourly=37mo", "retention", "readings=13mo,hourly=37mo"),
    "SMARTGRID_DRAIN_DELAY": ("10", "drain_delay_s", 10.0),
    "SMARTGRID_TRUSTED_PROXIES": ("10.0.0.0/8", "trusted_proxies", ("10.0.0.0/8",)),
    "SMARTGRID_HOSTS": ("grid.example.com,localhost:5000", "hosts", ("grid.example.com", "localhost:5000")),
    "SMARTGRID_CORS_ORIGINS": ("https://a.example", "cors_origins", ("https://a.example",)),
    **{f"SMARTGRID_LIMIT_{name.upper()}": ("7", "limits", {name: 7}) for name in LIMITS},
    "SMARTGRID_JWT_KEYS": ("/", "jwt_keys", Path("/")),
    "SMARTGRID_METRICS_PORT": ("9100", "metrics_port", 9100),
    "SMARTGRID_TZ": ("UTC", "tz", "UTC"),
    "SMARTGRID_PRICE_EUR_PER_KWH": ("0.095", "price_eur_per_kwh", 0.095),
    "SMARTGRID_PARK_LIMIT": ("0", "park_limit", 0),
    "SMARTGRID_FAILPOINT": ("ingestion:3:after:die", "failpoint", "ingestion:3:after:die"),
}
PRODUCTION = {
    "SMARTGRID_PROFILE": "production",
    "SMARTGRID_PG_URL": "postgresql://u@db/grid?sslmode=verify-full",
    "SMARTGRID_JWT_KEYS": "/",
    "SMARTGRID_MASTER_KEY": "/dev/null",
    "SMARTGRID_PEPPER": "/dev/null",
    "SMARTGRID_HOSTS": "grid.example.com",
}


def test_every_setting_of_the_contract_is_known() -> None:
    assert READERS.keys() == GIVEN.keys()


@pytest.mark.parametrize("name", GIVEN)
def test_a_setting_arrives_in_its_field(name: str) -> None:
    text, field, expected = GIVEN[name]

    assert getattr(load({name: text}), field) == expected


def test_nothing_set_gives_the_defaults_with_an_absolute_home() -> None:
    settings = load({"PATH": "/bin"})

    assert settings.home == Path.cwd() / ".smartgrid"
    assert settings.port is None
    assert settings.registration == "open"


def test_an_empty_variable_counts_as_unset() -> None:
    assert load({"SMARTGRID_PG_URL": "", "SMARTGRID_PORT": ""}).pg_url is None


def test_several_upstreams_and_limits_live_side_by_side() -> None:
    settings = load(
        {
            "SMARTGRID_UPSTREAM_USERS": "http://u:1",
            "SMARTGRID_UPSTREAM_ANALYTICS": "http://a:1",
            "SMARTGRID_LIMIT_BODY_S": "3",
            "SMARTGRID_LIMIT_STREAMS": "4",
        }
    )

    assert settings.upstreams == {"users": ("http://u:1",), "analytics": ("http://a:1",)}
    assert settings.limits == {"body_s": 3, "streams": 4}


@pytest.mark.parametrize(
    "name", ["SMARTGRID_COLOUR", "SMARTGRID_LIMIT_COLOUR", "SMARTGRID_", "SMARTGRID_UPSTREAM_GATEWAY"]
)
def test_an_unknown_setting_is_refused_by_name(name: str) -> None:
    with pytest.raises(BadSetting, match=f"^{name}: "):
        load({name: "1"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SMARTGRID_PORT", "0"),
        ("SMARTGRID_PORT", "65536"),
        ("SMARTGRID_PORT", "80a"),
        ("SMARTGRID_PORT", "5000\n"),
        ("SMARTGRID_PORT", "\u0665\u0660\u0660\u0660"),
        ("SMARTGRID_PG_URL", "mysql://u@db/grid"),
        ("SMARTGRID_PG_URL", "postgresql://u@db:port/grid"),
        ("SMARTGRID_PROFILE", "test"),
        ("SMARTGRID_REGISTRATION", "yes"),
        ("SMARTGRID_DRAIN_DELAY", "-1"),
        ("SMARTGRID_DRAIN_DELAY", "nan"),
        ("SMARTGRID_DRAIN_DELAY", "inf"),
        ("SMARTGRID_TZ", "Mars/Olympus"),
        ("SMARTGRID_TZ", "../../etc/passwd"),
        ("SMARTGRID_TRUSTED_PROXIES", "proxy.example"),
        ("SMARTGRID_CORS_ORIGINS", "*"),
        ("SMARTGRID_CORS_ORIGINS", "https://a.example/path"),
        ("SMARTGRID_MASTER_KEY", "/nowhere/key"),
        ("SMARTGRID_RETENTION", "forever"),
        ("SMARTGRID_FAILPOINT", "ingestion"),
        ("SMARTGRID_LIMIT_BODY_BYTES", "0"),
        ("SMARTGRID_WEBHOOK_ALLOW", "10.0.0.1"),
    ],
)
def test_a_malformed_setting_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(BadSetting, match=f"^{name}: "):
        load({name: text})


def test_production_is_closed_by_default_and_open_on_request() -> None:
    assert load(PRODUCTION).registration == "closed"
    assert load({**PRODUCTION, "SMARTGRID_REGISTRATION": "open"}).registration == "open"


@pytest.mark.parametrize("name", sorted(PRODUCTION.keys() - {"SMARTGRID_PROFILE"}))
def test_production_refuses_to_start_without(name: str) -> None:
    with pytest.raises(BadSetting, match=f"^{name}: "):
        load({key: value for key, value in PRODUCTION.items() if key != name})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SMARTGRID_PG_URL", "postgresql://u@db/grid"),
        ("SMARTGRID_PG_URL", "postgresql://u@db/grid?sslmode=prefer"),
        ("SMARTGRID_REDIS_URL", "redis://r:6379"),
        ("SMARTGRID_NATS_URL", "nats://n:4222"),
        ("SMARTGRID_FAILPOINT", "ingestion:3:after:die"),
    ],
)
def test_production_refuses(name: str, text: str) -> None:
    with pytest.raises(BadSetting, match=f"^{name}: "):
        load({**PRODUCTION, name: text})


def test_every_field_can_be_set() -> None:
    reached = {field.partition(".")[0] for field, _ in READERS.values()}

    assert reached == set(Settings.__struct_fields__)
