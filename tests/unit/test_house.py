"""The house is built to its plan, and every rule of the plan bites where something against it is planted."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.house import plan
from tests.house.rules import faults_of
from tests.house.sources import files_in, read_sources
from tests.house.table import faults_of_table, files_with_rows

ROOT = Path(__file__).parents[2]

# A small house without a fault, into which the violations are planted.
SOUND = {
    "orchestrator/__init__.py": '__version__ = "1"',
    "orchestrator/__main__.py": "def main():\n    from orchestrator.faces.relay import main",
    "orchestrator/places.py": "import os",
    "orchestrator/domain/__init__.py": '"""Nouns."""',
    "orchestrator/domain/model.py": "from dataclasses import dataclass",
    "orchestrator/services/sessions.py": "import asyncio\nfrom orchestrator.domain.model import Session",
    "orchestrator/adapters/engine.py": "import docker, requests.exceptions\nfrom orchestrator.domain import model",
    "orchestrator/adapters/system_clock.py": "from datetime import UTC, datetime\ndatetime.now(UTC)",
    "orchestrator/faces/server.py": "import anyio, mcp_types\nfrom orchestrator.services.sessions import Sessions",
    "orchestrator/faces/relay.py": "import os\nfrom orchestrator import places",
    "orchestrator/faces/cli/commands.py": "import typer\nfrom orchestrator.app import Orchestrator",
    "orchestrator/app.py": "from orchestrator.adapters import engine\nfrom orchestrator.services import sessions",
    "sandbox-image/agent/__main__.py": "if __name__ == '__main__':\n    from agent.start import main",
    "sandbox-image/agent/start.py": "import os\ndef greeted():\n    from agent.supervisor import Supervisor",
    "sandbox-image/agent/supervisor.py": "import signal\nimport agent.processes",
    "sandbox-image/agent/processes.py": "import ctypes\nif TYPE_CHECKING:\n    from agent.supervisor import Supervisor",
    "sandbox-image/agent/zygote.py": "from agent import worker, processes",
    "sandbox-image/agent/worker.py": "import ast, cloudpickle",
    "sandbox-image/build/install.py": "import venv",
}

VIOLATIONS = [
    ("orchestrator/domain/more.py", "import os", "imports os, which orchestrator.domain may not"),
    ("orchestrator/domain/more.py", "import time", "imports time, which orchestrator.domain may not"),
    ("orchestrator/domain/more.py", "import pydantic", "imports pydantic"),
    ("orchestrator/domain/more.py", "from orchestrator.services import sessions", "imports orchestrator.services.sess"),
    ("orchestrator/domain/more.py", "from . import model", "imports ."),
    ("orchestrator/services/more.py", "import sqlite3", "imports sqlite3"),
    ("orchestrator/services/more.py", "import docker", "imports docker"),
    (
        "orchestrator/services/more.py",
        "from orchestrator.adapters.engine import E",
        "imports orchestrator.adapters.eng",
    ),
    ("orchestrator/services/more.py", "def f():\n    from orchestrator.adapters import engine", "imports orchestrator"),
    ("orchestrator/services/more.py", "from orchestrator.settings import Settings", "imports orchestrator.settings"),
    ("orchestrator/adapters/more.py", "import docker, tenacity", "uses more than one library: docker, tenacity"),
    ("orchestrator/adapters/more.py", "import mcp", "imports mcp"),
    ("orchestrator/adapters/more.py", "import httpx", "imports httpx"),
    ("orchestrator/adapters/more.py", "from orchestrator.services import sessions", "imports orchestrator.services"),
    ("orchestrator/adapters/more.py", "import orchestrator.app", "imports orchestrator.app"),
    ("orchestrator/faces/more.py", "from orchestrator.adapters import engine", "imports orchestrator.adapters.engine"),
    ("orchestrator/faces/more.py", "import docker", "imports docker"),
    ("orchestrator/faces/more.py", "from orchestrator.app import Orchestrator", "imports orchestrator.app"),
    ("orchestrator/faces/more.py", "from orchestrator.faces.cli import commands", "imports orchestrator.faces.cli"),
    ("orchestrator/faces/cli/more.py", "from orchestrator.adapters import engine", "imports orchestrator.adapters"),
    ("orchestrator/faces/cli/more.py", "import aiosqlite", "imports aiosqlite"),
    ("orchestrator/owner_process.py", "from orchestrator.services import sessions", "imports orchestrator.services"),
    ("orchestrator/places.py", "from orchestrator.domain import model", "which orchestrator.places may not"),
    ("orchestrator/shed.py", "", "belongs to no layer"),
    ("sandbox-image/agent/worker.py", "import numpy", "imports numpy, which agent may not"),
    ("sandbox-image/agent/worker.py", "from orchestrator.domain import wire", "imports orchestrator.domain"),
    ("sandbox-image/build/install.py", "import cloudpickle", "imports cloudpickle, which build may not"),
    # by detours
    ("orchestrator/places.py", "import pathlib", "pathlib: an editor waits for the relay"),
    ("orchestrator/faces/__init__.py", "import asyncio", "asyncio: an editor waits for the relay"),
    ("orchestrator/__main__.py", "import typing", "typing: an editor waits for the relay"),
    ("sandbox-image/agent/start.py", "import socket", "socket: the host waits for the hello"),
    ("sandbox-image/agent/start.py", "import agent.supervisor", "signal: the host waits for the hello"),
    ("sandbox-image/agent/processes.py", "import asyncio", "asyncio: PID 1 imports little"),
    ("sandbox-image/agent/processes.py", "import agent.worker", "worker.py is imported on the way from agent.superv"),
    ("sandbox-image/agent/worker.py", "import agent.start", "start.py is imported on the way from agent.zygote"),
    # cycles
    ("orchestrator/domain/model.py", "import orchestrator.domain.model", "orchestrator.domain.model → orchestrator.do"),
    ("sandbox-image/agent/processes.py", "def f():\n    import agent.supervisor", "a cycle of imports: agent."),
    # words
    *(
        ("orchestrator/faces/more.py", code, f"says {word}")
        for code, word in (
            ("import pickle", "pickle"),
            ("from pickle import loads", "pickle"),
            ("from concurrent import marshal as m", "marshal"),
            ("import shelve as harmless", "shelve"),
            ("def f(data):\n    return eval(data)", "eval"),
            ("import builtins\nbuiltins.exec('1')", "exec"),
            ("import importlib\nimportlib.import_module('pick' + 'le')", "import_module"),
            ("__import__('marsh' + 'al')", "__import__"),
        )
    ),
    ("orchestrator/adapters/more.py", "import time\ntime.time()", "asks for the time of day"),
    ("orchestrator/adapters/more.py", "from time import time", "asks for the time of day"),
    ("orchestrator/domain/more.py", "from datetime import datetime\ndatetime.now()", "asks for the time of day"),
    ("orchestrator/adapters/more.py", "import datetime\ndatetime.datetime.utcnow()", "asks for the time of day"),
    ("sandbox-image/agent/worker.py", "from datetime import date\ndate.today()", "asks for the time of day"),
    ("orchestrator/faces/more.py", "import os\nos.environ['X']", "reads the environment"),
    ("orchestrator/faces/more.py", "from os import getenv", "reads the environment"),
    # names and sizes
    ("orchestrator/adapters/docker.py", "", "is named like docker"),
    ("orchestrator/adapters/mcp/more.py", "", "is named like mcp"),
    ("sandbox-image/agent/socket.py", "", "is named like socket"),
    ("orchestrator/domain/more.py", "x = 1\n" * 301, "has 301 lines"),
    ("orchestrator/domain/more.py", "def f():\n" + "    x = 1\n" * 40, "f has 41 lines"),
]


def built(root: Path, files: Mapping[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, "utf-8")
    return root


def test_the_house_follows_its_plan() -> None:
    assert faults_of(ROOT) == []


def test_a_sound_house_has_no_faults(tmp_path: Path) -> None:
    assert faults_of(built(tmp_path, SOUND)) == []


@pytest.mark.parametrize(("path", "code", "fault"), VIOLATIONS)
def test_what_is_planted_against_a_rule_is_found(path: str, code: str, fault: str, tmp_path: Path) -> None:
    planted = {**SOUND, path: f"{code}\n{SOUND[path]}" if path in SOUND else code}
    faults = faults_of(built(tmp_path, planted))
    assert any(fault in found for found in faults), faults


def test_exceptions_are_still_needed() -> None:
    sources = {source.path: source for source in read_sources(ROOT).values()}
    for exception in (name.partition(":")[0] for name in plan.LONGER_FUNCTIONS):
        assert exception in sources
    for reader in plan.ENVIRONMENT_READERS:
        assert reader in sources


def test_the_libraries_of_the_plan_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["agent"]]
    assert {requirement.partition(">")[0] for requirement in declared} == plan.LIBRARIES.keys()


def test_what_the_host_imports_is_installed_with_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    required = {requirement.partition(">")[0] for requirement in project["dependencies"]}
    for source in read_sources(ROOT).values():
        if source.path.startswith("orchestrator/"):
            assert required.issuperset(source.libraries), source.path


# the table


def test_every_file_has_its_row() -> None:
    sources = read_sources(ROOT)
    document = (ROOT / "docs" / "house.md").read_text("utf-8")
    assert faults_of_table(document, files_with_rows(files_in(ROOT), sources), sources) == []


TABLE = """\
# House
## `orchestrator/`
| file | library | what it is for |
|---|---|---|
| `app.py` | docker | Builds everything |

### `sandbox-image/agent/`
| file | library | what it is for |
|---|---|---|
| `wire.py` | - | Frames |
| `DIGEST` | - | What the agent is |
"""
TABLED = {"orchestrator/app.py": "import docker", "sandbox-image/agent/wire.py": "", "sandbox-image/agent/DIGEST": ""}


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("", "", None),
        ("| `wire.py` | - | Frames |\n", "", "agent/wire.py has no row"),
        ("| `DIGEST` | - | What the agent is |\n", "", "agent/DIGEST has no row"),
        ("`app.py`", "`gone.py`", "orchestrator/gone.py has a row, but is not there"),
        ("### `sandbox-image/agent/`\n", "", "sandbox-image/agent/wire.py has no row"),
        ("| docker |", "| mcp |", "uses docker, and its row says mcp"),
        ("| - | Frames |", "| docker | Frames |", "uses -, and its row says docker"),
        ("Frames", "", "does not say in one line"),
        ("Frames", "F" * 151, "does not say in one line"),
        ("| `wire.py` | - | Frames |\n", "| `wire.py` | - | Frames |\n" * 2, "has two rows"),
    ],
)
def test_a_table_that_is_not_as_the_files_are_is_found(
    before: str, after: str, fault: str | None, tmp_path: Path
) -> None:
    root = built(tmp_path, TABLED)
    sources = read_sources(root)
    faults = faults_of_table(TABLE.replace(before, after) if before else TABLE, files_in(root), sources)
    assert (faults == []) if fault is None else any(fault in found for found in faults), faults


def test_a_package_without_code_needs_no_row(tmp_path: Path) -> None:
    files = {"orchestrator/a/__init__.py": '"""A folder."""', "orchestrator/b/__init__.py": "x = 1"}
    root = built(tmp_path, files)
    assert files_with_rows(files_in(root), read_sources(root)) == ["orchestrator/b/__init__.py"]
