"""Load, decide, append: once for all commands of deciders."""

from collections.abc import Callable, Container, Sequence
from functools import reduce
from typing import Generic, TypeVar, cast
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from smartgrid_commands.ports import Appended, Effect, EventStore, StreamWrite, WrongExpectedVersion
from smartgrid_commands.sealing import Sealer
from smartgrid_domain.decider import Decider
from smartgrid_domain.errors import Conflict
from smartgrid_schemas.envelope import Metadata, Recorded
from smartgrid_schemas.event import Event, Sealed
from smartgrid_schemas.privacy import personal_fields

ATTEMPTS = 4
"""The first and at most 3 retries."""

C = TypeVar("C")
E = TypeVar("E", bound=Event)
S = TypeVar("S")


class Outcome(Struct, Generic[E, S], frozen=True, kw_only=True):
    """
    What became of a command.

    Attributes:
        state: The state after it.
        history: The events before it, with their places in the log.
        events: The new events; none when it changed nothing.
        appended: Where they went; null when it changed nothing.
    """

    state: S
    history: Sequence[Recorded[E]]
    events: tuple[E, ...]
    appended: Appended | None

    @property
    def version(self) -> int:
        """The version of the stream after the command."""
        return len(self.history) + len(self.events)


async def execute(  # noqa: PLR0913  # each is a separate decision of the caller
    store: EventStore,
    decider: Decider[C, E, S],
    key: str,
    command: C,
    *,
    metadata: Metadata,
    commit_id: UUID,
    sealer: Sealer | None = None,
    expected_versions: Container[int] | None = None,
    effects: Callable[[tuple[E, ...]], Sequence[Effect]] | None = None,
) -> Outcome[E, S]:
    """
    Carry out *command* on the aggregate *key*.

    Args:
        store: Where its events are.
        decider: How it decides.
        key: Which aggregate; its stream is ``<subject>:<key>``.
        command: The wish.
        metadata: Who and what caused it.
        commit_id: A repeat with the same one is answered with the first result.
        sealer: Opens the personal fields that the decision looks at.
        expected_versions: Versions of the stream, one of which the caller has seen, when that matters.
        effects: Rows to write in the same transaction as the events.

    Raises:
        Rejected: The decision, or ``version_conflict``, or ``etag_mismatch`` against *expected_versions*.
        EffectRefused: A row of *effects* was refused; nothing was stored.
        StoreUnavailable: Nothing was stored.
        OutcomeUnknown: Repeat it.
    """
    stream = f"{decider.subject}:{key}"
    for _ in range(ATTEMPTS):
        # A stream is written through its decider only, so its events are E.
        history = cast("Sequence[Recorded[E]]", await store.read_stream(decider.log, stream))
        state = reduce(decider.evolve, [await opened(recorded, sealer) for recorded in history], decider.initial())
        events = decider.decide(state, command)
        if expected_versions is not None and len(history) not in expected_versions:
            raise Conflict("etag_mismatch", f"It is at version {len(history)} by now; read it again")
        if not events:
            return Outcome(state=state, history=history, events=(), appended=None)
        write = StreamWrite(stream=stream, events=events, expected_version=len(history), metadata=metadata)
        try:
            appended = await store.append(
                decider.log, [write], commit_id=commit_id, effects=effects(events) if effects else ()
            )
        except WrongExpectedVersion:
            continue
        return Outcome(state=reduce(decider.evolve, events, state), history=history, events=events, appended=appended)
    raise Conflict("version_conflict", f"{stream} changed {ATTEMPTS} times meanwhile; try again")


async def opened(recorded: Recorded[E], sealer: Sealer | None) -> E:
    """
    Return the event of *recorded* with its personal fields in clear; those whose key is destroyed stay sealed.

    Raises:
        DamagedSeal: A field is not what was sealed.
    """
    event = recorded.event
    clear: dict[str, str] = {}
    for field in personal_fields(type(event)) if sealer is not None else ():
        value: object = getattr(event, field)
        if isinstance(value, Sealed) and sealer is not None:
            text = await sealer.open(
                value, name=recorded.name, stream=recorded.stream, event_id=recorded.event_id, field=field
            )
            if text is not None:
                clear[field] = text
    return replace(event, **clear) if clear else event
