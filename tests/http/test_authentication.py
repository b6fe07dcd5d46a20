"""Tokens are verified once and looked at each time; sessions are looked up beside the requests that use them."""

import asyncio
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from smartgrid_adapters.tokens import JwtAccessTokens, SigningKey
from smartgrid_commands.accounts import Claims
from smartgrid_commands.ports import StoreUnavailable
from smartgrid_commands.profiles import SessionState
from smartgrid_domain.errors import Rejected
from smartgrid_http.authentication import TokenAuthenticator
from smartgrid_http.testing import EPOCH, FixedClock


class Source:
    """Where sessions are looked up."""

    def __init__(self) -> None:
        self.asked = 0
        self.down = False
        self.alive = True
        self.customer_id: str | None = None

    async def __call__(self, session_id: str) -> SessionState | None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise StoreUnavailable("down")
        return SessionState(
            session_id=session_id,
            user_id="u",
            role="viewer",
            session_version=1,
            alive=self.alive,
            username="ann",
            customer_id=self.customer_id,
        )


class Tokens(JwtAccessTokens):
    """Counts what is verified."""

    verified = 0

    def verify(self, token: bytes, *, now: object) -> Claims:
        self.verified += 1
        return super().verify(token, now=now)  # type: ignore[arg-type]  # a datetime


KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


@pytest.fixture
def tokens() -> Tokens:
    return Tokens([SigningKey("kid", KEY.public_key(), KEY)])


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def authenticator(tokens: Tokens, source: Source, clock: FixedClock) -> TokenAuthenticator:
    return TokenAuthenticator(tokens, source, clock, kept=3)


def token(tokens: Tokens, number: int = 0) -> bytes:
    now = int(EPOCH.timestamp())
    claims = Claims(
        iss="smartgrid",
        aud="smartgrid",
        sub="u",
        jti=f"j{number}",
        sid=f"s{number}",
        sv=1,
        role="viewer",
        iat=now,
        exp=now + 600,
    )
    return tokens.sign(claims).encode()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_token_is_known_after_it_was_verified(
    authenticator: TokenAuthenticator, tokens: Tokens, source: Source
) -> None:
    text = token(tokens)
    assert authenticator.known(text) is None

    principal = await authenticator.verify(text, strict=False)

    assert authenticator.known(text) == principal
    assert (principal.id, principal.username, principal.session_id) == ("u", "ann", "s0")
    assert (tokens.verified, source.asked) == (1, 1)


async def test_a_session_in_use_never_makes_a_request_wait(
    authenticator: TokenAuthenticator, tokens: Tokens, source: Source, clock: FixedClock
) -> None:
    text = token(tokens)
    await authenticator.verify(text, strict=False)

    for _ in range(100):
        clock.advance(0.1)
        assert authenticator.known(text) is not None
        await settle()

    assert 10 <= source.asked <= 26  # every 0.4 to 1 s


async def test_an_ended_session_is_refused_after_at_most_a_second_of_use(
    authenticator: TokenAuthenticator, tokens: Tokens, source: Source, clock: FixedClock
) -> None:
    text = token(tokens)
    await authenticator.verify(text, strict=False)
    source.alive = False

    waited = 0.0
    while authenticator.known(text) is not None:
        clock.advance(0.1)
        waited += 0.1
        await settle()

    assert waited <= 1.0
    with pytest.raises(Rejected) as caught:
        await authenticator.verify(text, strict=False)
    assert caught.value.code == "token_revoked"


async def test_what_the_session_says_of_its_user_is_followed(
    authenticator: TokenAuthenticator, tokens: Tokens, source: Source, clock: FixedClock
) -> None:
    text = token(tokens)
    await authenticator.verify(text, strict=False)
    source.customer_id = "c2"

    clock.advance(0.5)
    authenticator.known(text)
    await settle()

    principal = authenticator.known(text)
    assert principal is not None
    assert principal.customer_id == "c2"


async def test_a_dead_source_is_asked_once_a_second(
    authenticator: TokenAuthenticator, tokens: Tokens, source: Source, clock: FixedClock
) -> None:
    text = token(tokens)
    source.down = True

    for _ in range(20):
        assert (await authenticator.verify(text, strict=False)).id == "u"
        with pytest.raises(StoreUnavailable):
            await authenticator.verify(text, strict=True)
        clock.advance(0.1)

    assert source.asked == 2


async def test_a_session_known_to_be_over_stays_over_when_the_source_dies(
    authenticator: TokenAuthenticator, tokens: Tokens, source: Source, clock: FixedClock
) -> None:
    text = token(tokens)
    source.alive = False
    with pytest.raises(Rejected):
        await authenticator.verify(text, strict=False)
    source.down = True
    clock.advance(2)

    with pytest.raises(Rejected) as caught:
        await authenticator.verify(text, strict=False)
    assert caught.value.code == "token_revoked"


async def test_a_caller_that_goes_away_does_not_end_the_look_up_of_others(
    authenticator: TokenAuthenticator, tokens: Tokens, source: Source
) -> None:
    text = token(tokens)
    first = asyncio.ensure_future(authenticator.verify(text, strict=False))
    second = asyncio.ensure_future(authenticator.verify(text, strict=False))
    await asyncio.sleep(0)

    first.cancel()

    assert (await second).id == "u"
    assert source.asked == 1


async def test_only_so_many_tokens_are_remembered(authenticator: TokenAuthenticator, tokens: Tokens) -> None:
    texts = [token(tokens, number) for number in range(5)]

    for text in texts:
        await authenticator.verify(text, strict=False)

    assert [authenticator.known(text) is not None for text in texts] == [False, False, True, True, True]


async def test_a_remembered_token_ends(authenticator: TokenAuthenticator, tokens: Tokens, clock: FixedClock) -> None:
    text = token(tokens)
    await authenticator.verify(text, strict=False)

    clock.time += timedelta(seconds=605)

    assert authenticator.known(text) is None
    with pytest.raises(Rejected) as caught:
        await authenticator.verify(text, strict=False)
    assert caught.value.code == "token_expired"
