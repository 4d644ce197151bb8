"""A session's cells as a notebook: one that Jupyter's own schema takes, whatever cells printed."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.domain.errors import SessionNotFoundError
from orchestrator.domain.kept_results import rest_of
from orchestrator.domain.model import CellError, CellText, Display, ExecutionResult
from orchestrator.domain.notebooks import notebook
from tests.unit.pretended_engine import house


def read(text: str) -> Any:  # noqa: ANN401 - as the library has it
    return nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]


def cell(number: int, code: str, output: str, value: str | None, error: CellError | None, *shown: Display) -> CellText:
    answer = ExecutionResult(
        status="ok" if error is None else "error",
        output=output,
        truncated=False,
        output_bytes=0,
        value=value,
        displays=shown,
        error=error,
        execution=number,
        duration_ms=1.0,
        session_id="s",
        bound=(),
        removed=(),
        saved_through=None,
        resumed_from=None,
        memory_peak=0,
        notes=(),
    )
    return CellText(number, code, output, 0, rest_of(answer, pictures=True))


def test_output_values_figures_and_errors_stand_where_they_belong() -> None:
    error = CellError("exception", "ValueError", "no", "\x1b[31mTraceback\x1b[0m\nValueError: no", None)
    png, html = Display("image/png", b"\x89PNG"), Display("text/html", b"<script>1</script>")
    cells = [cell(1, "a = 1\na", "\x1b[1mbold\x1b[0m\n", "1", None, png, html), cell(4, "x", "", None, error)]

    made = read(notebook(cells, "3.11", "s"))
    nbformat.validate(made)

    first, second = made.cells
    assert (first.source, first.execution_count, second.execution_count) == ("a = 1\na", 1, 4)
    stream, figure, text, value = first.outputs
    assert stream.text == "\x1b[1mbold\x1b[0m\n"
    assert figure.data == {"image/png": "iVBORw=="}
    assert text.data == {"text/plain": "(18 bytes of text/html)"}
    assert value.data == {"text/plain": "1"}
    (failed,) = second.outputs
    assert (failed.ename, failed.evalue) == ("ValueError", "no")
    assert failed.traceback == ["\x1b[31mTraceback\x1b[0m", "ValueError: no"]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_every_text_makes_a_valid_notebook(code: str, output: str) -> None:
    made = notebook([cell(1, code, output, output, None)], "3.11", "s")
    nbformat.validate(read(made))
    made.encode()
    sound = code.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert "".join(json.loads(made)["cells"][0]["source"]) == sound


async def test_a_sessions_notebook_holds_its_cells_and_wakes_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        await opened.run("x = 1")
        await opened.run("x")
        await opened.hibernate()
        launched = len(opened.engine.agents)
        made = read(await opened.tenancy.capsules.exports.notebook("s"))
        nbformat.validate(made)
        assert [one.source for one in made.cells] == ["x = 1", "x"]
        assert len(opened.engine.agents) == launched
        with pytest.raises(SessionNotFoundError):
            await opened.tenancy.capsules.exports.notebook("nobody")
