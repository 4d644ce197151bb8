"""Which tokens of an issuer are taken: none that another could have made, for nobody else, at no other time."""

import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from orchestrator.adapters.jwt_issuer import JwtIssuer, Trust, require_safe
from orchestrator.domain.errors import InvalidRequestError
from tests.manual_clock import ManualClock

ISSUER, AUDIENCE = "https://id.example.org", "orchestrator"
KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def jwk(key: ec.EllipticCurvePrivateKey, name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    return {**told, "kid": name, "alg": "ES256", "use": "sig"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [jwk(KEY, "one"), jwk(OTHER, "two")]}))
    return path


@pytest.fixture
def issuer(keys: Path, clock: ManualClock) -> JwtIssuer:
    return JwtIssuer(Trust(ISSUER, AUDIENCE, str(keys), ["ES256", "RS256"]), clock)


def claims(clock: ManualClock, **others: object) -> dict[str, object]:
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user", "tenant": "red", "scope": "openid use read"}
    told = {**usual, "exp": int((clock.now() + timedelta(hours=1)).timestamp()), **others}
    return {name: value for name, value in told.items() if value is not None}


def token(payload: dict[str, object], key: Any = KEY, algorithm: str = "ES256", kid: str | None = "one") -> str:  # noqa: ANN401
    return jwt.encode(payload, key, algorithm=algorithm, headers=None if kid is None else {"kid": kid})


def forged(header: dict[str, object], payload: dict[str, object], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(payload).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


async def test_a_token_says_tenant_scopes_and_end(issuer: JwtIssuer, clock: ManualClock) -> None:
    read = await issuer.read(token(claims(clock)))
    assert read is not None
    assert (read.tenant, read.subject, read.scopes) == ("red", "user", frozenset({"use", "read"}))
    assert read.expires_at - clock.now() == timedelta(hours=1, seconds=30)
    listed = await issuer.read(token(claims(clock, scope=["admin", "other"])))
    assert listed is not None
    assert listed.scopes == {"admin"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://evil.example.org"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"exp": None},
        {"exp": 1},
        {"exp": "never"},
        {"exp": True},
        {"nbf": 2**39},
        {"sub": None},
        {"sub": "a\nb"},
        {"sub": "x" * 129},
        {"tenant": None},
        {"tenant": ["red"]},
    ],
)
async def test_what_is_for_somebody_else_or_another_time_is_not_taken(
    wrong: dict[str, object], issuer: JwtIssuer, clock: ManualClock
) -> None:
    assert await issuer.read(token(claims(clock, **wrong))) is None


async def test_what_the_issuer_has_not_signed_is_not_taken(issuer: JwtIssuer, clock: ManualClock) -> None:
    payload: dict[str, object] = claims(clock)
    header: dict[str, object] = {"kid": "one", "typ": "JWT"}
    genuine = token(payload)
    head, body, signature = genuine.split(".")
    for bad in (
        "",
        "a.b.c",
        genuine[:-4],
        token(payload, OTHER),  # another key's signature under this one's name
        token(payload, RSA, "RS256"),
        token(payload, kid="three"),
        token(payload, kid=None),  # of two
        forged({**header, "alg": "none"}, payload),
        forged({**header, "alg": "None"}, payload),
        forged({**header, "alg": "HS256"}, payload, _mac(payload, header)),
        f"{head}.{body}x.{signature}",
    ):
        assert await issuer.read(bad) is None, bad


def _mac(payload: dict[str, object], header: dict[str, object]) -> bytes:
    """As one would sign who takes the public key for a shared secret."""
    import hashlib  # noqa: PLC0415
    import hmac  # noqa: PLC0415

    signed = forged({**header, "alg": "HS256"}, payload).rpartition(".")[0]
    return hmac.digest(PEM, signed.encode(), hashlib.sha256)


async def test_an_expired_token_is_taken_no_more(issuer: JwtIssuer, clock: ManualClock) -> None:
    made = token(claims(clock))
    clock.advance(3600 + 29)
    assert await issuer.read(made) is not None
    clock.advance(1)
    assert await issuer.read(made) is None


async def test_new_keys_are_found_and_unknown_ones_cost_no_look_each(
    issuer: JwtIssuer, keys: Path, clock: ManualClock
) -> None:
    assert await issuer.read(token(claims(clock))) is not None
    new = ec.generate_private_key(ec.SECP256R1())
    keys.write_text(json.dumps({"keys": [jwk(new, "three")]}))  # noqa: ASYNC240 - a small file
    assert await issuer.read(token(claims(clock), new, kid="three")) is None
    clock.advance(30)
    assert await issuer.read(token(claims(clock), new, kid="three")) is not None
    assert await issuer.read(token(claims(clock))) is None


async def test_keys_go_on_while_new_ones_cannot_be_had(issuer: JwtIssuer, keys: Path, clock: ManualClock) -> None:
    assert await issuer.read(token(claims(clock))) is not None
    keys.write_text("not JSON")  # noqa: ASYNC240 - a small file
    clock.advance(301)
    assert await issuer.read(token(claims(clock))) is not None


async def test_a_shared_secret_among_the_keys_verifies_nothing(keys: Path, clock: ManualClock) -> None:
    secret = base64.urlsafe_b64encode(b"s" * 32).rstrip(b"=").decode()
    keys.write_text(json.dumps({"keys": [{"kty": "oct", "k": secret, "kid": "one", "alg": "HS256"}]}))  # noqa: ASYNC240
    careless = JwtIssuer(Trust(ISSUER, AUDIENCE, str(keys), ["HS256", "ES256"]), clock)
    assert await careless.read(token(claims(clock), b"s" * 32, "HS256")) is None


@pytest.mark.parametrize("place", ["https://id.example.org/keys", "http://127.0.0.1:1/keys", "/etc/keys.json"])
def test_keys_come_from_safe_places(place: str) -> None:
    require_safe(place)


@pytest.mark.parametrize("place", ["http://id.example.org/keys", "ftp://x/keys", "file:///etc/keys"])
def test_keys_come_over_no_wire_that_anybody_may_write_to(place: str) -> None:
    with pytest.raises(InvalidRequestError):
        require_safe(place)
