"""A plugin of pytest in the guest: each test is told to the console when it has ended, so that no bound cuts it off."""

import json

import pytest

TEST = "MATRIX-TEST "
_CONSOLE = "/dev/console"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """What is not a success is told from whichever phase; of successes only the call itself."""
    if report.passed and report.when != "call":
        return
    told = {"test": report.nodeid, "outcome": report.outcome, "when": report.when, "seconds": round(report.duration, 1)}
    with open(_CONSOLE, "w", encoding="utf-8") as console:  # noqa: PTH123 - a device
        console.write(f"\n{TEST}{json.dumps(told)}\n")
        if report.failed:
            console.write(f"{report.longreprtext}\n")
