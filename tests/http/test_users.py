"""The list of accounts: pages, filters, and waiting for what was just done."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest

from smartgrid_adapters.memory.event_store import MemoryEventStore
from smartgrid_commands.ports import StreamWrite
from smartgrid_http.app import build_app
from smartgrid_http.pages import Cursors
from smartgrid_http.testing import EPOCH, AsgiClient, FixedClock, fixed_services
from smartgrid_projections.ports import Standing
from smartgrid_projections.queries.standing import Waiting
from smartgrid_projections.queries.users import Account, After
from smartgrid_schemas.identity import PasswordChanged

USERS = "/api/v1/users"
NAMES = ["ann", "bob", "carol", "dave", "eve", "frank", "grace"]


class FakeUsers:
    """A read model of accounts, one a minute."""

    def __init__(self) -> None:
        self.accounts = [
            Account(
                id=f"id-{name}",
                username=name,
                email=f"{name}@{'North' if name < 'd' else 'south'}.example",
                role="admin" if name == "ann" else "viewer",
                customer_id=None,
                is_active=True,
                version=1,
                created_at=EPOCH + timedelta(minutes=i),
            )
            for i, name in enumerate(NAMES)
        ]

    async def users(self, *, role: str | None, after: After | None, limit: int) -> Sequence[Account]:
        return [
            one
            for one in self.accounts
            if role in (None, one.role)
            and (after is None or (one.created_at, one.id) > (after.created_at, after.user_id))
        ][:limit]


class FakeStandings:
    """Checkpoints that stand still."""

    def __init__(self, position: int) -> None:
        self.position = position

    async def standings(self) -> Sequence[Standing]:
        return ()

    async def positions(self) -> Mapping[str, Mapping[str, int]]:
        return {"users": {"identity": self.position}}


@pytest.fixture
def standings() -> FakeStandings:
    return FakeStandings(0)


@pytest.fixture
def store() -> MemoryEventStore:
    return MemoryEventStore()


@pytest.fixture
def client(standings: FakeStandings, store: MemoryEventStore) -> AsgiClient:
    clock = FixedClock()
    services = fixed_services(
        clock=clock,
        store=store,
        users=FakeUsers(),
        waiting=Waiting(standings),
        cursors=Cursors(b"secret", clock.now),
    )
    return AsgiClient(build_app(services)).signed_in("admin")


async def names(client: AsgiClient, query: str) -> tuple[list[str], str | None]:
    body = (await client.get(f"{USERS}?{query}")).json()
    return [user["username"] for user in body["users"]], body["next_cursor"]


async def test_accounts_come_oldest_first_with_what_admins_may_see(client: AsgiClient) -> None:
    reply = await client.get(USERS)

    assert reply.status == 200
    assert reply.headers["x-event-position"] == "identity@0"
    body = reply.json()
    assert (body["status"], body["next_cursor"]) == ("success", None)
    assert [user["username"] for user in body["users"]] == NAMES
    assert body["users"][0] == {
        "id": "id-ann",
        "username": "ann",
        "email": "ann@North.example",
        "role": "admin",
        "customer_id": None,
        "is_active": True,
        "version": 1,
        "created_at": "2026-01-15T10:30:00Z",
    }


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
async def test_pages_neither_skip_nor_repeat(client: AsgiClient, limit: int) -> None:
    found, cursor = await names(client, f"limit={limit}")
    while cursor is not None:
        page, cursor = await names(client, f"limit={limit}&cursor={cursor}")
        assert page
        found += page

    assert found == NAMES


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("role=admin", ["ann"]),
        ("role=user", NAMES[1:]),
        ("q=AR", ["carol"]),
        ("q=north", ["ann", "bob", "carol"]),
        ("q=north&role=viewer", ["bob", "carol"]),
        ("q=nobody", []),
        ("q=", NAMES),
    ],
)
async def test_filters_narrow(client: AsgiClient, query: str, expected: list[str]) -> None:
    assert (await names(client, query))[0] == expected


async def test_pages_of_a_search_go_on_where_they_ended(client: AsgiClient) -> None:
    first, cursor = await names(client, "q=south&limit=2")
    second, end = await names(client, f"q=south&limit=2&cursor={cursor}")

    assert (first, second, end) == (["dave", "eve"], ["frank", "grace"], None)


async def test_a_cursor_of_another_query_is_refused(client: AsgiClient) -> None:
    _, cursor = await names(client, "limit=2")

    reply = await client.get(f"{USERS}?limit=2&role=viewer&cursor={cursor}")
    assert (reply.status, reply.json()["code"]) == (400, "invalid_cursor")


async def test_an_asked_position_is_waited_for(
    client: AsgiClient, standings: FakeStandings, store: MemoryEventStore
) -> None:
    event = PasswordChanged(user_id="u")
    await store.append("identity", [StreamWrite(stream="user:u", events=[event], expected_version=0)])

    behind = await client.get(f"{USERS}?min_position=identity@1&wait_ms=0")
    unasked = await client.get(f"{USERS}?wait_ms=0")
    standings.position = 1
    there = await client.get(f"{USERS}?min_position=identity@1&wait_ms=0")

    assert (behind.status, behind.json()["code"]) == (503, "projection_behind")
    assert (unasked.status, "x-event-position" in unasked.headers) == (200, False)
    assert (there.status, there.headers["x-event-position"]) == (200, "identity@1")
