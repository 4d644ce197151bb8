"""docs/admin.md says which orders there are, what they take, and what is in JSON: held to the code and its output."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.adapters.store.records import RECORDS_NAME, open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.errors import Code, OrchestratorError
from orchestrator.faces.cli import app
from orchestrator.faces.cli.failures import exit_of, told_to_the_terminal
from orchestrator.faces.cli.output import NotConfirmedError
from orchestrator.services.order_book import ORDERS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "admin.md").read_text("utf-8")


def test_every_order_stands_there_as_it_is() -> None:
    rows = [line.split(" | ") for line in DOCUMENT.partition("## Orders")[2].splitlines() if line.startswith("| `")]
    told = {(row[0].strip("| `"), row[1], row[2], tuple(re.findall(r"`(\w+)`", row[3]))) for row in rows}
    assert told == {(order.name, "yes" if order.reads else "no", order.basis, tuple(order.takes)) for order in ORDERS}
    assert len({order.name for order in ORDERS}) == len(ORDERS)


def fields(of: str) -> set[str]:
    (row,) = [line for line in DOCUMENT.splitlines() if line.startswith(f"| `{of}`")]
    return set(re.findall(r"`(\w+)`", row.split(" | ")[1]))


async def _session(data: Path) -> None:
    async with open_records(data / RECORDS_NAME, SystemClock()) as records:
        session = await records.ensure_session("local", "s", "environment")
        await records.begin_creating(session.key, 0)
        await records.session_ready(session.key, 1)
        number = await records.open_execution(session.key, 1)
        assert number is not None
        await records.close_execution(session.key, number, "ok", bound=["x"], removed=[], variable_count=1)


async def test_json_has_the_fields_that_stand_there(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    await _session(data)
    for of, order in (
        ("tenant list", ("tenant", "list")),
        ("session list", ("session", "list")),
        ("session executions", ("session", "executions", "s")),
        ("status", ("status",)),
    ):
        line = await asyncio.to_thread(_first_line, *order, data=data)
        assert set(line) == fields(of), of


def _first_line(*order: str, data: Path) -> dict[str, object]:
    result = CliRunner().invoke(app, [*order, "--json", "--data-dir", str(data)])
    assert result.exit_code == 0, result.output
    line: dict[str, object] = json.loads(result.stdout.splitlines()[0])
    return line


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("internal", 1),
        ("invalid_request", 2),
        ("not_found", 3),
        ("forbidden", 4),
        ("quota", 4),
        ("owned", 4),
        ("busy", 5),
        ("engine_unavailable", 5),
        ("store_unusable", 5),
    ],
)
def test_each_class_of_error_has_its_exit_code(code: Code, exit_code: int) -> None:
    assert exit_of(code) == exit_code
    assert f"| {exit_code} |" in DOCUMENT


def test_a_failure_is_a_sentence_and_a_hint_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    for error, code in ((OrchestratorError("It broke.", hint="Mend it."), 1), (NotConfirmedError("No."), 4)):
        with pytest.raises(Exception) as left, told_to_the_terminal():  # noqa: PT011 - typer's own way out
            raise error
        assert getattr(left.value, "exit_code", None) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == ["error: It broke.", "Mend it.", "error: No."]
