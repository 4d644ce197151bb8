"""The lines that a killed worker leaves: the last ones, the user's only, and no more than it could have printed."""

import os
from collections.abc import Iterator

import pytest

from tests.unit.test_agent_saves import load

crash_report = load("crash_report")
OLDER = b'Stack (most recent call first):\n  File "<cell 1>", line 1 in <module>\n'
NEWER = (
    b"Stack (most recent call first):\n"
    b'  File "/usr/lib/python3.11/json/__init__.py", line 5 in dumps\n'
    b'  File "<cell 2>", line 7 in f\n'
    b'  File "/opt/agent/agent/execution.py", line 100 in run\n'
    b'  File "<frozen runpy>", line 88 in _run_code\n'
)
FATAL = b"Fatal Python error: Segmentation fault\n\n" + NEWER + b"\nExtension modules: numpy (total: 1)\n"
SHOWN = b"\n".join(NEWER.split(b"\n")[:3])


@pytest.fixture
def report() -> Iterator["crash_report.CrashReport"]:  # type: ignore[name-defined]
    made = crash_report.CrashReport()
    yield made
    made.close()
    os.close(made.writing)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ([], b""),
        ([NEWER], SHOWN),
        ([OLDER, NEWER], SHOWN),
        ([OLDER + FATAL], b"Fatal Python error: Segmentation fault\n" + SHOWN),
        ([FATAL, OLDER], OLDER.strip()),
        ([b"Fatal Python error: Aborted\n\n"], b"Fatal Python error: Aborted"),
        ([b"Stack (most recent call first):\n"], b""),
        ([b"\xff\x00 what user code writes\n" * 100], b""),
        ([b"x" * 60_000, NEWER], b""),
    ],
)
def test_lines_that_are_shown(report: "crash_report.CrashReport", said: list[bytes], shown: bytes) -> None:  # type: ignore[name-defined]
    for data in said:
        os.write(report.writing, data)
    assert report.lines() == shown
    assert report.lines() == b""


def test_lines_are_waited_for_until_they_come(report: "crash_report.CrashReport") -> None:  # type: ignore[name-defined]
    assert report.waits()
    os.write(report.writing, NEWER)
    assert not report.waits()
    assert report.lines() == SHOWN


def test_lines_of_a_cell_that_ended_well_are_dropped(report: "crash_report.CrashReport") -> None:  # type: ignore[name-defined]
    report.asked = True
    os.write(report.writing, NEWER)
    report.forget()
    assert report.lines() == b""


def test_a_flood_is_cut(report: "crash_report.CrashReport") -> None:  # type: ignore[name-defined]
    os.write(report.writing, b"Stack (most recent call first):\n" + b'  File "x", line 1 in f\n' * 2000)
    assert len(report.lines().splitlines()) == 110
