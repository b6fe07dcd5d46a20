"""Everything that handlers may call, in one place; ``ops`` fills it in."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from smartgrid_commands.idempotency import IdempotencyKeys
from smartgrid_commands.identity import Identity
from smartgrid_commands.importing import ImportRunner, Imports
from smartgrid_commands.ingestion import Ingestion
from smartgrid_commands.ports import Clock, EventStore, Ids
from smartgrid_commands.retracting import Facts
from smartgrid_commands.sealing import Sealer
from smartgrid_http.auth import Authenticator
from smartgrid_http.health import HealthBoard
from smartgrid_http.limits import DEFAULT_LIMITS, Limits
from smartgrid_http.metrics import Source
from smartgrid_http.pages import Cursors
from smartgrid_projections.ports import LogTimes, Standings
from smartgrid_projections.queries.audit import Chains
from smartgrid_projections.queries.events import Events
from smartgrid_projections.queries.meter_readings import Registers
from smartgrid_projections.queries.meters import Meters
from smartgrid_projections.queries.readings import Register
from smartgrid_projections.queries.receipts import Receipts
from smartgrid_projections.queries.sensors import Sensors
from smartgrid_projections.queries.standing import Waiting
from smartgrid_projections.queries.stats import StatsSource
from smartgrid_projections.queries.trends import TrendsSource
from smartgrid_projections.queries.users import Users
from smartgrid_projections.versions import Versions

T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class Services:
    """
    The ports behind the HTTP front. A port that is None belongs to a service that does not run here.

    Attributes:
        clock: Time.
        ids: Fresh ids.
        authenticator: Tokens to principals.
        store: The event store.
        times: Positions of the logs by time, and the other way round.
        events: The logs, event by event.
        chains: The hash chains of the logs.
        ingestion: Records readings.
        keys: Keeps answers by ``Idempotency-Key``.
        imports: Files of readings.
        runner: Records these files.
        sealer: Opens personal fields.
        facts: What ids of readings, exchanges and resets stand for.
        register: Raw readings.
        sensors: All sensors.
        meters: All meters.
        registers: Whole registers of meters.
        receipts: All that is stored, by id.
        cursors: Signed places in lists.
        identity: Accounts and sessions.
        users: Accounts as lists show them.
        waiting: Waits until projections come far enough.
        standings: How far projections are.
        versions: Versions of projections.
        stats: What statistics of sensors read.
        trends: What consumption trends read.
        tz: Default zone of local days.
        price_eur_per_kwh: Flat price [€], if one is set.
        health: What the probes answer.
        limits: How much a client may send.
        hosts: Names that the ``Host`` header may have, without port; None for any.
        metric_sources: What ``/metrics`` shows beside the requests; the application adds these.
        openapi: The OpenAPI document; the application sets it.
        log_error: Told of each mistake of ours, with the request's id.
    """

    clock: Clock
    ids: Ids
    authenticator: Authenticator
    store: EventStore | None = None
    times: LogTimes | None = None
    events: Events | None = None
    chains: Chains | None = None
    ingestion: Ingestion | None = None
    keys: IdempotencyKeys | None = None
    imports: Imports | None = None
    runner: ImportRunner | None = None
    sealer: Sealer | None = None
    facts: Facts | None = None
    register: Register | None = None
    sensors: Sensors | None = None
    meters: Meters | None = None
    registers: Registers | None = None
    receipts: Receipts | None = None
    cursors: Cursors | None = None
    identity: Identity | None = None
    users: Users | None = None
    waiting: Waiting | None = None
    standings: Standings | None = None
    versions: Versions | None = None
    stats: StatsSource | None = None
    trends: TrendsSource | None = None
    tz: str = "Europe/Tirane"
    price_eur_per_kwh: float | None = None
    health: HealthBoard = field(default_factory=HealthBoard)
    limits: Limits = DEFAULT_LIMITS
    hosts: frozenset[str] | None = None
    metric_sources: list[Source] = field(default_factory=list[Source])
    openapi: bytes = b"{}"
    log_error: Callable[[str, BaseException], None] = lambda _id, _error: None


def present(port: T | None) -> T:
    """Return *port*, which the wiring promised."""
    if port is None:
        raise RuntimeError("a port is missing from the services of this process")  # a mistake of ours
    return port
