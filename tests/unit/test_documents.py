"""What README and docs say is what the code does: settings, tools, failures, targets, links, and code to paste."""

import ast
import inspect
import json
import re
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree as ET

import pytest

from orchestrator.app import Orchestrator
from orchestrator.domain.errors import Code
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.domain.lifecycle import SESSION_TRANSITIONS
from orchestrator.domain.model import SessionState
from orchestrator.faces.mcp_server import build_server
from orchestrator.setting_reference import reference
from orchestrator.settings import PREFIX, Settings
from tests.mcp.fake_owner import FakeSessions

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
HOW_IT_WORKS = (ROOT / "docs" / "how-it-works.md").read_text("utf-8")
PROTOCOL = (ROOT / "sandbox-image" / "PROTOCOL.md").read_text("utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "sandbox-image" / "PROTOCOL.md"]

KIB, MIB, GIB = 1024, 1024**2, 1024**3
UNITS = {"KiB": KIB, "MiB": MIB, "GiB": GIB, "MB": 1000**2}
DIRECTORIES = {f"{PREFIX}DATA_DIR", f"{PREFIX}RUNTIME_DIR"}  # their defaults depend on the user, and are told in words


def rows_below(document: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its own head."""
    table: list[list[str]] = []
    for line in document.partition(f"\n{heading}\n")[2].splitlines():
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
        elif table:
            break
    return table[2:]


def unquoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_reference_of_settings_is_made_from_the_code() -> None:
    assert reference() == (ROOT / "docs" / "configuration.md").read_text("utf-8"), "orchestrator config reference FILE"
    for name in Settings.model_fields:
        assert f"\n| `{name}` | " in reference()


def test_the_settings_that_are_changed_most_have_their_defaults() -> None:
    told = {unquoted(name)[0]: default for name, default, _ in rows_below(README, "## Settings")}
    fields = {PREFIX + name.upper(): field for name, field in Settings.model_fields.items()}
    assert len(told) > 10
    for name, default in told.items():
        if name not in DIRECTORIES:
            assert default_of(default) == fields[name].get_default(call_default_factory=False), name


def default_of(cell: str) -> object:
    number, _, unit = cell.partition(" ")
    if unit:
        return int(number) * UNITS[unit]
    if "`" in cell:
        return unquoted(cell)[0]
    return {"none": None}.get(cell, float(cell) if cell.isdigit() else cell)


async def test_the_tools_table_has_every_tool_with_its_arguments(tmp_path: Path) -> None:
    told = {unquoted(name)[0]: unquoted(arguments) for name, arguments, _ in rows_below(README, "## The tools")}
    tools = await build_server(lambda _: FakeSessions(tmp_path, {})).list_tools()
    assert told == {tool.name: list(tool.input_schema["properties"]) for tool in tools}


def test_the_failures_table_has_every_code() -> None:
    rows = rows_below(HOW_IT_WORKS, "## What can fail, and what the caller is told")
    told = {code for row in rows for code in unquoted(row[2])}
    assert told == set(get_args(Code)) - {"owned"}
    assert "`owned`" in HOW_IT_WORKS


def test_the_states_table_has_every_state_and_what_may_follow_it() -> None:
    rows = rows_below(HOW_IT_WORKS, "## The states of a session")
    told = {unquoted(state)[0]: set(unquoted(following)) for state, _, following in rows}
    ends = {None, SessionState.DESTROYING}
    assert told == {state: SESSION_TRANSITIONS[state] - ends for state in SessionState}


def test_the_methods_table_has_every_method_of_the_library() -> None:
    told = {name for row in rows_below(README, "## As a library") for name in unquoted(row[0])}
    assert told == {name for name in vars(Orchestrator) if not name.startswith("_")} - {"open"}


@pytest.mark.parametrize("heading", ["## How a session is saved", "## What happens by itself"])
def test_the_rules_tables_have_the_defaults_of_the_settings(heading: str) -> None:
    rows = rows_below(HOW_IT_WORKS, heading)
    assert rows
    for cell in (row[1] for row in rows if "`" in row[1]):
        (name,) = unquoted(cell)
        assert f"{Settings.model_fields[name].default:.0f} s" in cell


def test_the_targets_table_has_every_target() -> None:
    told = [unquoted(row[0])[0] for row in rows_below(README, "## Development")]
    targets = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert told == ["make", *(f"make {target}" for target in targets if target != "help")]


def test_the_limits_that_are_told_are_those_of_a_sandbox() -> None:
    told = dict(rows_below(HOW_IT_WORKS, "## What is trusted, and what is not"))
    profile = SandboxProfile()
    sizes = {"/workspace": profile.workspace, "/tmp": profile.tmp, "/dev/shm": profile.shm}  # noqa: S108 - in the sandbox
    assert all(f"`{path}` {size // MIB} MiB" in told["file system"] for path, size in sizes.items())
    assert f"{profile.memory // GIB} GiB" in told["memory"]
    assert told["processor"] == f"{profile.cpus:g} cpu"
    assert told["processes and threads"] == str(profile.pids)
    assert told["open files, file size, core dumps"] == f"{profile.open_files}; {profile.file_size // GIB} GiB; none"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text("utf-8")):
        path, _, anchor = target.partition("#")
        linked = document.parent / path if path else document
        assert linked.is_file(), target
        headings = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in map(anchor_of, headings), target


def anchor_of(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("configuration", re.findall(r"```json\n(.*?)```", README, re.DOTALL))
def test_configurations_to_paste_start_a_relay(configuration: str) -> None:
    ((key, servers),) = json.loads(configuration).items()
    assert key in ("mcpServers", "servers")
    ((_, server),) = servers.items()
    command = [server["command"], *server["args"]]
    assert command[-2].endswith("/.venv/bin/orchestrator")
    assert command[-1] == "mcp"
    assert server.keys() <= {"type", "command", "args"}


def refusals_of(tree: ast.Module) -> set[str]:
    """The codes that stand in calls of `refuse`, and in what a function called `_refusal` returns."""
    returned = [
        node.value
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name == "_refusal"
        for node in ast.walk(function)
        if isinstance(node, ast.Return)
    ]
    codes = [value.elts[0] for value in returned if isinstance(value, ast.Tuple)]
    codes += [
        node.args[1]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "refuse"
        and not any(isinstance(argument, ast.Starred) for argument in node.args)
    ]
    return {code.value for code in codes if isinstance(code, ast.Constant) and isinstance(code.value, str)}


def test_the_protocol_lists_every_refusal_of_the_agent() -> None:
    told = {unquoted(code)[0] for code, _, _ in rows_below(PROTOCOL, "### Refusals")}
    files = (ROOT / "sandbox-image" / "agent").rglob("*.py")
    assert told == set().union(*(refusals_of(ast.parse(path.read_text("utf-8"))) for path in files))


def test_the_library_example_calls_what_is_there() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    calls = [
        node
        for node in ast.walk(ast.parse(example))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    on_it = [call for call in calls if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "o"]
    assert on_it
    for call in on_it:
        assert isinstance(call.func, ast.Attribute)
        signature = inspect.signature(getattr(Orchestrator, call.func.attr))
        signature.bind(None, *call.args, **{keyword.arg: None for keyword in call.keywords if keyword.arg})


def test_the_picture_is_readable_without_what_surrounds_it() -> None:
    picture = (ROOT / "docs" / "house.svg").read_text("utf-8")
    ET.fromstring(picture)  # noqa: S314 - our own file
    assert "prefers-color-scheme: dark" in picture
    light, _, dark = picture.partition("@media (prefers-color-scheme: dark)")
    coloured = set(re.findall(r"^\s+(\.?[\w]+) \{[^}]*(?:fill|stroke): #", light, re.MULTILINE))
    assert coloured == set(re.findall(r"^\s+(\.?[\w]+) \{[^}]*(?:fill|stroke): #", dark, re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_no_place_of_one_machine(document: Path) -> None:
    text = document.read_text("utf-8")
    assert not re.search(r"/(?:home|root|work|Users)/\w", text)
    assert not re.search(r"https?://(?!127\.0\.0\.1)", text)
