"""Settings of sensors."""

from collections.abc import Container
from uuid import UUID

from smartgrid_commands.pipeline import Outcome, execute
from smartgrid_commands.ports import EventStore
from smartgrid_domain.deciders.sensor import SENSOR, ConfigureSensor, Sensor, SensorEvent
from smartgrid_schemas.envelope import Metadata


async def configure_sensor(
    command: ConfigureSensor,
    store: EventStore,
    *,
    metadata: Metadata,
    commit_id: UUID,
    expected_versions: Container[int] | None = None,
) -> Outcome[SensorEvent, Sensor]:
    """Change settings of a sensor; arguments and errors are those of :func:`~smartgrid_commands.pipeline.execute`."""
    return await execute(
        store,
        SENSOR,
        command.sensor_id,
        command,
        metadata=metadata,
        commit_id=commit_id,
        expected_versions=expected_versions,
    )
