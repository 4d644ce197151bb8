"""The installation's Ed25519 key: made once, kept beside the records, readable by its owner alone. The file has the 32
bytes of the private half, as RFC 8032 has them.
"""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from orchestrator.domain.errors import StoreFullError, StoreUnusableError
from orchestrator.domain.signing import KEY_BYTES, KEY_NAME, Signing

_OTHERS: Final = 0o077


class SigningKey(Signing):
    """`Signing` with the key in that data directory."""

    def __init__(self, data_directory: Path) -> None:
        self._path = data_directory / KEY_NAME
        self._key: Ed25519PrivateKey | None = None

    def public_key(self) -> bytes:
        """The public half."""
        return self._private().public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature."""
        return self._private().sign(message)

    def verify(self, key: bytes, signature: bytes, message: bytes) -> bool:
        """Whether the holder of that key has signed that."""
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def _private(self) -> Ed25519PrivateKey:
        if self._key is None:
            try:
                self._key = Ed25519PrivateKey.from_private_bytes(self._stored())
            except OSError as error:
                raise StoreUnusableError(f"The signing key {self._path} cannot be read: {error.strerror}.") from error
        return self._key

    def _stored(self) -> bytes:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            self._make()
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            stored = os.read(descriptor, KEY_BYTES + 1)
        finally:
            os.close(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & _OTHERS or found.st_uid != os.geteuid():
            raise StoreUnusableError(
                f"The signing key {self._path} could be read or changed by others.",
                hint="Find out who did; then make it yours, with mode 0600, or remove it, which makes a new one.",
            )
        if len(stored) != KEY_BYTES:
            raise StoreUnusableError(
                f"The signing key {self._path} is damaged.", hint="Restore it, or remove it, which makes a new one."
            )
        return stored

    def _make(self) -> None:
        """Whole or not at all, and never over one that is there."""
        draft = self._path.with_name(f".{KEY_NAME}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.write(descriptor, Ed25519PrivateKey.generate().private_bytes_raw())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            with suppress(FileExistsError):
                os.link(draft, self._path)
        except OSError as error:
            raise StoreFullError(f"The signing key cannot be kept: {error.strerror}.") from error
        finally:
            draft.unlink(missing_ok=True)
