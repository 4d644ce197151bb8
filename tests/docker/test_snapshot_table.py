"""Each kind of value that breaks other ways of saving comes back equal and the same, or is refused with its reason.

The table is in snapshot_table/cases. Every case runs in the real image: cells, save, a fresh process, restore, check,
and a second save, which has to make the same bytes.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import docker
import pytest

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from tests.docker.sandboxed import run_python

FOLDER = Path(__file__).parent / "snapshot_table"
LIBRARIES = ("numpy", "pandas", "matplotlib", "scipy.sparse", "sklearn.linear_model", "sklearn.ensemble", "PIL.Image")
TABLES: dict[str, tuple[str, ...]] = {"science": LIBRARIES, "classes": (), "things": (), "basic": ()}
BOUND_S = 240
LEAST = 136  # cases that a prototype passed


def cases_in(table: str) -> list[str]:
    """The names, from the text."""
    return re.findall(r"^=== (.+)$", (FOLDER / "cases" / f"{table}.txt").read_text(encoding="utf-8"), re.MULTILINE)


CASES = [(table, name) for table in TABLES for name in cases_in(table)]


def run_table(table: str) -> dict[str, list[str]]:
    """What went wrong in each case, by its name."""
    engine: docker.APIClient = api_client(find_engine())
    try:
        output = run_python(engine, FOLDER, ["/cases/runner.py", table, *TABLES[table]], bound_s=BOUND_S)
    finally:
        engine.close()
    lines = [json.loads(line) for line in output.splitlines() if line.startswith('{"case"')]
    return {line["case"]: line["faults"] for line in lines}


@pytest.fixture(scope="module")
def tables() -> Iterator[dict[str, Future[dict[str, list[str]]]]]:
    """All tables, two at a time; a case that runs waits for its own."""
    with ThreadPoolExecutor(2) as pool:
        futures: dict[str, Future[dict[str, list[str]]]] = {name: pool.submit(run_table, name) for name in TABLES}
        yield futures


@pytest.mark.parametrize(("table", "name"), CASES, ids=[name for _, name in CASES])
def test_a_case_of_the_table(tables: dict[str, Future[dict[str, list[str]]]], table: str, name: str) -> None:
    faults = tables[table].result().get(name, ["it was not run to its end"])
    assert not faults, "\n".join(faults)


def test_the_table_has_what_it_should() -> None:
    names = [name for _, name in CASES]
    assert len(names) == len(set(names))
    assert len(names) >= LEAST
