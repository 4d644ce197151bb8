"""What a sandbox says is capped and cleaned, and its types are checked, before it goes anywhere."""

import time
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import claims
from orchestrator.domain.wire import ProtocolViolationError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("naïve Ωμέγα 変数", "naïve Ωμέγα 変数"),
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("line\nbreak\ttab\rback", "line\\nbreak\\ttab\\rback"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("\x7f\x80", "\\x7f\\x80"),
        ("\u2028", "\\u2028"),
    ],
)
def test_characters_that_hide_or_reorder_are_shown_as_escapes(text: str, shown: str) -> None:
    assert claims.clean(text, 200) == shown


def test_lines_and_tabs_stay_where_they_may_and_nothing_else_does() -> None:
    assert claims.clean("a\n\tb\r\x00", 100, lines=True) == "a\n\tb\\r\\x00"


@given(st.text(st.characters()), st.integers(1, 60))
def test_cleaned_text_is_short_encodable_and_free_of_control_characters(text: str, limit: int) -> None:
    cleaned = claims.clean(text, limit)
    assert len(cleaned) <= limit
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert not {unicodedata.category(character) for character in cleaned} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_cleaning_costs_what_is_kept_and_not_what_was_claimed() -> None:
    began = time.perf_counter()
    claims.clean("\u202e" * 5_000_000, 200)
    assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff\xfe{\x00}\x00",
        b'"\xed\xa0\x80"',
        b"NaN",
        b"[Infinity]",
        b"9" * 5_000,
        b"[" * 100_000,
        b"[" + b"0," * 300_000 + b"0]",
        b'"' + b"x" * 1_100_000 + b'"',
    ],
)
def test_json_that_is_broken_deep_rich_or_long_is_a_violation(raw: bytes) -> None:
    with pytest.raises(ProtocolViolationError):
        claims.json_of(raw, limit=1024 * 1024)


WRONG: list[Any] = [None, "1", 1.5, -1, True, [], {}, 2**53 + 1, 10**400]


@pytest.mark.parametrize("value", WRONG)
def test_count_is_a_whole_number_of_a_sane_size(value: object) -> None:
    with pytest.raises(ProtocolViolationError):
        claims.count_in({"n": value}, "n")
    assert claims.count_in({"n": 2**53}, "n") == 2**53


@pytest.mark.parametrize("value", [None, "1", True, -0.1, float("inf"), float("nan"), 10**400, []])
def test_duration_is_finite_and_not_negative(value: object) -> None:
    with pytest.raises(ProtocolViolationError):
        claims.seconds_in({"s": value}, "s")
    assert claims.seconds_in({"s": 3}, "s") == 3.0


@pytest.mark.parametrize("value", [0, 1, "true", None, []])
def test_flag_is_nothing_but_true_or_false(value: object) -> None:
    with pytest.raises(ProtocolViolationError):
        claims.flag_in({"f": value}, "f")


def test_absent_field_is_not_taken_for_a_null_one() -> None:
    assert claims.optional_text_in({"t": None}, "t", 10) is None
    with pytest.raises(ProtocolViolationError):
        claims.optional_text_in({}, "t", 10)
    with pytest.raises(ProtocolViolationError):
        claims.optional_count_in({}, "n")


@pytest.mark.parametrize("value", [None, "abc", {"a": 1}, ["a", 1], [["a"]]])
def test_list_of_texts_holds_nothing_but_texts(value: object) -> None:
    with pytest.raises(ProtocolViolationError):
        claims.texts_in({"l": value}, "l", most=5, limit=5)


def test_long_list_of_texts_is_cut_and_the_rest_counted() -> None:
    assert claims.texts_in({"l": ["a\n", "bbbbbb", "c"]}, "l", most=2, limit=4) == (("a\\n", "bbb…"), 1)
