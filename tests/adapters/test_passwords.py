"""Slow hashes that verify, rise with the parameters, and never run in the event loop."""

import asyncio
import threading
import time

import pytest

from smartgrid_adapters.passwords import QUEUE, THREADS, Argon2Passwords, common_passwords
from smartgrid_domain.errors import Rejected


def cheap(pepper: bytes | None = None) -> Argon2Passwords:
    return Argon2Passwords(pepper, memory_kib=64, passes=1)


async def test_a_hash_verifies_its_password_and_no_other() -> None:
    passwords = cheap()

    phc = await passwords.hashed("a password")

    assert phc.startswith("$argon2id$v=19$m=64,t=1,p=1$")
    assert (await passwords.verify("a password", phc)).ok
    assert not (await passwords.verify("another", phc)).ok
    assert not (await passwords.verify("a password", None)).ok
    assert not (await passwords.verify("a password", "nonsense")).ok
    assert phc != await passwords.hashed("a password")


async def test_checking_against_no_hash_costs_the_same() -> None:
    passwords = Argon2Passwords()
    phc = await passwords.hashed("a password")

    async def fastest(against: str | None) -> float:
        times: list[float] = []
        for _ in range(3):
            started = time.perf_counter()
            await passwords.verify("another", against)
            times.append(time.perf_counter() - started)
        return min(times)

    assert await fastest(None) > 0.3 * await fastest(phc)


async def test_the_default_is_what_owasp_advises() -> None:
    assert (await Argon2Passwords().hashed("x")).startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_a_pepper_is_needed_to_verify() -> None:
    with_pepper, without = cheap(b"pepper"), cheap()

    phc = await with_pepper.hashed("a password")

    assert (await with_pepper.verify("a password", phc)).ok
    assert not (await without.verify("a password", phc)).ok


async def test_a_hash_of_lower_cost_is_replaced_by_a_stronger_one() -> None:
    old, new = cheap(), Argon2Passwords(memory_kib=128, passes=1)
    phc = await old.hashed("a password")

    verified = await new.verify("a password", phc)

    assert verified.rehash is not None
    assert (await new.verify("a password", verified.rehash)).rehash is None
    assert (await new.verify("wrong", phc)).rehash is None


async def test_what_does_not_fit_the_queue_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords, gate, seen = cheap(), threading.Event(), set[str]()

    def wait(*_: object) -> bool:
        seen.add(threading.current_thread().name)
        return gate.wait(10)

    monkeypatch.setattr(passwords, "_check", wait)
    waiting = [asyncio.ensure_future(passwords.verify("x", None)) for _ in range(THREADS + QUEUE)]
    await asyncio.sleep(0)

    with pytest.raises(Rejected) as caught:
        await passwords.verify("x", None)
    gate.set()
    await asyncio.gather(*waiting)

    assert caught.value.code == "overloaded"
    assert len(seen) <= THREADS
    assert threading.current_thread().name not in seen
    monkeypatch.undo()
    assert not (await passwords.verify("x", None)).ok


def test_ten_thousand_common_passwords_are_known() -> None:
    common = common_passwords()

    assert len(common) >= 10_000
    assert {"123456", "password", "qwerty", "manchesterunited"} <= common
    assert all(one == one.lower() for one in common)
