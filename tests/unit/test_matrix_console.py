"""What the guest of `make matrix` says is read line by line; a file that did not end is no success."""

import json
from pathlib import Path

import pytest

from tests.matrix.inside import RESULT
from tests.matrix.patience import BOUNDS, TIMES, pytest_configure
from tests.matrix.plan import PARTS
from tests.matrix.run import Console
from tests.matrix.tell import TEST

ROOT = Path(__file__).parents[2]


def test_every_part_is_a_file_of_tests_and_named_once() -> None:
    assert all((ROOT / part.file).is_file() for part in PARTS)
    assert len({part.file for part in PARTS}) == len(PARTS)


def test_bounds_that_are_stretched_in_the_guest_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {(module, name): getattr(module, name) for module, names in BOUNDS.items() for name in names}
    for (module, name), seconds in before.items():
        monkeypatch.setattr(module, name, seconds)  # given back at the end
    pytest_configure()
    assert all(getattr(module, name) == TIMES * seconds for (module, name), seconds in before.items())


def test_tests_and_files_are_told_as_they_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "console.log"
    console = Console(log)
    console.look()  # nothing is there yet

    def test(name: str, outcome: str, when: str = "call") -> str:
        return f"{TEST}{json.dumps({'test': f'a.py::{name}', 'outcome': outcome, 'when': when, 'seconds': 1.0})}\n"

    told = [test("one", "passed"), ".noise of the kernel\n", test("two", "skipped", "setup"), test("three", "passed")]
    told += [test("three", "failed", "teardown"), f"{RESULT}{json.dumps({'file': 'a.py', 'seconds': 9, 'code': 1})}\n"]
    text = "".join(told)
    for end in range(0, len(text), 7):  # it comes in pieces
        log.write_text(text[:end], "utf-8")
        console.look()
    log.write_text(text, "utf-8")
    console.look()
    console.look()
    assert console.ended == {"a.py": 1}
    assert console.failed == ["a.py::three"]
    said = " ".join(capsys.readouterr().out.split())
    assert said == "matrix: FAILED a.py 1 passed, 1 skipped, 1 failed, 9 s"


def test_a_file_whose_time_was_over_is_told_as_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "console.log"
    log.write_text(f"{RESULT}{json.dumps({'file': 'a.py', 'seconds': 900, 'code': None})}\n", "utf-8")
    console = Console(log)
    console.look()
    assert console.ended == {"a.py": None}
    assert "OUT OF TIME" in capsys.readouterr().out
