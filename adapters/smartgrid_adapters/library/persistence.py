"""
The ``eventsourcing`` library on our logs: ``PERSISTENCE_MODULE=smartgrid_adapters.library.persistence``.

Settings are those of the library's own PostgreSQL module, and ``SMARTGRID_LOG``: one of the three logs. Its events
get the guarantees of ours: positions without gaps in the order of commits, a hash chain, no change ever, and an exact
answer when the connection breaks around a commit. Snapshots and tracking are no facts; they stay in the library's own
tables.

A log that also holds events of other names than those of ``smartgrid_schemas`` stops the projections that read it, so
an application with event classes of its own takes a database of its own.
"""

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID, uuid4

import eventsourcing.postgres as stock
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InterfaceError,
    Notification,
    OperationalError,
    PersistenceError,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    Tracking,
)
from eventsourcing.utils import Environment, EnvType, retry
from psycopg import Connection, sql
from psycopg.rows import DictRow

from smartgrid_adapters.postgres.arrays import BigintArray, BytesArray, TextArray, register
from smartgrid_adapters.postgres.tailing import CHANNEL, NOTIFY_PAUSE_S, POLL_S
from smartgrid_schemas.envelope import LOGS

S = TypeVar("S", bound=StoredEvent)

_IDLE_S = 1.0


class _Notifier:
    """Tells listeners, after the commit, in a transaction of its own, at most every few milliseconds."""

    def __init__(self, datastore: stock.PostgresDatastore) -> None:
        self._datastore = datastore
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._payload = ""
        self._thread: threading.Thread | None = None

    def tell(self, payload: str) -> None:
        self._payload = payload
        self._wake.set()
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while self._wake.wait(_IDLE_S):
            self._wake.clear()
            with contextlib.suppress(PersistenceError), self._datastore.get_connection() as conn:
                conn.execute("SELECT pg_notify(%s, %s)", (CHANNEL, self._payload))
            time.sleep(NOTIFY_PAUSE_S)
        with self._lock:
            self._thread = None
        if self._wake.is_set():  # told between the wait and the lock
            self.tell(self._payload)


class _InLog(stock.PostgresAggregateRecorder):
    """Records events in a log; *events_table_name* is ``<log>_events``."""

    def __init__(self, datastore: stock.PostgresDatastore, *, events_table_name: str) -> None:
        super().__init__(datastore, events_table_name=events_table_name)
        self.sql_create_statements = []  # a migration makes the logs
        self.log = events_table_name.removesuffix("_events")
        self._record = sql.SQL("SELECT * FROM {}.{}(%s, %s, %s, %s, %s)").format(
            sql.Identifier(datastore.schema), sql.Identifier(f"{self.log}_record")
        )

    def _store(self, conn: Connection[DictRow], commit_id: UUID, events: Sequence[StoredEvent]) -> range:
        register(conn)
        parameters = (
            commit_id,
            TextArray.of([str(event.originator_id) for event in events]),
            BigintArray.of([event.originator_version for event in events]),
            TextArray.of([event.topic for event in events]),
            BytesArray.of([event.state for event in events]),
        )
        (row,) = conn.execute(self._record, parameters, prepare=True).fetchall()
        return range(row["first_position"], row["last_position"] + 1)

    def select_events(self, originator_id: UUID | str, **bounds: Any) -> Sequence[StoredEvent]:  # noqa: ANN401
        return self._typed(super().select_events(str(originator_id), **bounds))

    def _typed(self, events: Sequence[S]) -> list[S]:
        if self.datastore.originator_id_type != "uuid":
            return list(events)
        return [replace(event, originator_id=UUID(str(event.originator_id))) for event in events]


class LogAggregateRecorder(_InLog):
    """Records the events of aggregates in a log, for those who need no positions."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> None:  # noqa: ANN401
        if stored_events:
            self._insert(uuid4(), stored_events)

    @retry((InterfaceError, OperationalError), max_attempts=10, wait=0.2)
    def _insert(self, commit_id: UUID, stored_events: Sequence[StoredEvent]) -> None:
        with self.datastore.get_connection() as conn:
            self._store(conn, commit_id, stored_events)


class LogApplicationRecorder(_InLog, stock.PostgresApplicationRecorder):
    """Records events in a log, and reads and follows it by position."""

    def __init__(self, datastore: stock.PostgresDatastore, *, events_table_name: str = "operations_events") -> None:
        super().__init__(datastore, events_table_name=events_table_name)
        self.sql_create_statements = []
        self.channel_name = CHANNEL
        self._notifier = _Notifier(datastore)

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:  # noqa: ANN401
        positions = self._insert(uuid4(), stored_events, **kwargs)
        if positions:
            self._notifier.tell(f"{self.log} {positions[-1]}")
        return list(positions)

    @retry((InterfaceError, OperationalError), max_attempts=10, wait=0.2)
    def _insert(self, commit_id: UUID, stored_events: Sequence[StoredEvent], **_: Any) -> range:  # noqa: ANN401
        if not stored_events:
            return range(0)
        with self.datastore.get_connection() as conn:
            return self._store(conn, commit_id, stored_events)

    def select_notifications(self, *args: Any, **kwargs: Any) -> Sequence[Notification]:  # noqa: ANN401
        return self._typed(super().select_notifications(*args, **kwargs))

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        return LogSubscription(recorder=self, gt=gt, topics=topics)


class LogSubscription(stock.PostgresSubscription):
    """Follows a log by notifications, with a poll behind them."""

    def _listen(self) -> None:
        try:
            with self._recorder.datastore.get_connection() as conn:
                conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                while not self._has_been_stopped and not self._thread_error:
                    list(conn.notifies(timeout=POLL_S, stop_after=1))
                    self._has_been_notified.set()
        except BaseException as error:  # noqa: BLE001  # the reading thread raises it
            self._thread_error = self._thread_error or error
            self.stop()


class LogProcessRecorder(stock.PostgresTrackingRecorder, LogApplicationRecorder, ProcessRecorder):
    """Records events in a log together with what they were made from."""

    def __init__(
        self,
        datastore: stock.PostgresDatastore,
        *,
        events_table_name: str = "operations_events",
        tracking_table_name: str = "notification_tracking",
    ) -> None:
        super().__init__(datastore, tracking_table_name=tracking_table_name, events_table_name=events_table_name)

    @retry((InterfaceError, OperationalError), max_attempts=10, wait=0.2)
    def _insert(
        self,
        commit_id: UUID,
        stored_events: Sequence[StoredEvent],
        tracking: Tracking | None = None,
        **_: Any,  # noqa: ANN401
    ) -> range:
        if tracking is None:
            recorded: range = super()._insert(commit_id, stored_events)
            return recorded
        with self.datastore.get_connection() as conn, conn.transaction(), conn.cursor() as cursor:
            positions = self._store(conn, commit_id, stored_events) if stored_events else range(0)
            self._insert_tracking(cursor, tracking)
        return positions


class LogFactory(stock.PostgresFactory):
    """Makes recorders on the log that ``SMARTGRID_LOG`` names."""

    SMARTGRID_LOG = "SMARTGRID_LOG"

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        log = self.env.get(self.SMARTGRID_LOG)
        if log not in LOGS:
            raise OSError(f"{self.SMARTGRID_LOG} is {log!r}, not one of {', '.join(LOGS)}")
        self._events = f"{log}_events"

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Return a recorder of events in the log, or of snapshots in a table of their own."""
        if purpose != "events":
            return super().aggregate_recorder(purpose)
        return LogAggregateRecorder(self.datastore, events_table_name=self._events)

    def application_recorder(self) -> ApplicationRecorder:
        """Return a recorder of events in the log."""
        return LogApplicationRecorder(self.datastore, events_table_name=self._events)

    def process_recorder(self) -> ProcessRecorder:
        """Return a recorder of events in the log and of tracking in a table of its own."""
        tracking = f"{self.env.name.lower() or 'notification'}_tracking"
        recorder = LogProcessRecorder(self.datastore, events_table_name=self._events, tracking_table_name=tracking)
        if self.env_create_table():
            recorder.create_table()
        return recorder
