"""The first admin, registration, signing in and out: what is answered, and what never is."""

import asyncio
import stat
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.security.world import PASSWORD, World, memory_world

from smartgrid_adapters.memory.accounts import MemoryAccounts
from smartgrid_adapters.postgres.codec import encode
from smartgrid_commands.profiles import Client, IdentitySettings, NewAccount
from smartgrid_schemas.event import Sealed
from smartgrid_schemas.identity import UserRegistered

BOOTSTRAP, REGISTER, LOGIN = "/api/v1/auth/bootstrap", "/api/v1/auth/register", "/api/v1/auth/login"


def person(username: str = "ann", **more: object) -> dict[str, object]:
    return {"username": username, "email": f"{username}@example.com", "password": PASSWORD, **more}


async def test_the_first_admin_signs_in_and_finds_himself(each_world: World) -> None:
    token = await each_world.admin()

    client = each_world.client(token)
    me = (await client.get("/api/v1/users/me")).json()["user"]
    verified = (await client.get("/api/v1/auth/verify")).json()["user"]
    assert (me["username"], me["email"], me["role"], me["version"]) == ("root", "root@example.com", "admin", 1)
    assert verified["sub"] == verified["user_id"] == me["id"]
    assert (verified["username"], verified["role"], verified["exp"] - verified["iat"]) == ("root", "admin", 600)


async def test_of_fifty_bootstraps_at_once_one_makes_an_admin(each_world: World) -> None:
    await each_world.identity.issue_bootstrap_code()
    code = each_world.code()

    replies = await asyncio.gather(
        *(each_world.client().post(BOOTSTRAP, person(f"admin{i}", code=code)) for i in range(50))
    )

    assert Counter(reply.status for reply in replies) == {201: 1, 409: 49}
    assert {reply.json().get("code") for reply in replies if reply.status == 409} == {"already_bootstrapped"}
    events = await each_world.store.read_log("identity")
    assert sum(isinstance(recorded.event, UserRegistered) for recorded in events) == 1


async def test_two_processes_that_bootstrap_at_once_make_one_admin(tmp_path: Path, each_world: World) -> None:
    other = memory_world(tmp_path / "other").identity  # another lock, the same store
    other.__dict__.update(
        {name: value for name, value in each_world.identity.__dict__.items() if name != "_bootstrapping"}
    )
    await each_world.identity.issue_bootstrap_code()
    code = each_world.code()
    outcomes = await asyncio.gather(
        *(
            identity.bootstrap(code, NewAccount(username=name, email="a@example.com", password=PASSWORD), Client())
            for identity, name in ((each_world.identity, "one"), (other, "two"))
        ),
        return_exceptions=True,
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "SignedIn"]


async def test_the_code_lies_in_a_file_for_its_owner_and_goes_with_success(world: World) -> None:
    await world.identity.issue_bootstrap_code()
    assert stat.S_IMODE(world.code_path.stat().st_mode) == 0o600
    assert len(world.code()) >= 43  # 256 bits

    await world.client().post(BOOTSTRAP, person(code=world.code()))

    assert not world.code_path.exists()
    assert not await world.identity.issue_bootstrap_code()
    assert not world.code_path.exists()


async def test_ten_wrong_codes_burn_the_code(each_world: World) -> None:
    await each_world.identity.issue_bootstrap_code()
    code = each_world.code()

    wrong = [await each_world.client().post(BOOTSTRAP, person(code="x" * 43)) for _ in range(10)]
    right = await each_world.client().post(BOOTSTRAP, person(code=code))

    assert {(reply.status, reply.json()["code"]) for reply in (*wrong, right)} == {(401, "bootstrap_code_invalid")}
    assert not each_world.code_path.exists()
    await each_world.identity.issue_bootstrap_code()
    assert (await each_world.client().post(BOOTSTRAP, person(code=each_world.code()))).status == 201


async def test_a_code_ends(world: World) -> None:
    await world.identity.issue_bootstrap_code()
    world.clock.advance(900)

    reply = await world.client().post(BOOTSTRAP, person(code=world.code()))

    assert (reply.status, reply.json()["code"]) == (401, "bootstrap_code_invalid")


async def test_a_fresh_code_replaces_the_old_one(each_world: World) -> None:
    await each_world.identity.issue_bootstrap_code()
    old = each_world.code()
    await each_world.identity.issue_bootstrap_code()

    assert (await each_world.client().post(BOOTSTRAP, person(code=old))).status == 401
    assert (await each_world.client().post(BOOTSTRAP, person(code=each_world.code()))).status == 201


async def test_the_account_of_the_original_never_works(world: World) -> None:
    sample = {"username": "admin", "password": "admin123"}
    before = await world.client().post(LOGIN, sample)
    await world.admin("admin")
    after = await world.client().post(LOGIN, sample)

    assert (
        (before.status, before.json()["code"]) == (after.status, after.json()["code"]) == (401, "invalid_credentials")
    )
    assert after.headers["www-authenticate"].startswith("Bearer")


async def test_anyone_registers_as_viewer(each_world: World) -> None:
    reply = await each_world.client().post(REGISTER, person("Ann"))

    assert reply.status == 201
    user = reply.json()["user"]
    assert (user["username"], user["role"], user["is_active"], user["customer_id"]) == ("ann", "viewer", True, None)
    assert reply.headers["x-event-position"] == "identity@1"
    assert (await each_world.client().post(LOGIN, {"username": "ANN", "password": PASSWORD})).status == 200


@pytest.mark.parametrize("more", [{"role": "admin"}, {"role": "operator"}, {"customer_id": "customer_123"}])
async def test_nobody_gives_himself_a_role_or_a_customer(world: World, more: dict[str, str]) -> None:
    admin = await world.admin()
    viewer = await world.user("bob", admin)

    for client in (world.client(), world.client(viewer)):
        reply = await client.post(REGISTER, person("mallory", **more))
        assert (reply.status, reply.json()["code"]) == (403, "role_not_assignable")
    assert (await world.client(admin).post(REGISTER, person("operator1", **more))).status == 201


async def test_user_is_another_name_of_viewer(world: World) -> None:
    assert (await world.client().post(REGISTER, person(role="user"))).json()["user"]["role"] == "viewer"


async def test_registration_can_be_closed_to_all_but_admins(tmp_path: Path) -> None:
    world = memory_world(tmp_path, IdentitySettings(open_registration=False))
    admin = await world.admin()

    reply = await world.client().post(REGISTER, person())

    assert (reply.status, reply.json()["code"]) == (403, "registration_closed")
    assert (await world.client(admin).post(REGISTER, person())).status == 201


@pytest.mark.parametrize("twin", ["ann", "ANN", "\uff41nn", "A\u006en"])
async def test_look_alike_names_do_not_coexist(each_world: World, twin: str) -> None:
    await each_world.client().post(REGISTER, person("ann"))

    reply = await each_world.client().post(REGISTER, person("ann") | {"username": twin})

    assert (reply.status, reply.json()["code"]) == (409, "username_taken")


async def test_of_ten_registrations_of_one_name_at_once_one_succeeds(each_world: World) -> None:
    replies = await asyncio.gather(*(each_world.client().post(REGISTER, person()) for _ in range(10)))

    assert Counter(reply.status for reply in replies) == {201: 1, 409: 9}


async def test_two_accounts_may_share_an_address(world: World) -> None:
    first = await world.client().post(REGISTER, person("ann") | {"email": "room@example.com"})
    second = await world.client().post(REGISTER, person("bob") | {"email": "room@example.com"})

    assert (first.status, second.status) == (201, 201)


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"username": "a"}, "/username", "bad_format"),
        ({"username": "ann\n"}, "/username", "bad_format"),
        ({"username": "an n"}, "/username", "bad_format"),
        ({"email": "nobody"}, "/email", "bad_format"),
        ({"email": "a@b\r\nBcc: c@d"}, "/email", "bad_format"),
        ({"email": "a" * 250 + "@b.cd"}, "/email", "bad_format"),
        ({"password": "short"}, "/password", "weak_password"),
        ({"password": "x" * 129}, "/password", "weak_password"),
        ({"password": "aaaaaaaaaaaaaaaaaaaa"}, "/password", "weak_password"),
        ({"password": "123456789123456"}, "/password", "weak_password"),
        ({"password": "passwordpassword"}, "/password", "weak_password"),
        ({"password": "SmartGridAnalytics1"}, "/password", "weak_password"),
        ({"password": "ann@example.com2026"}, "/password", "weak_password"),
        ({"password": "with a NUL \0 inside it"}, "/password", "bad_format"),
        ({"role": "root"}, "/role", "unknown_value"),
        ({"customer_id": "no spaces allowed"}, "/customer_id", "bad_format"),
        ({"is_active": True}, "/is_active", "unknown_field"),
        ({"id": "1"}, "/id", "unknown_field"),
        ({"password": 123456789012345}, "/password", "wrong_type"),
        ({"email": None}, "/email", "wrong_type"),
    ],
)
async def test_a_bad_registration_is_told_what_is_wrong(
    world: World, change: dict[str, object], pointer: str, code: str
) -> None:
    reply = await world.client().post(REGISTER, person() | change)

    assert reply.status == 400
    assert (pointer, code) in {(finding["pointer"], finding["code"]) for finding in reply.json()["errors"]}


async def test_all_findings_come_at_once(world: World) -> None:
    reply = await world.client().post(REGISTER, {"username": "a b", "email": "x", "password": "y"})

    assert [finding["pointer"] for finding in reply.json()["errors"]] == ["/username", "/email", "/password"]
    missing = await world.client().post(REGISTER, {})
    assert [finding["code"] for finding in missing.json()["errors"]] == ["missing_field"] * 3
    assert missing.json()["error"] == "Missing required field: username"


async def test_unknown_name_and_wrong_password_look_alike(each_world: World) -> None:
    await each_world.client().post(REGISTER, person())

    replies = [
        await each_world.client().post(LOGIN, {"username": name, "password": "not the password of anybody"})
        for name in ("ann", "nobody", "no such name!")
    ]

    bodies = [{**reply.json(), "request_id": ""} for reply in replies]
    assert {reply.status for reply in replies} == {401}
    assert bodies[0] == bodies[1] == bodies[2]


async def test_a_disabled_account_looks_like_none(world: World) -> None:
    assert isinstance(world.accounts, MemoryAccounts)
    await world.client().post(REGISTER, person())
    unknown = await world.client().post(LOGIN, {"username": "nobody", "password": PASSWORD})

    (account,) = world.accounts.accounts.values()
    world.accounts.accounts[account.user_id] = replace(account, is_active=False)
    disabled = await world.client().post(LOGIN, {"username": "ann", "password": PASSWORD})

    assert disabled.status == 401
    assert {**disabled.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}


async def test_a_name_that_does_not_exist_costs_a_hash_too(world: World) -> None:
    checked: list[str | None] = []
    verify = world.passwords.verify

    async def counting(password: str, phc: str | None) -> object:
        checked.append(phc)
        return await verify(password, phc)

    world.passwords.verify = counting  # type: ignore[method-assign, assignment]  # the hash is what is counted
    for name in ("nobody", "no such name!"):
        await world.client().post(LOGIN, {"username": name, "password": PASSWORD})

    assert checked == [None, None]


async def test_signing_out_ends_the_token_at_once_in_this_process(each_world: World) -> None:
    admin = await each_world.admin()
    client = each_world.client(admin)
    assert (await client.get("/api/v1/users/me")).status == 200

    assert (await client.post("/api/v1/auth/logout", {})).status == 204
    each_world.clock.advance(1)

    reply = await client.get("/api/v1/users/me")
    assert (reply.status, reply.json()["code"]) == (401, "token_revoked")


async def test_signing_out_needs_no_body(world: World) -> None:
    client = world.client(await world.admin())

    assert (await client.request("POST", "/api/v1/auth/logout")).status == 204


async def test_the_log_holds_no_secret_and_no_clear_person(world: World) -> None:
    admin = await world.admin("roberta")
    await world.user("clementine", admin, customer_id="customer_123")

    events = [recorded.event for recorded in await world.store.read_log("identity")]
    states = b"".join(map(encode, events))
    for clear in (
        b"roberta",
        b"clementine",
        b"example.com",
        b"customer_123",
        b"127.0.0.1",
        b"argon2",
        PASSWORD.encode(),
    ):
        assert clear not in states
    registered = [event for event in events if isinstance(event, UserRegistered)]
    assert len(registered) == 2
    assert all(isinstance(event.username, Sealed) for event in registered)


async def test_hashes_beyond_the_queue_are_refused_and_nothing_is_stored(world: World) -> None:
    replies = await asyncio.gather(*(world.client().post(REGISTER, person(f"user{i}")) for i in range(40)))

    outcome = Counter(reply.status for reply in replies)
    assert outcome[201] == 18
    assert outcome[503] == 22
    refused = next(reply for reply in replies if reply.status == 503)
    assert refused.json()["code"] == "overloaded"
    assert int(refused.headers["retry-after"]) >= 1
    assert await world.store.head("identity") == 18
