"""Addresses that send wrong keys are not listened to for a while; nobody fills the memory by having many."""

from orchestrator.domain.attempts import WINDOW, Attempts


def test_an_address_is_blocked_from_its_last_allowed_failure_to_the_end_of_its_window() -> None:
    attempts = Attempts(2)
    attempts.failed("a", 100.0)
    assert attempts.blocked_for("a", 100.0) == 0
    attempts.failed("a", 110.0)
    assert attempts.blocked_for("a", 110.0) == WINDOW - 10
    assert attempts.blocked_for("b", 110.0) == 0
    assert attempts.blocked_for("a", 100.0 + WINDOW) == 0


def test_a_failure_after_the_window_begins_another() -> None:
    attempts = Attempts(2)
    attempts.failed("a", 0.0)
    attempts.failed("a", WINDOW)
    assert attempts.blocked_for("a", WINDOW) == 0


def test_keys_that_were_right_are_known_by_their_digest() -> None:
    attempts = Attempts(1)
    attempts.succeeded(b"1")
    assert attempts.known(b"1")
    assert not attempts.known(b"2")


def test_the_tables_stay_small_whatever_comes() -> None:
    attempts = Attempts(1)
    for number in range(3_000):
        attempts.failed(str(number), 0.0)
        attempts.succeeded(str(number).encode())
    assert attempts.addresses == 2_000
    assert attempts.blocked_for("2999", 0.0) > 0
    assert attempts.known(b"2999")
    assert not attempts.known(b"0")
