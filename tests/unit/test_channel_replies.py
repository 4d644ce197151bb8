"""What an agent replies becomes records of ours: cut and cleaned where user code can reach, refused where it cannot."""

import json
from typing import Any

import pytest

from orchestrator.adapters.channel import replies
from orchestrator.domain.model import CellOrder, CellReport, Display
from orchestrator.domain.wire import Frame, ProtocolViolationError

ORDER = CellOrder(3, "x", time_limit=1, grace=1, output_head=8, output_tail=8)
PNG = b"\x89PNG\r\n\x1a\nrest"


def report(
    *,
    worker: dict[str, Any] | bytes | None = None,
    head: bytes = b"",
    tail: bytes = b"",
    value: bytes = b"",
    traceback: bytes = b"",
    displays: tuple[bytes, ...] = (),
    **fields: object,
) -> CellReport:
    described: dict[str, Any] = {"error": None, "bound": [], "removed": [], "displays": [], "value": False, "notes": []}
    first = worker if isinstance(worker, bytes) else json.dumps({**described, **(worker or {})}).encode()
    header = {
        "type": "reply",
        "id": 1,
        "ok": True,
        "execution": 3,
        "outcome": "ok",
        "duration": 0.5,
        "output_bytes": len(head) + len(tail),
        "namespace_kept": True,
        "resumed": None,
        "memory_peak": 0,
        "variables": 0,
        "cause": None,
        "notes": [],
        **fields,
    }
    return replies.cell_report(Frame(header, (first, head, tail, value, traceback, *displays)), ORDER)


def test_killed_worker_has_reported_nothing_and_the_supervisor_says_why() -> None:
    read = report(worker=b"", outcome="crashed", namespace_kept=False, cause="it was killed by SIGSEGV\n\u202e")
    assert (read.outcome, read.bound, read.value, read.namespace_kept) == ("crashed", (), None, False)
    assert read.error_message == "it was killed by SIGSEGV\\n\\u202e"


def test_savepoint_takes_over_only_from_a_killed_worker_and_only_from_before() -> None:
    read = report(worker=b"", outcome="crashed", namespace_kept=False, resumed=2, memory_peak=5)
    assert (read.resumed, read.memory_peak) == (2, 5)
    for lie in ({"resumed": 2}, {"namespace_kept": False, "resumed": 3}, {"namespace_kept": False, "resumed": "2"}):
        with pytest.raises(ProtocolViolationError):
            report(worker=b"", outcome="crashed", **lie)


def test_refusal_says_what_stands_in_a_lost_worker_s_place() -> None:
    def refusal(**error: object) -> replies.Refusal | None:
        return replies.refusal(Frame({"type": "reply", "id": 1, "ok": False, "error": error}, ()))

    assert refusal(code="lost", message="it ended", resumed=4) == replies.Refusal("lost", "it ended", 4)
    assert refusal(code="lost", message="it ended", resumed=None) == replies.Refusal("lost", "it ended")
    assert refusal(code="stale", message="no", resumed=4) == replies.Refusal("stale", "no")
    with pytest.raises(ProtocolViolationError):
        refusal(code="lost", message="it ended")


def test_character_cut_by_the_seam_of_head_and_tail_is_whole_where_nothing_is_missing() -> None:
    text = "abcdefgé!".encode()
    read = report(head=text[:8], tail=text[8:])
    assert (read.output_head, read.output_tail) == ("abcdefg", "é!")


def test_characters_cut_by_what_was_left_out_are_dropped_and_not_shown_as_rubbish() -> None:
    read = report(head="abcdefgé".encode()[:8], tail="é!".encode()[1:], output_bytes=10_000)
    assert (read.output_head, read.output_tail, read.output_bytes) == ("abcdefg", "!", 10_000)


def test_output_is_left_as_it_is_but_for_bytes_that_are_no_text() -> None:
    assert report(head=b"\x1b[1m\x00\xff").output_head == "\x1b[1m\x00\ufffd"


@pytest.mark.parametrize("output", [{"head": b"123456789"}, {"tail": b"123456789"}, {"head": b"12", "output_bytes": 1}])
def test_more_output_than_was_asked_for_or_said_is_a_violation(output: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolationError):
        report(**output)


def test_png_is_shown_and_what_only_calls_itself_so_is_left_out_with_a_note() -> None:
    mimes = ["image/png", "image/png", "text/html", "image/png\u202e"]
    read = report(worker={"displays": mimes}, displays=(PNG, b"<svg>", b"<script>", PNG))
    assert read.displays == (Display("image/png", PNG),)
    assert len(read.notes) == 3
    assert "\\u202e" in read.notes[2]


def test_displays_beyond_the_cap_are_left_out_with_a_note() -> None:
    read = report(worker={"displays": ["image/png"] * 40}, displays=(PNG,) * 40)
    assert len(read.displays) == replies.MAX_DISPLAYS
    assert read.notes == ("Only the first 32 of 40 displays are shown.",)


def test_names_are_cleaned_cut_and_counted() -> None:
    names = ["a\u200bb", "n" * 500, *(f"v{i}" for i in range(1_500))]
    read = report(worker={"bound": names})
    assert read.bound[0] == "a\\u200bb"
    assert len(read.bound[1]) == 200
    assert len(read.bound) == 1_000
    assert "502 more names were bound" in read.notes[0]


def test_error_keeps_its_lines_and_loses_what_could_disguise_it() -> None:
    error = {"type": "Evil\nError", "message": "line one\nline two\x1b[2J" + "x" * 9_000}
    read = report(worker={"error": error}, outcome="exception", traceback=b"Traceback\xff")
    assert read.error_type == "Evil\\nError"
    assert str(read.error_message).startswith("line one\nline two\\x1b[2J")
    assert len(str(read.error_message)) == 4_000
    assert read.traceback == "Traceback\ufffd"


def test_flood_of_notes_is_cut_and_ours_come_first() -> None:
    read = report(worker={"notes": ["n" * 5_000] * 200, "bound": ["x"] * 1_001}, notes=["from the supervisor"])
    assert read.notes[0].startswith("1 more names")
    assert len(read.notes) == 51
    assert all(len(note) <= 1_000 for note in read.notes)


def test_value_over_its_cap_is_cut_with_a_note_and_none_is_none() -> None:
    long = report(worker={"value": True}, value=b"x" * (replies.MAX_VALUE + 5))
    assert long.value is not None
    assert len(long.value) == replies.MAX_VALUE
    assert "only the first" in long.notes[0]
    assert report(worker={"value": True}).value == ""
    assert report(value=b"x").value is None


@pytest.mark.parametrize(
    "worker",
    [
        b"null",
        b"{}",
        b"[",
        {"error": "x"},
        {"error": {"type": "E"}},
        {"bound": [1]},
        {"bound": {"a": 1}},
        {"displays": ["image/png"]},
        {"value": 1},
        {"notes": None},
    ],
)
def test_report_that_our_worker_does_not_write_is_a_violation(worker: dict[str, Any] | bytes) -> None:
    with pytest.raises(ProtocolViolationError):
        report(worker=worker)


def listing(**fields: object) -> Frame:
    table = {"variables": [], "imports": [], "notes": [], **fields}
    return Frame({"type": "reply", "id": 1, "ok": True}, (json.dumps(table).encode(),))


def test_listing_is_cleaned_and_cut_with_a_note() -> None:
    rows = [["a\nb", "T" * 300, None], *([f"v{i}", "int", i] for i in range(12_000))]
    read = replies.namespace(listing(variables=rows, imports=[["np", "module", 72]]))
    assert read.variables[0].name == "a\\nb"
    assert len(read.variables[0].type) == 200
    assert len(read.variables) == 10_000
    assert read.imports[0].size_bytes == 72
    assert read.notes == ("Only the first 10000 of 12001 variables are listed.",)


@pytest.mark.parametrize(
    "row", [[], ["x", "int"], ["x", "int", -1], ["x", "int", True], ["x", "int", 10**40], [1, "int", 1], "xyz", None]
)
def test_row_that_is_not_name_type_and_size_is_a_violation(row: object) -> None:
    with pytest.raises(ProtocolViolationError):
        replies.namespace(listing(variables=[row]))


@pytest.mark.parametrize("parts", [(), (b"{}", b"{}"), (b"x" * 9_000_000,)])
def test_listing_of_another_shape_is_a_violation(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(ProtocolViolationError):
        replies.namespace(Frame({"type": "reply"}, parts))
