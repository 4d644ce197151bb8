"""Results that clients take whole: bounded whatever a sandbox reports, and never a byte that JSON cannot carry."""

import struct
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from mcp_types import CallToolResult, TextContent

from orchestrator.domain.model import CellError, Display, ExecutionResult, Namespace, Variable
from orchestrator.faces import mcp_results, result_limits

MEGABYTE = 1_000_000
PLAIN = ExecutionResult(
    status="ok",
    output="",
    truncated=False,
    output_bytes=0,
    value=None,
    displays=(),
    error=None,
    execution=3,
    duration_ms=12.0,
    session_id="s",
    bound=(),
    removed=(),
    saved_through=None,
    resumed_from=None,
    memory_peak=0,
    notes=(),
)


def png(size: int, side: int = 100) -> bytes:
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", side, side)
    return head + b"\xff" * (size - len(head))


def text(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


def test_the_worst_result_stays_under_a_megabyte() -> None:
    hostile = replace(
        PLAIN,
        status="error",
        output="\x01\u4e2d\n" * 1_000_000,
        value="\x01" * 1_000_000,
        displays=(Display("image/png", png(170_000)),) * 200,
        error=CellError("exception", "E" * 100_000, "m" * 100_000, "\x02" * 1_000_000, "hint"),
        bound=("n" * 10_000,) * 10_000,
        removed=("\u4e2d" * 10_000,) * 10_000,
        notes=("\x01" * 100_000,) * 1_000,
    )
    result = mcp_results.execution_answer(hostile)
    assert len(result.model_dump_json(by_alias=True).encode()) < MEGABYTE


def test_a_listing_of_any_length_stays_under_a_megabyte_and_counts_all() -> None:
    namespace = Namespace(
        variables=(Variable("\u4e2d" * 10_000, "t" * 10_000, 1),) * 20_000,
        imports=(Variable("m" * 10_000, "module", None),) * 20_000,
        notes=("n" * 100_000,) * 100,
    )
    result = mcp_results.variables_answer("s", namespace)
    assert len(result.model_dump_json(by_alias=True).encode()) < MEGABYTE
    assert isinstance(result.structured_content, dict)
    assert result.structured_content["variable_count"] == 20_000
    assert "more variables are not listed" in text(result)


def test_lone_surrogates_are_replaced() -> None:
    result = mcp_results.execution_answer(replace(PLAIN, output="a\ud800b", value="\udfff", bound=("x\ud800",)))
    assert "a?b" in result.model_dump_json()


def test_images_that_models_refuse_are_named_with_the_reason() -> None:
    displays = (
        Display("image/png", png(1000, side=4000)),
        Display("image/png", b"<svg/>"),
        Display("text/html", b"<b>bold</b>"),
        Display("image/png", png(600_000)),
        Display("image/png", png(1000)),
    )
    result = mcp_results.execution_answer(replace(PLAIN, displays=displays))
    assert [block.type for block in result.content] == ["text", "image"]
    for reason in ("4000 x 4000 pixels", "not a PNG", "only PNG", "too much room"):
        assert reason in text(result)
    assert "Figure 5 is attached" in text(result)


def test_the_text_alone_tells_the_whole_story() -> None:
    result = mcp_results.execution_answer(
        replace(
            PLAIN,
            output="printed\n",
            value="a\nb",
            bound=("x", "y"),
            removed=("z",),
            saved_through=2,
            notes=("Variables were lost.",),
        )
    )
    assert text(result).splitlines() == [
        "printed",
        "Value:",
        "a",
        "b",
        "Note: Variables were lost.",
        "[ok · session 's' · execution 3 · 12 ms · bound x, y · removed z · saved through execution 2]",
    ]


def test_a_loss_is_told_with_every_name_that_it_has() -> None:
    loss = "Lost: " + ", ".join(f"a_variable_with_a_long_name_{number}" for number in range(200))
    result = mcp_results.execution_answer(replace(PLAIN, notes=(loss, *(f"Not saved: v{n}" for n in range(30)))))
    assert result.structured_content is not None
    assert result.structured_content["notes"] == [loss, *(f"Not saved: v{n}" for n in range(30))]
    assert f"Note: {loss}\nNote: Not saved: v0" in text(result)


def test_notes_that_do_not_fit_are_counted() -> None:
    notes = tuple(f"{number}: " + "x" * 10_000 for number in range(20))
    for result in (
        mcp_results.execution_answer(replace(PLAIN, notes=notes)),
        mcp_results.variables_answer("s", Namespace((), (), notes)),
    ):
        assert result.structured_content is not None
        *kept, last = result.structured_content["notes"]
        assert kept == list(notes[: len(kept)])
        assert last == f"{20 - len(kept)} more notes are left out: the result would be too long."


def test_a_fork_that_ran_nothing_is_saved_through_none_of_its_executions() -> None:
    result = mcp_results.execution_answer(replace(PLAIN, saved_through=0))
    assert result.structured_content is not None
    assert result.structured_content["saved_through"] is None
    assert "saved through" not in text(result)


def test_a_cut_output_says_how_much_there_was() -> None:
    result = mcp_results.execution_answer(replace(PLAIN, output="begin … end", truncated=True, output_bytes=50_000_000))
    assert "the whole was 50000000 bytes" in text(result)


@given(st.text(st.characters(codec=None), max_size=2_000), st.integers(900, 5_000))
def test_whatever_is_cut_fits_and_keeps_both_ends(given_text: str, budget: int) -> None:
    cut = result_limits.fit(given_text, budget)
    cut.encode()
    cleaned = result_limits.clean(given_text)
    if cut != cleaned:
        assert cut.startswith(cleaned[:100])
        assert cut.endswith(cleaned[-50:])
        assert "characters left out here" in cut
