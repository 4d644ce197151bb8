"""API keys as text: `so_<prefix>_<secret>`. Pure.

The secret is 256 random bits. A slow hash, as passwords need one, guards against guessing what people think of; nobody
guesses 256 bits, at any speed, so that one SHA-256 does, and an attacker cannot make us work by sending keys.
"""

import hashlib
import hmac
import re
from typing import Final

PREFIX_BYTES: Final = 6
SECRET_BYTES: Final = 32
_TOKEN: Final = re.compile(r"so_([0-9a-f]{12})_([0-9a-f]{64})", re.ASCII)
# Whatever may be a key or a JWT, wherever it stands; text is not kept with one in it.
_SECRETS: Final = re.compile(r"so_[0-9a-f]{12}_[0-9a-f]{16,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}", re.ASCII)
_NOBODYS: Final = hashlib.sha256(b"nobody's").digest()  # what unknown keys are compared with


def token_of(prefix: str, secret: str) -> str:
    """The key as its holder sends it."""
    return f"so_{prefix}_{secret}"


def is_key(token: str) -> bool:
    """Whether it claims to be one of ours, right or wrong."""
    return token.startswith("so_")


def parsed(token: str) -> tuple[str, str] | None:
    """Prefix and secret; None for what cannot be a key."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else (found[1], found[2])


def digest_of(secret: str) -> bytes:
    """What is stored in place of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def is_secret(secret: str, digest: bytes | None) -> bool:
    """Whether that is its digest. None, for a prefix that nobody has, is compared as well: it takes as long."""
    same = hmac.compare_digest(digest_of(secret), _NOBODYS if digest is None else digest)
    return same and digest is not None


def masked(text: str) -> str:
    """The text without what looks like a key or a JWT."""
    return _SECRETS.sub("[key removed]", text)
