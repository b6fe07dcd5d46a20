"""
Access tokens: JWTs signed with Ed25519.

PyJWT checks the signature and nothing else: left to itself it takes any ``typ``, a list as ``aud``, text as ``exp``, a
claim given twice and the same token with ``==`` behind it. Form, header and claims are checked here.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from msgspec import Struct

from smartgrid_commands.accounts import Claims
from smartgrid_domain.errors import Forbidden, Invalid
from smartgrid_domain.strict_json import strict_value

T = TypeVar("T")

FORM = re.compile(rb"([A-Za-z0-9_-]{1,512})\.([A-Za-z0-9_-]{1,3072})\.([A-Za-z0-9_-]{86})\Z")
LEEWAY_S = 5
MAX_LIFE_S = 600
MAX_KEYS = 3
ALGORITHM = "EdDSA"
TYPE = "at+jwt"
ROLES = frozenset({"viewer", "analyst", "operator", "admin"})


class _Header(Struct, frozen=True, forbid_unknown_fields=True):
    """The only header we make, and so the only one we take: no ``jku``, ``jwk``, ``x5u`` or ``crit``."""

    alg: Literal["EdDSA"]
    typ: Literal["at+jwt"]
    kid: str


class SigningKey(Struct, frozen=True):
    """
    A key pair, or the public half of one.

    Attributes:
        kid: Its id in token headers.
        public: Verifies.
        private: Signs; None where only verifying is needed.
    """

    kid: str
    public: Ed25519PublicKey
    private: Ed25519PrivateKey | None = None


class JwtAccessTokens:
    """The port ``AccessTokens``."""

    def __init__(self, keys: Sequence[SigningKey], *, issuer: str = "smartgrid", audience: str = "smartgrid") -> None:
        """
        Take *keys*, at most three; the first one that can, signs.

        Args:
            keys: Newest first.
            issuer: The ``iss`` of our tokens.
            audience: The ``aud`` of our tokens.
        """
        self._keys: Mapping[str, Ed25519PublicKey] = {key.kid: key.public for key in keys[:MAX_KEYS]}
        self._signing = next((key for key in keys if key.private is not None), None)
        self._issuer, self._audience = issuer, audience
        self._jws = jwt.PyJWS(algorithms=[ALGORITHM])

    def sign(self, claims: Claims) -> str:
        key = self._signing
        if key is None or key.private is None:
            raise RuntimeError("this process has no signing key")
        payload = msgspec.json.encode(claims)
        return self._jws.encode(payload, key.private, ALGORITHM, headers={"typ": TYPE, "kid": key.kid})

    def verify(self, token: bytes, *, now: datetime) -> Claims:
        match = FORM.match(token)
        if match is None:
            raise _invalid()
        header_text, payload_text, signature = match.groups()
        header = _decoded(header_text, _HEADER)
        key = self._keys.get(header.kid)
        if key is None or not _canonical(signature):
            raise _invalid()
        try:
            self._jws.decode(token, key, algorithms=[ALGORITHM])
        except jwt.InvalidTokenError:
            raise _invalid() from None
        claims = _decoded(payload_text, _CLAIMS)
        self._check(claims, int(now.timestamp()))
        return claims

    def _check(self, claims: Claims, now_s: int) -> None:
        issued, end = claims.iat, claims.exp
        good = (
            claims.iss == self._issuer
            and claims.aud == self._audience
            and claims.role in ROLES
            and all((claims.sub, claims.jti, claims.sid))
            and claims.sv >= 1
            and 0 < issued <= now_s + LEEWAY_S
            and issued < end <= issued + MAX_LIFE_S
        )
        if not good:
            raise _invalid()
        if end + LEEWAY_S <= now_s:
            raise Forbidden("token_expired", "The token has ended; sign in again")

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        return {"keys": [_jwk(kid, key) for kid, key in self._keys.items()]}


_HEADER = msgspec.json.Decoder(_Header)
_CLAIMS = msgspec.json.Decoder(Claims)


def _invalid() -> Forbidden:
    return Forbidden("unauthenticated", "The token is invalid")


def _decoded(text: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Return a part of a token, read strictly: no spelling but one, no key twice, nothing unknown."""
    if not _canonical(text):
        raise _invalid()
    body = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    try:
        strict_value(body)
        return decoder.decode(body)
    except (Invalid, msgspec.DecodeError):
        raise _invalid() from None


def _canonical(text: bytes) -> bool:
    """Return whether *text* is the one base64 spelling of its bytes: the last character has bits that do not count."""
    if len(text) % 4 == 1:
        return False
    return urlsafe_b64encode(urlsafe_b64decode(text + b"=" * (-len(text) % 4))).rstrip(b"=") == text


def _jwk(kid: str, key: Ed25519PublicKey) -> dict[str, str]:
    x = urlsafe_b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).rstrip(b"=").decode("ascii")
    return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": ALGORITHM, "kid": kid, "x": x}


def load_keys(folder: Path, *, make: bool) -> list[SigningKey]:
    """
    Return the keys in *folder*, newest first, at most three.

    Args:
        folder: Holds ``<kid>.pem`` files: PKCS#8 private keys, or public keys where nobody signs.
        make: Whether to make a key when there is none. Processes that start together make one between them.

    Raises:
        FileNotFoundError: There is no key and none may be made.
    """
    with _locked(folder) if make else contextlib.nullcontext():
        paths = sorted(folder.glob("*.pem"), key=lambda path: (-path.stat().st_mtime_ns, path.name))
        if not paths and make:
            paths = [_make_key(folder)]
    if not paths:
        raise FileNotFoundError(f"no signing key (*.pem) in {folder}")
    return [_key(path) for path in paths[:MAX_KEYS]]


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _make_key(folder: Path) -> Path:
    private = Ed25519PrivateKey.generate()
    kid = hashlib.sha256(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]
    path = folder / f"{kid}.pem"
    write_secret(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def _key(path: Path) -> SigningKey:
    text = path.read_bytes()
    if b"PRIVATE KEY" in text:
        private = load_pem_private_key(text, password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise TypeError(f"{path} is no Ed25519 key")
        return SigningKey(path.stem, private.public_key(), private)
    public = load_pem_public_key(text)
    if not isinstance(public, Ed25519PublicKey):
        raise TypeError(f"{path} is no Ed25519 key")
    return SigningKey(path.stem, public)


def write_secret(path: Path, content: bytes) -> None:
    """Write *content* to *path* in one step, readable by its owner only from the first byte on."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    handle = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


class BootstrapFile:
    """The port ``CodeFile``: a file in the state folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, code: str) -> None:
        write_secret(self.path, code.encode("ascii"))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
