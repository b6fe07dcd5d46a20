"""The library's own test cases, over our logs."""

import threading
from collections.abc import Iterator
from itertools import count
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import InfrastructureFactory, IntegrityError, StoredEvent, Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.tests.persistence import (
    AggregateRecorderTestCase,
    ApplicationRecorderTestCase,
    InfrastructureFactoryTestCase,
    NonInterleavingNotificationIDsBaseCase,
    ProcessRecorderTestCase,
    TrackingRecorderTestCase,
)
from eventsourcing.utils import Environment
from psycopg.conninfo import conninfo_to_dict

from smartgrid_adapters.library.persistence import (
    LogAggregateRecorder,
    LogApplicationRecorder,
    LogFactory,
    LogProcessRecorder,
)
from smartgrid_adapters.postgres.pool import Pool

EVENTS = "operations_events"


def settings_of(url: str) -> dict[str, str]:
    given = conninfo_to_dict(url)
    return {
        "PERSISTENCE_MODULE": "smartgrid_adapters.library.persistence",
        "SMARTGRID_LOG": "operations",
        "POSTGRES_DBNAME": str(given["dbname"]),
        "POSTGRES_HOST": str(given["host"]),
        "POSTGRES_PORT": str(given["port"]),
        "POSTGRES_USER": str(given["user"]),
        "POSTGRES_PASSWORD": "peer",
    }


def datastore_of(url: str, **settings: Any) -> PostgresDatastore:  # noqa: ANN401  # passed on
    given = conninfo_to_dict(url)
    return PostgresDatastore(
        str(given["dbname"]),
        str(given["host"]),
        str(given["port"]),
        str(given["user"]),
        "peer",
        pool_size=2,
        max_overflow=12,
        connect_timeout=30,
        **settings,
    )


@pytest.fixture(autouse=True)
def given_database(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hand the database to the library's classes, which know of no fixtures."""
    if request.cls is None:  # pyright: ignore[reportUnknownMemberType]  # pytest has no type for it
        yield
        return
    with _handed(request.cls, request.getfixturevalue("database")):  # pyright: ignore[reportUnknownMemberType]  # likewise
        yield


def _handed(cls: Any, url: str) -> PostgresDatastore:  # noqa: ANN401  # one of the classes below
    cls.url = url
    datastore = cls.datastore = datastore_of(url, originator_id_type=cls.id_type)
    return datastore


class _OnDatabase:
    datastore: ClassVar[PostgresDatastore]
    url: ClassVar[str]
    id_type: ClassVar[str] = "uuid"


class _TextIds:
    id_type: ClassVar[str] = "text"

    def new_originator_id(self) -> str:
        return f"meter:{uuid4()}"


class TestAggregateRecorder(_OnDatabase, AggregateRecorderTestCase):
    def create_recorder(self) -> LogAggregateRecorder:
        return LogAggregateRecorder(self.datastore, events_table_name=EVENTS)


class TestAggregateRecorderWithTextIds(_TextIds, TestAggregateRecorder):
    pass


class TestApplicationRecorder(_OnDatabase, ApplicationRecorderTestCase[LogApplicationRecorder]):
    def create_recorder(self) -> LogApplicationRecorder:
        return LogApplicationRecorder(self.datastore, events_table_name=EVENTS)

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestPositionsDoNotInterleave(_OnDatabase, NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> LogApplicationRecorder:
        return LogApplicationRecorder(self.datastore, events_table_name=EVENTS)


class TestTrackingRecorder(_OnDatabase, TrackingRecorderTestCase):
    def create_recorder(self) -> PostgresTrackingRecorder:
        recorder = PostgresTrackingRecorder(self.datastore)
        recorder.create_table()
        return recorder


class TestProcessRecorder(_OnDatabase, ProcessRecorderTestCase):
    def create_recorder(self) -> LogProcessRecorder:
        recorder = LogProcessRecorder(self.datastore, events_table_name=EVENTS)
        recorder.create_table()
        return recorder


class TrackingOfOurs(PostgresTrackingRecorder):
    pass


class TestFactory(_OnDatabase, InfrastructureFactoryTestCase[LogFactory]):
    def setUp(self) -> None:
        self.env = Environment("TestCase", settings_of(self.url))
        super().setUp()

    def expected_factory_class(self) -> type[LogFactory]:
        return LogFactory

    def expected_aggregate_recorder_class(self) -> type[LogAggregateRecorder]:
        return LogAggregateRecorder

    def expected_application_recorder_class(self) -> type[LogApplicationRecorder]:
        return LogApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[PostgresTrackingRecorder]:
        return PostgresTrackingRecorder

    def tracking_recorder_subclass(self) -> type[PostgresTrackingRecorder]:
        return TrackingOfOurs

    def expected_process_recorder_class(self) -> type[LogProcessRecorder]:
        return LogProcessRecorder


class Account(Aggregate):
    def __init__(self) -> None:
        self.total = 0

    @event("Deposited")
    def deposit(self, amount: int) -> None:
        self.total += amount


async def test_an_application_of_the_library_runs_on_a_log(database: str, pool: Pool) -> None:
    with Application[UUID](env={**settings_of(database), "IS_SNAPSHOTTING_ENABLED": "y"}) as app:
        account = Account()
        account.deposit(5)
        recordings = app.save(account)
        app.take_snapshot(account.id)
        account.deposit(7)
        app.save(account)

        again: Account = app.repository.get(account.id)

    assert again.total == 12
    assert [recording.notification.id for recording in recordings] == [1, 2]
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT count(*), max(last_position) FROM operations_commits")
        assert await cursor.fetchone() == (2, 3)


def test_a_log_must_be_named(database: str) -> None:
    with pytest.raises(OSError, match="SMARTGRID_LOG"):
        InfrastructureFactory.construct({**settings_of(database), "SMARTGRID_LOG": "orders"})


def test_a_failure_records_neither_events_nor_tracking(database: str) -> None:
    with datastore_of(database) as datastore:
        recorder = LogProcessRecorder(datastore, events_table_name=EVENTS)
        recorder.create_table()
        event_of_two = StoredEvent(uuid4(), 1, "topic", b"")
        recorder.insert_events([event_of_two], tracking=Tracking("up", 1))

        with pytest.raises(IntegrityError):
            recorder.insert_events([StoredEvent(uuid4(), 1, "topic", b"")], tracking=Tracking("up", 1))
        with pytest.raises(IntegrityError):
            recorder.insert_events([event_of_two], tracking=Tracking("up", 2))

        assert recorder.max_notification_id() == 1
        assert recorder.max_tracking_id("up") == 1


def test_a_follower_gets_every_event_once_while_threads_record(database: str) -> None:
    with datastore_of(database) as datastore:
        recorder = LogApplicationRecorder(datastore, events_table_name=EVENTS)
        numbers = count()

        def record() -> None:
            for _ in range(25):
                recorder.insert_events([StoredEvent(uuid4(), 1, f"{next(numbers)}", b"")])

        threads = [threading.Thread(target=record) for _ in range(4)]
        with recorder.subscribe(gt=0) as subscription:
            for thread in threads:
                thread.start()
            seen = [notification.id for _, notification in zip(range(100), subscription, strict=False)]
        for thread in threads:
            thread.join()

        assert seen == list(range(1, 101))
