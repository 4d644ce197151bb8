"""Who signs what leaves an installation, and whose signatures are taken. The port's docstrings are its contract."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from orchestrator.domain.errors import InvalidRequestError

KEY_NAME: Final = "signing.key"  # in the data directory: the private half
KEY_BYTES: Final = 32  # of an Ed25519 public key
SIGNATURE_BYTES: Final = 64
_KEY = re.compile(r"[0-9a-f]{64}")


class Signing(Protocol):
    """The installation's own key. Calls may run concurrently, and block for microseconds of the processor, but for the
    first: that makes the key where there is none. All raise StoreUnusableError where the key is not as it should be,
    StoreFullError where there is no room to keep one.
    """

    def public_key(self) -> bytes:
        """The public half."""

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature."""

    def verify(self, key: bytes, signature: bytes, message: bytes) -> bool:
        """Whether the holder of that public key has signed that message; False for a key that is none."""


@dataclass(frozen=True, slots=True)
class TrustedSigner:
    """Somebody else whose capsules may be imported."""

    name: str  # given by the operator here, never by the signer
    key: str  # public, 64 hexadecimal characters
    added_at: datetime


def key_of(text: str) -> str:
    """The public key that `text` names. Raises InvalidRequestError."""
    key = text.strip().lower()
    if _KEY.fullmatch(key) is None:
        raise InvalidRequestError(
            "That is no public key.", hint="Give the 64 hexadecimal characters that the other installation shows."
        )
    return key


def signers_of(text: str | None) -> tuple[TrustedSigner, ...]:
    """Those that were noted as `text_of` writes them."""
    rows = [] if text is None else json.loads(text)
    return tuple(TrustedSigner(name, key, datetime.fromisoformat(at)) for name, key, at in rows)


def text_of(signers: Sequence[TrustedSigner]) -> str:
    """For the records."""
    return json.dumps([[signer.name, signer.key, signer.added_at.isoformat()] for signer in signers])


def fingerprint(key: str) -> str:
    """What people compare: the SHA-256 of the public key, in groups."""
    digest = hashlib.sha256(bytes.fromhex(key)).hexdigest()
    return ":".join(digest[start : start + 4] for start in range(0, 32, 4))
