"""The list of accounts over PostgreSQL: opened names, filters, and pages in order of age."""

from collections.abc import Sequence

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from smartgrid_adapters.postgres.event_store import PostgresEventStore
from smartgrid_adapters.postgres.queries.users import PostgresUsers
from smartgrid_adapters.postgres.sealing import PostgresDataKeys
from smartgrid_adapters.sealing import KeySealer
from smartgrid_commands.ports import StreamWrite
from smartgrid_projections.queries.users import Account, After, Users, matching
from smartgrid_schemas.identity import UserRegistered

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]

ROW = """
INSERT INTO users_v1 (user_id, username, email, customer_id, role, version, created_at, changed_at, position)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


async def filled(pool: Pool, names: Sequence[str]) -> PostgresUsers:
    """Return the list of accounts *names*, each two in one commit, so of one age."""
    sealer = KeySealer(PostgresDataKeys(pool), b"m" * 32)
    store = PostgresEventStore(pool, sealer=sealer)
    await store.start()
    writes = [
        StreamWrite(
            stream=f"user:u{i}",
            events=[
                UserRegistered(
                    user_id=f"u{i}",
                    username=name,
                    email=f"{name}@example.com",
                    role="analyst" if name == "bob" else "viewer",
                    customer_id="c1" if name == "bob" else None,
                    via="self",
                )
            ],
            expected_version=0,
        )
        for i, name in enumerate(names)
    ]
    for at in range(0, len(writes), 2):
        await store.append("identity", writes[at : at + 2])
    async with pool.connection() as conn:
        for recorded in await store.read_log("identity"):
            assert isinstance(recorded.event, UserRegistered)
            sealed = [sealer.pack_sealed(recorded, field) for field in ("username", "email", "customer_id")]
            rest = (
                recorded.event.role,
                recorded.version,
                recorded.recorded_at,
                recorded.recorded_at,
                recorded.position,
            )
            await conn.execute(ROW, (recorded.event.user_id, *sealed, *rest))
    await store.stop()
    return PostgresUsers(pool, KeySealer(PostgresDataKeys(pool), b"m" * 32))


async def test_accounts_come_opened(pool: Pool) -> None:
    users = await filled(pool, ["ann", "bob"])

    found = await users.users(role="analyst", after=None, limit=10)

    assert isinstance(users, Users)
    (bob,) = found
    assert bob == Account(
        id="u1",
        username="bob",
        email="bob@example.com",
        role="analyst",
        customer_id="c1",
        is_active=True,
        version=1,
        created_at=bob.created_at,
    )


async def test_pages_neither_skip_nor_repeat_accounts_of_one_age(pool: Pool) -> None:
    names = ["ann", "bob", "carol", "dave", "eve"]
    users = await filled(pool, names)

    found: list[str | None] = []
    after: After | None = None
    while page := await matching(users, role=None, q=None, after=after, limit=1):
        found += [one.username for one in page]
        after = After(page[-1].created_at, page[-1].id)

    assert found == names


async def test_a_search_looks_into_what_is_sealed(pool: Pool) -> None:
    users = await filled(pool, ["ann", "bob", "hannah"])

    found = await matching(users, role="viewer", q="AN", after=None, limit=10)

    assert [one.username for one in found] == ["ann", "hannah"]
