"""Reads the JWTs of one issuer, by its public keys."""

import asyncio
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jwt

from orchestrator.domain.access import SCOPES, Claims, Issuer, Scope
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.ports import Clock

logger = logging.getLogger(__name__)

_FRESH: Final = 300.0  # seconds for which keys need not be looked at again
_AGAIN: Final = 30.0  # seconds between two looks, whatever tokens claim
_FETCH_SECONDS: Final = 5.0
_MOST_BYTES: Final = 256 * 1024
_LEEWAY: Final = 30.0  # seconds that clocks may differ
_MOST_NAME: Final = 128  # characters of a subject
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Trust:
    """Which tokens are taken."""

    issuer: str
    audience: str
    keys: str  # an https URL, or a file
    algorithms: Sequence[str]  # none with a shared secret: what verifies could sign then
    tenant_claim: str = "tenant"
    scopes_claim: str = "scope"


class JwtIssuer(Issuer):
    """`Issuer` over JWTs. Keys are fetched when they are first needed, when they are old, and when a token names one
    that is not among them; while they cannot be, those that were there go on.
    """

    def __init__(self, trust: Trust, clock: Clock) -> None:
        self._trust = trust
        self._clock = clock
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._looked_at: float | None = None
        self._looking = asyncio.Lock()

    async def read(self, token: str) -> Claims | None:
        """What the token says, where it is right."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in self._trust.algorithms:
                return None
            key = await self._key(header.get("kid"))
            return None if key is None else self._claims(token, key)
        except jwt.PyJWTError:
            return None

    async def _key(self, kid: object) -> jwt.PyJWK | None:
        name = kid if isinstance(kid, str) else None
        if self._is_old(_FRESH) or (name not in self._keys and self._is_old(_AGAIN)):
            async with self._looking:
                if self._is_old(_AGAIN):  # else another token had the same wish
                    await self._look()
        return self._keys.get(name)

    def _is_old(self, seconds: float) -> bool:
        return self._looked_at is None or self._clock.monotonic() - self._looked_at >= seconds

    async def _look(self) -> None:
        self._looked_at = self._clock.monotonic()  # also where it fails: no token makes us ask more often
        try:
            found = jwt.PyJWKSet.from_dict(json.loads(await asyncio.to_thread(_fetched, self._trust.keys)))
        except (OSError, ValueError, jwt.PyJWTError) as failure:
            logger.warning("the keys of %s cannot be had: %s", self._trust.issuer, failure)
            return
        keys: dict[str | None, jwt.PyJWK] = {key.key_id: key for key in found.keys if _is_public(key)}
        if len(keys) == 1:
            keys[None] = next(iter(keys.values()))  # a token need not name the only one
        self._keys = keys

    def _claims(self, token: str, key: jwt.PyJWK) -> Claims | None:
        trust = self._trust
        if key.algorithm_name not in trust.algorithms:
            return None
        fields = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer=trust.issuer,
            audience=trust.audience,
            leeway=_LEEWAY,
            # Times are held against our clock below; the library has one of its own.
            options={
                "require": ["exp", "iss", "aud", "sub"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
        expires, since = fields["exp"], fields.get("nbf", 0)
        if not _is_time(expires) or not _is_time(since):
            return None
        now = self._clock.now().timestamp()
        if now >= expires + _LEEWAY or now < since - _LEEWAY:
            return None
        tenant, subject = fields.get(trust.tenant_claim), str(fields["sub"])
        if not isinstance(tenant, str) or not subject.isprintable() or len(subject) > _MOST_NAME:
            return None
        until = datetime.fromtimestamp(expires + _LEEWAY, UTC)
        return Claims(tenant, subject, _scopes(fields.get(trust.scopes_claim)), until)


def _fetched(place: str) -> bytes:
    """The set of keys, from an https URL, a loopback one, or a file. Blocking."""
    if "://" not in place:
        with Path(place).open("rb") as file:
            return file.read(_MOST_BYTES)
    with urllib.request.urlopen(place, timeout=_FETCH_SECONDS) as answer:  # noqa: S310 - checked by `require_safe`
        if not _is_safe(answer.url):
            raise OSError(f"{place} leads to {answer.url}, which is not safe")
        found: bytes = answer.read(_MOST_BYTES)
        return found


def require_safe(place: str) -> None:
    """Raises InvalidRequestError where keys would come over a wire that anybody may write to."""
    if "://" in place and not _is_safe(place):
        raise InvalidRequestError(
            f"The keys at {place} could be anybody's.", hint="Give an https URL, or a file, in ORCHESTRATOR_JWT_KEYS."
        )


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


def _is_public(key: jwt.PyJWK) -> bool:
    return key.key_type in {"RSA", "EC", "OKP"}  # a set that has a shared secret in it is none of ours


def _is_time(value: Any) -> bool:  # noqa: ANN401 - what a token says
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**40


def _scopes(claim: object) -> frozenset[Scope]:
    words = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return frozenset(scope for scope in SCOPES if scope in words)
