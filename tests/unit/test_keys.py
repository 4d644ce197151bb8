"""Keys as text: what is one, what opens, and that none stays in what is kept."""

import hashlib
import hmac

import pytest

from orchestrator.domain import keys

SECRET = "ab" * 32
TOKEN = keys.token_of("0123456789ab", SECRET)


def test_a_key_is_read_back_as_it_was_made() -> None:
    assert keys.parsed(TOKEN) == ("0123456789ab", SECRET)
    assert keys.is_secret(SECRET, keys.digest_of(SECRET))


@pytest.mark.parametrize(
    "token",
    ["", "so_", TOKEN[:-1], TOKEN + "0", TOKEN.upper(), TOKEN + "\n", " " + TOKEN, "so_0123456789ab_" + "é" * 64],
)
def test_whatever_is_not_a_key_is_not_taken_for_one(token: str) -> None:
    assert keys.parsed(token) is None


def test_an_unknown_prefix_is_compared_as_a_known_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    genuine = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return genuine(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert not keys.is_secret(SECRET, None)
    assert not keys.is_secret(SECRET, hashlib.sha256(b"other").digest())
    assert compared == [(32, 32), (32, 32)]


def test_nobody_opens_anything_with_the_secret_that_unknown_keys_are_compared_with() -> None:
    assert not keys.is_secret("nobody's", None)


def test_text_that_is_kept_has_no_key_in_it() -> None:
    jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0aaaa.c2lnbmF0dXJl"
    text = f"key = '{TOKEN}'; other = '{jwt}'; x = 1"
    assert keys.masked(text) == "key = '[key removed]'; other = '[key removed]'; x = 1"
