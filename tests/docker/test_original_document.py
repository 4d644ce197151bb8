"""Every code block of the original product's documentation, word for word, through a real MCP client.

The document lies beside the checkout where the project is developed and tested; elsewhere there is nothing to run.
"""

import ast
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

DOCUMENT = Path(__file__).parents[3] / "shared" / "original.txt"
TOOLS = (
    "python_repl",
    "python_list_variables",
    "python_list_sessions",
    "python_clear_session",
    "python_delete_session",
)
DATA = "price,rooms\\n10,1\\n20,2\\n,3\\n40,4\\n"

pytestmark = pytest.mark.skipif(not DOCUMENT.exists(), reason="the original's documentation is not here")


def code_blocks(text: str) -> list[str]:
    """The document has no fences: a block is the longest run of lines that is Python and calls a tool."""
    lines = text.splitlines()
    blocks, start = [], 0
    while start < len(lines):
        end = _longest_block(lines, start) if _may_begin(lines[start]) else None
        if end is None:
            start += 1
        else:
            blocks.append("\n".join(lines[start:end]))
            start = end
    return blocks


def _may_begin(line: str) -> bool:
    return line.startswith(("#", "await ", "result =", "session_id ="))


def _longest_block(lines: list[str], start: int) -> int | None:
    longest = None
    for end in range(start + 1, len(lines) + 1):
        text = "\n".join(lines[start:end])
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue  # a call whose end has not come yet, or prose, after which nothing compiles
        # Headings such as `Overview` are names, which Python would take for expressions.
        if any(isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Name) for statement in tree.body):
            break
        if "await python_" in text:
            longest = end
    return longest


class Caller:
    """The tools as the document's snippets call them; remembers every answer."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.answers: list[tuple[str, dict[str, Any], Any]] = []

    def tool(self, name: str) -> Callable[..., Awaitable[dict[str, Any]]]:
        async def call(**arguments: object) -> dict[str, Any]:
            result = await self._client.call_tool(name, arguments, read_timeout_seconds=120)
            assert not result.is_error, result
            structured: dict[str, Any] | None = result.structured_content
            assert structured is not None
            self.answers.append((name, structured, result))
            return structured

        return call

    async def run(self, block: str) -> None:
        """Run a block as if it stood in an async function, with the tools as globals."""
        namespace = {name: self.tool(name) for name in TOOLS}
        code = compile(block, "block", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        pending = eval(code, namespace)  # noqa: S307 - the document's own code, in the test
        if inspect.iscoroutine(pending):
            await pending

    def last(self, tool: str) -> dict[str, Any]:
        return [answer for name, answer, _ in self.answers if name == tool][-1]


def test_every_tool_call_of_the_document_stands_in_a_block() -> None:
    text = DOCUMENT.read_text()
    blocks = code_blocks(text)
    assert sum(block.count("await python_") for block in blocks) == text.count("await python_")
    assert len(blocks) == 9


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_document_s_code_works_word_for_word(served: StdioServerParameters, mode: str) -> None:
    blocks = code_blocks(DOCUMENT.read_text())
    async with Client(served, mode=mode) as client:
        caller = Caller(client)
        repl = caller.tool("python_repl")
        await repl(code=f"open('data.csv', 'w').write('{DATA}')", session_id="analysis")
        await repl(
            code="import numpy as np\nX = np.arange(40.0).reshape(20, 2)\ny = X @ [2, 3] + 1", session_id="ml_dev"
        )
        for number, block in enumerate(blocks):
            await caller.run(block)
            if number in EXPECTATIONS:
                EXPECTATIONS[number](caller)
        for name, answer, _ in caller.answers:
            assert name != "python_repl" or answer["status"] == "ok", answer


def _the_session_remembers(caller: Caller) -> None:
    assert caller.last("python_repl")["output"] == "hello, x = 42\n"


def _variables_are_listed(caller: Caller) -> None:
    listed = caller.last("python_list_variables")
    assert (listed["session_id"], listed["variable_count"]) == ("my_session", 2)
    found = {variable["name"]: variable for variable in listed["variables"]}
    assert found["x"] == {"name": "x", "type": "int", "size_bytes": 28}
    assert (found["y"]["type"], found["y"]["size_bytes"]) == ("str", 54)


def _sessions_are_listed(caller: Caller) -> None:
    listed = caller.last("python_list_sessions")
    assert listed["session_count"] == len(listed["sessions"]) == 3
    mine = next(session for session in listed["sessions"] if session["session_id"] == "my_session")
    assert (mine["variable_count"], mine["total_executions"]) == (2, 2)
    assert mine["created_at"][:2] == "20"


def _figures_come_back(caller: Caller) -> None:
    images = [part for part in caller.answers[-1][2].content if part.type == "image"]
    assert images
    assert images[0].mime_type == "image/png"


def _the_workflow_ran(caller: Caller) -> None:
    outputs = [answer["output"] for name, answer, _ in caller.answers if name == "python_repl"]
    assert any("Loaded 1000 customers" in output for output in outputs)
    remaining = {session["session_id"] for session in caller.last("python_list_sessions")["sessions"]}
    assert "customer_analysis" not in remaining


EXPECTATIONS: dict[int, Callable[[Caller], None]] = {
    0: _the_session_remembers,
    2: _variables_are_listed,
    3: _sessions_are_listed,
    6: _figures_come_back,
    8: _the_workflow_ran,
}
