"""What a test sent and what was answered, beside what the tables of a product hold."""

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal

import psycopg
from msgspec import Struct, field

from smartgrid_adapters.postgres.codec import decode
from smartgrid_domain.maths.columns import unpack
from smartgrid_schemas.telemetry import ReadingsRecorded

Key = tuple[str, int]  # sensor, microseconds since 1970

REGISTER = """
SELECT s.subject_id, (extract(epoch FROM r.measured_at) * 1000000)::bigint, r.mantissa, r.exponent
FROM reading_register r JOIN series s USING (series_id)
"""
LOG = "SELECT topic, state FROM telemetry_events WHERE topic LIKE 'telemetry.readings-recorded%' ORDER BY 1"
ROLLUPS = """
SELECT s.subject_id, extract(epoch FROM r.bucket_start)::bigint, r.n, r.s
FROM rollups_v1 r JOIN series s USING (series_id) WHERE r.level = 0 AND r.n > 0
"""
DURABILITY = """
SELECT current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes')
"""
QUARTER_S = 900
MILLIVOLTS = 1000


class Ledger(Struct):
    """
    The client's book.

    Attributes:
        sent: Value of each reading that went out, whatever became of it.
        answered: Readings whose answer was 2xx.
    """

    sent: dict[Key, Decimal] = field(default_factory=dict[Key, Decimal])
    answered: set[Key] = field(default_factory=set[Key])


class Stored(Struct, frozen=True):
    """
    What the tables hold.

    Attributes:
        register: Value of each reading.
        in_register: How often each stands there.
        in_log: How often each stands in the log.
        log: Value of each reading in the log.
        rollups: (n, sum in mV) by sensor and start of the quarter of an hour [s].
    """

    register: dict[Key, Decimal]
    in_register: Counter[Key]
    in_log: Counter[Key]
    log: dict[Key, Decimal]
    rollups: dict[tuple[str, int], tuple[int, int]]


def stored(url: str) -> Stored:
    """Read all of it in one transaction."""
    register: dict[Key, Decimal] = {}
    in_register: Counter[Key] = Counter()
    in_log: Counter[Key] = Counter()
    log: dict[Key, Decimal] = {}
    with psycopg.connect(url) as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for sensor, at, mantissa, exponent in conn.execute(REGISTER).fetchall():
            in_register[sensor, at] += 1
            register[sensor, at] = Decimal(mantissa).scaleb(exponent)
        for topic, state in conn.execute(LOG).fetchall():
            event = decode(topic, state)
            assert isinstance(event, ReadingsRecorded)
            rows = unpack(event)
            for which, at, mantissa, exponent in zip(
                rows.series_index.tolist(),
                rows.measured_at_us.tolist(),
                rows.mantissa.tolist(),
                rows.exponent.tolist(),
                strict=True,
            ):
                key = (event.series[int(which)].sensor_id, int(at))
                in_log[key] += 1
                log[key] = Decimal(mantissa).scaleb(exponent)
        rollups = {(sensor, start): (n, int(s)) for sensor, start, n, s in conn.execute(ROLLUPS).fetchall()}
    return Stored(register, in_register, in_log, log, rollups)


def check(ledger: Ledger, found: Stored) -> None:
    """Assert: what was answered is there once, what was not sent is not there, and rollups equal the readings."""
    assert ledger.answered <= set(found.in_register), "answered and lost"
    assert set(found.in_register) <= set(ledger.sent), "stored and never sent"
    assert found.in_log == found.in_register, "log and register differ"
    assert not found.in_log or max(found.in_log.values()) == 1, "stored twice"
    assert all(ledger.sent[key] == value for key, value in found.register.items()), "another value than was sent"
    assert found.log == found.register, "log and register differ in a value"
    assert found.rollups == folded(found.register.items()), "rollups differ from the readings"


def folded(readings: Iterable[tuple[Key, Decimal]]) -> dict[tuple[str, int], tuple[int, int]]:
    """Return count and sum [mV] by sensor and quarter of an hour."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for (sensor, at), value in readings:
        bucket = (sensor, at // (QUARTER_S * 1_000_000) * QUARTER_S)
        n, total = found.get(bucket, (0, 0))
        found[bucket] = (n + 1, total + int(value * MILLIVOLTS))
    return found
