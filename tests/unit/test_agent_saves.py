"""Saves in the supervisor's hands, with a worker that is only pretended."""

import importlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

AGENT = str(Path(__file__).parents[2] / "sandbox-image")


def load(name: str) -> ModuleType:
    """A module of the agent, which is no package of the host's."""
    sys.path.insert(0, AGENT)
    try:
        return importlib.import_module(f"agent.{name}")
    finally:
        sys.path.remove(AGENT)


save, save_child, refused_rows = load("save"), load("save_child"), load("refused_rows")
saves, save_memory, reactor, wire, records = map(load, ("saves", "save_memory", "reactor", "wire", "piece_records"))

ORDER = {
    "type": "save", "id": 7, "snapshot": 2, "incarnation": 1, "execution": 3, "environment": "e", "head": None,
    "seed": 9, "variable_limit": 10, "session_limit": 10, "compress": False, "final": True, "hold": 0.05, "bound": 60.0,
}  # fmt: skip
KEEPER = 2**22 - 1


class Worker:
    """Takes what is sent to it, and gives nothing back."""

    def __init__(self) -> None:
        self.ready, self.held = True, False
        self.frames: list[tuple[dict[str, Any], list[bytes]]] = []

    def send(self, header: dict[str, Any], parts: Sequence[bytes] = (), descriptors: Sequence[int] = ()) -> None:
        """As a frame, which has its caps."""
        try:
            self.frames += wire.Decoder().feed(wire.encode(header, parts))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def ours(self) -> set[int]:
        return set()

    def zygotes(self) -> set[int]:
        return set()

    def hold(self) -> None:
        self.held = True

    def go_on(self) -> None:
        self.held = False

    def expend(self, _pid: int) -> None:
        pass

    def kill_stranger(self, _pid: int) -> None:
        pass


class Channel:
    """What the host is told."""

    def __init__(self) -> None:
        self.refused: list[tuple[int, str, str]] = []

    def refuse(self, request: int, code: str, why: str) -> None:
        self.refused.append((request, code, why))

    def send(self, _header: dict[str, Any]) -> None:
        pass

    def send_encoded(self, _frame: memoryview) -> None:
        pass


class Rig:
    """Saves with all that they need."""

    def __init__(self) -> None:
        self.reactor: Any = reactor.Reactor()
        self.worker, self.channel, self.memory = Worker(), Channel(), save_memory.SaveMemory()
        self.saves: Any = saves.Saves(
            self.reactor,
            self.channel,
            self.worker,
            memory=self.memory,
            released=lambda: None,
            over=lambda: None,
        )

    def turn(self, seconds: float) -> None:
        """Let timers come due."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            due = [timer for timer in self.reactor._timers if timer.live and timer.when <= time.monotonic()]
            for timer in due:
                timer.cancel()
                timer.act()
            time.sleep(0.001)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(save, "_kill", lambda _pid: None)
    with suppress(OSError):
        yield Rig()


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """Each time that everything was stopped; nothing ever is."""
    stopped: list[set[int]] = []
    stop: Callable[[set[int]], None] = stopped.append
    monkeypatch.setattr(saves, "stop_all_but", stop)
    monkeypatch.setattr(saves, "stopped_all_but", lambda _spared: False)
    return stopped


def test_final_save_that_has_ended_stops_nothing_more(rig: Rig, stops: list[set[int]]) -> None:
    rig.saves.begin(ORDER)
    rig.saves.worker_says({"save": 7, "pid": KEEPER})
    rig.turn(0.01)
    assert len(stops) == 1
    rig.saves.interrupt("it was abandoned")
    rig.saves.needed()  # the next cell
    rig.turn(0.05)
    assert len(stops) == 1, "a timer of the save that is over froze the next cell"
    assert rig.channel.refused == [(7, "interrupted", "it was abandoned")]


def test_final_save_that_is_frozen_stops_nothing_more(rig: Rig, stops: list[set[int]]) -> None:
    rig.saves.begin(ORDER)
    rig.saves.worker_says({"save": 7, "pid": KEEPER})
    rig.saves._save._record(records.FROZEN, 1, b"")  # as a process that is not stopped yet may forge it
    rig.saves.needed()
    rig.turn(0.05)
    assert len(stops) == 1
    rig.saves.interrupt("done")


NAMES = ["x", "n" * 65_350, "\N{SNOWMAN}" * 70_000, "\ud800", "#name", "name"]


def test_rows_of_any_name_come_back_to_their_values_and_stay_small() -> None:
    namespace: dict[Any, Any] = {name: [name] for name in NAMES}
    refused = {f"name {name}": "why " * 1000 for name in NAMES} | {"state numpy": "hung", "code C": "no row"}
    packed = refused_rows.packed(refused, {**namespace, 5: 6})
    assert len(packed) < 5_000
    again = refused_rows.unpacked(refused_rows.joined(refused_rows.rows_in(packed)), namespace)
    assert set(again) == set(refused) - {"code C"}
    namespace["x"] = ["another"]
    assert "name x" not in refused_rows.unpacked(packed, namespace)


def test_very_many_rows_are_cut_to_what_a_record_takes() -> None:
    namespace: dict[str, list[int]] = {f"{'v' * 80}{number}": [] for number in range(5_000)}
    packed = refused_rows.packed({f"name {name}": "w" * 300 for name in namespace}, namespace)
    assert len(packed) <= refused_rows.MAX_BYTES
    assert len(refused_rows.rows_in(packed)) > 400


@pytest.mark.parametrize(
    "rows",
    ["{}", "5", "[5]", "[[1,2,3,4]]", '[["k","w",1]]', '[["k","w",-1,2]]', '[["k","w",1e9,2]]', "[[[],[],1,2]]",
     "[[[[",
     '[["' + "k" * 101 + '","w",1,2]]', '[["k","' + "w" * 301 + '",1,2]]', f'[["k","w",{2**64},2]]',
     '[["\u2603","w",1,2]]'],
)  # fmt: skip
def test_rows_that_break_their_form_are_noted_nowhere(rows: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        refused_rows.rows_in(rows.encode())


def test_more_known_pieces_than_fit_into_a_frame_are_cut(rig: Rig) -> None:
    rig.memory.saved(1, 9, None, bytes(range(256)) * 2**15, b"w" * 2**23)
    rig.memory.note_refused([["name x", "hung", 1, 2]])
    rig.saves.begin({**ORDER, "head": 1})
    ((header, (known, rehearsed, rows)),) = rig.worker.frames
    assert (header["type"], rehearsed, rows) == ("save", b"", b'[["name x","hung",1,2]]')
    assert 2**23 - 100 < len(known) < 2**23
    assert len(known) % 16 == 0
    rig.saves.interrupt("done")


def test_order_that_does_not_fit_into_a_frame_is_a_failed_save(rig: Rig) -> None:
    rig.saves.begin({**ORDER, "environment": "\N{SNOWMAN}" * 20_000})
    assert [code for _, code, _ in rig.channel.refused] == ["failed"]
    assert not rig.saves.under_way


def test_rows_of_a_save_that_failed_are_known_to_the_next(rig: Rig) -> None:
    for number in range(10):
        rig.saves.begin({**ORDER, "id": number})
        rig.saves._save._record(records.REFUSED, 0, b'[["name x", "hung", 1, 2]]')
        rig.saves.interrupt("it took too long")
        assert rig.memory.refused() == [["name x", "hung", 1, 2]], "only a save that comes to an end counts"
    rig.saves.begin(ORDER)
    rig.saves._save._record(records.REFUSED, 0, b'[["name y"')
    rig.saves.interrupt("it took too long")
    assert rig.memory.refused() == [["name x", "hung", 1, 2]]


@pytest.mark.parametrize(("words", "given_up"), [([b"g"], False), ([b"x", b"g"], True), ([b"x", b"x", b"g"], True)])
def test_what_saves_waits_for_its_turn_and_may_be_told_before_to_leave_files(
    words: list[bytes],
    given_up: bool,  # noqa: FBT001 - a column
) -> None:
    """A cell that waits longer than it has to may be heard of before the process that saves is."""
    child = save_child.SaveChild({}, {}, save_child.Beside(KEEPER, 0), {}, (b"", b"", b"[]"))
    ours, child._connection = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, child._connection:
        for word in words:
            ours.send(word)
        child._await_go()
        assert child._told_to_give_up() is given_up


def test_what_saves_ends_where_the_supervisor_has_let_go_of_it() -> None:
    child = save_child.SaveChild({}, {}, save_child.Beside(KEEPER, 0), {}, (b"", b"", b"[]"))
    ours, child._connection = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    with child._connection, pytest.raises(save_child.SaveFailedError):
        child._await_go()


def test_what_saves_is_made_the_first_to_go_and_only_then_told_to_begin(rig: Rig) -> None:
    rig.saves.begin({**ORDER, "final": False})
    assert rig.saves._save is not None
    told: list[str] = []
    rig.worker.expend = lambda _pid: told.append(f"expends {_pid}")  # type: ignore[method-assign]
    rig.saves._save.tell = lambda word: told.append(f"says {word}")
    rig.saves.worker_says({"type": "saving", "save": ORDER["id"], "pid": KEEPER})
    assert told == [f"expends {KEEPER}", f"says {records.GO}"]
    rig.saves.interrupt("the test is over")
