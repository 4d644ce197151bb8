"""The installation's key: made once, its owner's alone, and never over one that is there."""

import stat
from pathlib import Path

import pytest

from orchestrator.adapters.signing_key import SigningKey
from orchestrator.domain.errors import InvalidRequestError, StoreFullError, StoreUnusableError
from orchestrator.domain.signing import KEY_NAME, fingerprint, key_of


def test_the_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    one = SigningKey(tmp_path)
    key, signature = one.public_key(), one.sign(b"said")
    assert stat.S_IMODE((tmp_path / KEY_NAME).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_NAME], "no draft stays"
    again = SigningKey(tmp_path)
    assert again.public_key() == key
    assert again.verify(key, signature, b"said")
    assert not again.verify(key, signature, b"not said")
    assert not again.verify(key, signature[:-1], b"said")
    assert not again.verify(b"no key", signature, b"said")


def test_a_key_that_others_could_read_or_that_is_damaged_or_a_link_is_refused(tmp_path: Path) -> None:
    SigningKey(tmp_path).public_key()
    path = tmp_path / KEY_NAME
    path.chmod(0o644)
    with pytest.raises(StoreUnusableError, match="others"):
        SigningKey(tmp_path).sign(b"")
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(StoreUnusableError, match="damaged"):
        SigningKey(tmp_path).sign(b"")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnusableError):
        SigningKey(tmp_path).sign(b"")


def test_where_no_key_can_be_kept_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreFullError):
        SigningKey(tmp_path / "nowhere").public_key()


def test_only_a_public_key_is_taken_for_one_and_people_can_compare_it() -> None:
    assert key_of(f" {'AB' * 32}\n") == "ab" * 32
    assert len(fingerprint("ab" * 32)) == 39
    for wrong in ("", "ab", "g" * 64, "ab" * 33):
        with pytest.raises(InvalidRequestError):
            key_of(wrong)
