"""Settings of meters, and what technicians did to them."""

from collections.abc import Container
from uuid import UUID

from msgspec import Struct

from smartgrid_commands.pipeline import Outcome, execute
from smartgrid_commands.ports import Effect, EventStore
from smartgrid_commands.sealing import Sealer
from smartgrid_domain.deciders.meter import METER, ConfigureMeter, ExchangeMeter, Meter, MeterEvent, ResetMeter
from smartgrid_schemas.envelope import Metadata, event_id_of
from smartgrid_schemas.metering import MeterExchanged, MeterReset


class DecisionFiled(Effect, frozen=True, kw_only=True):
    """
    An exchange or reset can be found by its id.

    Attributes:
        event_id: Its id.
        meter_id: Its meter.
        commit_id: Its commit, which tells the position.
    """

    event_id: UUID
    meter_id: str
    commit_id: UUID


class Decided(Struct, frozen=True, kw_only=True):
    """
    What became of an exchange or reset.

    Attributes:
        event_id: Its id.
        position: Its position.
        duplicate: It was recorded before.
    """

    event_id: UUID
    position: int
    duplicate: bool


async def configure_meter(  # noqa: PLR0913  # each is a separate decision of the caller
    command: ConfigureMeter,
    store: EventStore,
    *,
    sealer: Sealer | None,
    metadata: Metadata,
    commit_id: UUID,
    expected_versions: Container[int] | None = None,
) -> Outcome[MeterEvent, Meter]:
    """Change settings of a meter; arguments and errors are those of :func:`~smartgrid_commands.pipeline.execute`."""
    return await execute(
        store,
        METER,
        command.meter_id,
        command,
        metadata=metadata,
        commit_id=commit_id,
        sealer=sealer,
        expected_versions=expected_versions,
    )


async def decide_on_meter(
    command: ExchangeMeter | ResetMeter, store: EventStore, *, metadata: Metadata, commit_id: UUID
) -> Decided:
    """
    Record an exchange or a reset, once.

    Raises:
        NotFound: The meter was never seen.
        Conflict: ``meter_conflict``, something else is recorded at that time.
        Invalid: A value is out of its range.
    """
    event_id = event_id_of(f"{METER.subject}:{command.meter_id}", commit_id, 0)
    outcome = await execute(
        store,
        METER,
        command.meter_id,
        command,
        metadata=metadata,
        commit_id=commit_id,
        effects=lambda _: [DecisionFiled(event_id=event_id, meter_id=command.meter_id, commit_id=commit_id)],
    )
    if outcome.appended is not None:
        return Decided(event_id=event_id, position=outcome.appended.first_position, duplicate=False)
    first = next(
        recorded
        for recorded in reversed(outcome.history)
        if isinstance(recorded.event, MeterExchanged | MeterReset)
        and (recorded.event.register, recorded.event.at) == (command.register, command.at)
    )
    return Decided(event_id=first.event_id, position=first.position, duplicate=True)
