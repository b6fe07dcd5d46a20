"""Access tokens: whatever is not exactly one of ours is refused, and what was revoked is refused within a second."""

import asyncio
import json
import stat
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from tests.security.world import World

from smartgrid_adapters.tokens import JwtAccessTokens, SigningKey, load_keys
from smartgrid_commands.accounts import Claims
from smartgrid_commands.profiles import Client
from smartgrid_domain.errors import Rejected
from smartgrid_http.testing import EPOCH, Reply

ME = "/api/v1/users/me"


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, payload, _ = token.split(".")
    return tuple(json.loads(urlsafe_b64decode(part + "==")) for part in (header, payload))


def private_key(world: World) -> Ed25519PrivateKey:
    key = world.keys[0].private
    assert key is not None
    return key


def signed(world: World, header: dict[str, Any] | str, payload: dict[str, Any] | str) -> str:
    """Sign anything with our own key."""
    texts = [part if isinstance(part, str) else json.dumps(part) for part in (header, payload)]
    body = ".".join(b64(text.encode()) for text in texts)
    return f"{body}.{b64(private_key(world).sign(body.encode()))}"


def public_pem(world: World) -> bytes:
    return world.keys[0].public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def confusions(world: World, good: str) -> dict[str, str]:
    header, claims = parts(good)
    now = claims["iat"]

    def claim(**changed: object) -> str:
        return signed(world, header, {**claims, **changed})

    def head(**changed: object) -> str:
        return signed(world, {**header, **changed}, claims)

    def without(name: str) -> str:
        return signed(world, header, {key: value for key, value in claims.items() if key != name})

    text, body = json.dumps(claims), good.rsplit(".", 1)[0]
    foreign = Ed25519PrivateKey.generate()
    last = good[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = alphabet[(alphabet.index(last) & 0b110000) | ((alphabet.index(last) + 1) & 0b001111)]
    return {
        "alg none": f"{b64(json.dumps({**header, 'alg': 'none'}).encode())}.{b64(text.encode())}.",
        "alg none with a signature": head(alg="none"),
        "alg in small letters": head(alg="eddsa"),
        "HS256 with the public key": jwt.PyJWS().encode(
            text.encode(), b64(public_pem(world)), "HS256", headers={"typ": "at+jwt", "kid": header["kid"]}
        ),
        "a foreign key": f"{body}.{b64(foreign.sign(body.encode()))}",
        "an unknown kid": head(kid="0" * 16),
        "kid is a path": head(kid="../../etc/passwd"),
        "no kid": signed(world, {"alg": "EdDSA", "typ": "at+jwt"}, claims),
        "typ JWT": head(typ="JWT"),
        "typ with a prefix": head(typ="application/at+jwt"),
        "no typ": signed(world, {"alg": "EdDSA", "kid": header["kid"]}, claims),
        "a key in the header": head(jwk={"kty": "OKP"}),
        "a key elsewhere": head(jku="https://example.com/keys"),
        "a certificate elsewhere": head(x5u="https://example.com/cert"),
        "unknown crit": head(crit=["exp"]),
        "b64 false": head(b64=False, crit=["b64"]),
        "padding behind": good + "==",
        "a blank behind": good + " ",
        "another spelling of the signature": good[:-1] + twin,
        "a changed signature": good[:-20] + ("A" if good[-20] != "A" else "B") + good[-19:],
        "no signature": body + ".",
        "two parts": body,
        "four parts": good + ".AA",
        "empty": "",
        "exp as text": claim(exp=str(claims["exp"])),
        "exp as a fraction": claim(exp=claims["exp"] + 0.5),
        "exp far away": claim(exp=10**40),
        "exp too late": claim(exp=now + 601),
        "exp before iat": claim(exp=now - 1),
        "exp true": claim(exp=True),
        "iat in the future": claim(iat=now + 60, exp=now + 120),
        "iat as text": claim(iat=str(now)),
        "iat zero": claim(iat=0, exp=1),
        "aud as a list": claim(aud=["smartgrid"]),
        "aud of another": claim(aud="other"),
        "iss of another": claim(iss="other"),
        "role unknown": claim(role="root"),
        "role as a list": claim(role=["admin"]),
        "role raised": claim(role="operator"),
        "sub empty": claim(sub=""),
        "sub of another": claim(sub="somebody"),
        "sub as a number": claim(sub=1),
        "sid of no session": claim(sid="00000000-0000-0000-0000-000000000000"),
        "sid null": claim(sid=None),
        "sv old": claim(sv=claims["sv"] - 1),
        "sv ahead": claim(sv=claims["sv"] + 1),
        "sv true": claim(sv=True),
        "a claim twice": signed(world, header, text[:-1] + f', "role": "{claims["role"]}"' + "}"),
        "a claim twice, escaped": signed(world, header, text[:-1] + f', "\\u0072ole": "{claims["role"]}"' + "}"),
        "a header twice": signed(world, json.dumps(header)[:-1] + ', "alg": "EdDSA"}', claims),
        "a claim unknown": claim(admin=True),
        "nbf": claim(nbf=now),
        "claims are a list": signed(world, header, "[]"),
        "claims are not JSON": signed(world, header, "{"),
        "claims with a byte order mark": signed(world, header, "\ufeff" + text),
        "too long": claim(jti="j" * 5000),
        **{f"without {name}": without(name) for name in claims},
    }


async def ask(world: World, token: str) -> Reply:
    return await world.client(token).get(ME)


async def test_no_confused_token_is_taken(world: World) -> None:
    good = await world.admin()
    assert (await ask(world, good)).status == 200

    for name, token in confusions(world, good).items():
        reply = await ask(world, token)
        assert (name, reply.status) == (name, 401)
        assert reply.json()["code"] in {"unauthenticated", "token_expired", "token_revoked"}, name
    assert (await ask(world, good)).status == 200


@given(st.binary(max_size=300))
def test_no_random_token_does_more_than_fail(text: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    tokens = JwtAccessTokens([SigningKey("kid", key.public_key(), key)])
    with pytest.raises(Rejected):
        tokens.verify(text, now=EPOCH)


@given(at=st.integers(0, 10_000), to=st.sampled_from(b"AZaz09-_.=+/ \0\xff"))
def test_no_changed_token_is_taken(at: int, to: int) -> None:

    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    tokens = JwtAccessTokens([SigningKey("kid", key.public_key(), key)])
    now = int(EPOCH.timestamp())
    claims = Claims(
        iss="smartgrid", aud="smartgrid", sub="u", jti="j", sid="s", sv=1, role="viewer", iat=now, exp=now + 600
    )
    token = tokens.sign(claims).encode()
    at %= len(token)
    changed = token[:at] + bytes([to]) + token[at + 1 :]

    if changed == token:
        assert tokens.verify(changed, now=EPOCH) == claims
    else:
        with pytest.raises(Rejected):
            tokens.verify(changed, now=EPOCH)


async def test_a_token_ends_after_ten_minutes_and_five_seconds(world: World) -> None:
    token = await world.admin()

    world.clock.advance(600 + 4)
    assert (await ask(world, token)).status == 200
    world.clock.advance(1)
    reply = await ask(world, token)

    assert (reply.status, reply.json()["code"]) == (401, "token_expired")


async def test_a_token_that_was_just_seen_ends_too(world: World) -> None:
    token = await world.admin()
    assert (await ask(world, token)).status == 200

    world.clock.time += timedelta(seconds=605)

    assert (await ask(world, token)).json()["code"] == "token_expired"


async def test_the_header_says_what_the_api_promises(world: World) -> None:
    header, claims = parts(await world.admin())

    assert (header["alg"], header["typ"]) == ("EdDSA", "at+jwt")
    assert set(claims) == {"iss", "aud", "sub", "jti", "sid", "sv", "role", "iat", "exp"}
    assert claims["exp"] - claims["iat"] == 600


async def test_the_published_keys_verify_our_tokens(world: World) -> None:
    token = await world.admin()
    (jwk,) = (await world.client().get("/api/v1/auth/jwks")).json()["keys"]

    assert jwk["kid"] == parts(token)[0]["kid"]
    assert "d" not in jwk
    options = {"verify_exp": False, "verify_iat": False}
    jwt.decode(token, jwt.PyJWK(jwk), algorithms=["EdDSA"], audience="smartgrid", options=options)  # type: ignore[arg-type]  # a plain dict


async def test_credentials_come_once(world: World) -> None:
    token = await world.admin()
    bearer = (b"authorization", f"Bearer {token}".encode())
    both = [(b"host", b"localhost"), bearer, (b"x-api-key", b"sga_x")]
    twice = [(b"host", b"localhost"), bearer, bearer]

    for headers in (both, twice):
        reply = await world.client().raw("GET", ME, headers)
        assert (reply.status, reply.json()["code"]) == (400, "ambiguous_credentials")


async def test_tokens_elsewhere_do_not_count(world: World) -> None:
    token = await world.admin()

    assert (await world.client().get(f"{ME}?access_token={token}")).status == 401
    assert (await world.client().get(ME, headers={"Cookie": f"token={token}"})).status == 401
    assert (await world.client().get(ME, headers={"Authorization": f"Basic {token}"})).status == 401
    assert (await world.client().get(ME, headers={"X-API-Key": token})).status == 401
    assert (await world.client().get(ME, headers={"Authorization": f"bearer {token}"})).status == 200


async def test_a_session_that_ends_elsewhere_is_over_within_a_second(world: World) -> None:
    token = await world.admin()
    assert (await ask(world, token)).status == 200
    claims = parts(token)[1]

    await world.identity.logout(claims["sid"], claims["sub"], Client())  # as another process would
    world.clock.advance(0.95)

    reply = await ask(world, token)
    assert (reply.status, reply.json()["code"]) == (401, "token_revoked")


async def test_when_nobody_can_tell_reads_go_on_and_administration_stops(world: World) -> None:
    token = await world.admin()
    assert (await ask(world, token)).status == 200

    world.down = True
    world.clock.advance(5)
    client = world.client(token)
    listing = await client.get("/api/v1/users")
    registering = await client.post("/api/v1/auth/register", {})

    assert (await client.get(ME)).status == 200
    assert (listing.status, listing.json()["code"]) == (503, "store_unavailable")
    assert registering.status == 503
    world.clock.advance(600)
    assert (await client.get(ME)).status == 401


async def test_many_requests_of_one_session_share_a_look_up(world: World) -> None:
    token = await world.admin()
    asked: list[str] = []
    session = world.identity.session

    async def counting(session_id: str) -> object:
        asked.append(session_id)
        await asyncio.sleep(0)
        return await session(session_id)

    world.session = counting  # type: ignore[method-assign, assignment]  # what is counted
    replies = await asyncio.gather(*(ask(world, token) for _ in range(100)))

    assert {reply.status for reply in replies} == {200}
    assert len(asked) == 1


def test_keys_are_made_once_and_for_their_owner(tmp_path: Path) -> None:
    first, second = load_keys(tmp_path / "keys", make=True), load_keys(tmp_path / "keys", make=True)

    assert [key.kid for key in first] == [key.kid for key in second]
    (path,) = (tmp_path / "keys").glob("*.pem")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_without_keys_nobody_verifies(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_keys(tmp_path, make=False)
