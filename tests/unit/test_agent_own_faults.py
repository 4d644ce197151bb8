"""PID 1 outlives errors of its own: what was asked is answered, the worker is ended, and the sandbox lives on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.test_agent_saves import load

own_faults, reactor, channel, processes, wire = map(load, ("own_faults", "reactor", "channel", "processes", "wire"))


class Ended(BaseException):
    """`os._exit`, which does not return."""


class Workers:
    def __init__(self) -> None:
        self.pid: int | None = 7
        self.killed_for: list[str] = []

    def kill(self, why: str) -> None:
        self.killed_for.append(why)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise Ended

    monkeypatch.setattr(own_faults.os, "_exit", leave)
    return codes


def fail() -> None:
    raise LookupError("nobody thought of this")


def running(*acts: Callable[[], None]) -> tuple[Any, Workers]:
    """A reactor that calls these back, and ends behind them."""
    loop, workers = reactor.Reactor(), Workers()
    loop.failed = own_faults.OwnFaults(workers).met

    def end() -> None:
        raise Ended

    for act in (*acts, end):
        loop.after(0, act)
    return loop, workers


def test_error_in_a_callback_costs_the_worker_and_the_rest_is_called_back(ended: list[int]) -> None:
    called: list[int] = []
    loop, workers = running(fail, lambda: called.append(1))
    with pytest.raises(Ended):
        loop.run()
    assert (called, ended) == ([1], [])
    (why,) = workers.killed_for
    assert "LookupError: nobody thought of this (test_agent_own_faults.py, line" in why


def test_error_at_a_descriptor_is_one_like_that() -> None:
    loop, workers = running()
    reading, writing = os.pipe()
    os.write(writing, b"x")
    loop.watch(reading, lambda _events: fail())
    with pytest.raises(Ended):
        loop.run()
    assert len(workers.killed_for) == 1
    os.close(reading)
    os.close(writing)


def test_errors_that_go_on_and_those_without_a_worker_end_the_sandbox(ended: list[int]) -> None:
    loop, workers = running(*[fail] * 4)
    with pytest.raises(Ended):
        loop.run()
    assert (len(workers.killed_for), ended) == (3, [72])
    loop, workers = running(fail)
    workers.pid = None
    with pytest.raises(Ended):
        loop.run()
    assert (workers.killed_for, ended) == ([], [72, 72])


def test_request_that_meets_an_error_is_answered_once() -> None:
    class Served:
        def asked(self, _header: dict[str, Any], _parts: list[bytes]) -> None:
            fail()

    asked = channel.Channel(reactor.Reactor(), "00" * 32, 1.0, Served())
    with pytest.raises(LookupError):
        asked._dispatch({"type": "list", "id": 1}, [])
    asked.reply(1, {"ok": True})
    ((header, _),) = wire.Decoder().feed(asked._replies[1])
    assert (header["ok"], header["error"]["code"]) == (False, "failed")


def test_what_the_kernel_does_not_end_in_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(processes, "_KILL_BOUND", 0.01)
    monkeypatch.setattr(processes, "_living", lambda: [41, 42])
    monkeypatch.setattr(processes, "_signal_all", lambda _number: None)
    monkeypatch.setattr(processes, "reap", list)
    monkeypatch.setattr(processes, "signal_one", lambda pid, number: sent.append((pid, number)))
    assert processes.kill_all_but({41}) == []
    assert (42, signal.SIGKILL) in sent
    assert (41, signal.SIGKILL) not in sent
    assert sent[-1] == (41, signal.SIGCONT), "who is spared goes on"


def test_a_process_whose_first_thread_has_ended_lives_while_another_goes_on() -> None:
    """It looks like a zombie, would be passed over where all are killed, and go on."""
    headless = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print(flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
    with subprocess.Popen([sys.executable, "-c", headless], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        deadline = time.monotonic() + 20
        while processes._state(f"/proc/{child.pid}/stat") != b"Z" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert processes._state(f"/proc/{child.pid}/stat") == b"Z"
        assert not processes._has_ended(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert processes._has_ended(child.pid)
