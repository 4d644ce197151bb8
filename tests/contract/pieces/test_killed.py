"""`kill -9` at every statement, at any moment, and cancelling at every await: the head is whole, and all goes on."""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from orchestrator.adapters.store.pieces import turns, writer
from orchestrator.adapters.store.pieces.store import SqlitePieces, open_pieces
from orchestrator.domain.snapshot_ports import Pieces
from orchestrator.domain.snapshots import SnapshotNotFoundError, SnapshotVoidedError
from tests.contract.pieces.killed import BATCH_BYTES, CELLS, HEAD, LAST, NEXT
from tests.contract.pieces.steps import (
    KEY,
    NO_FLOOR,
    OTHER,
    collect_all,
    expected,
    intent_of,
    is_sound,
    save,
    saved_contents,
    sequences,
)
from tests.manual_clock import ManualClock

T = TypeVar("T")
CONTENTS = {1: [b"old" * 1000, *HEAD], 2: HEAD, 3: NEXT, 4: HEAD} | dict.fromkeys(range(5, 10), LAST)


async def _run(*arguments: str, seconds: float = 120) -> bytes:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", *arguments, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(process.communicate(), timeout=seconds)
    assert process.returncode == 0
    return output


async def test_killed_before_any_statement_every_snapshot_there_is_whole_and_the_next_one_works(tmp_path: Path) -> None:
    killed = int(await _run("tests.contract.pieces.killed", str(tmp_path)))
    assert killed > 100

    heads = set()
    for statement in range(1, killed + 1):
        async with open_pieces(tmp_path / str(statement), ManualClock(), NO_FLOOR) as pieces:
            there = await sequences(pieces, 99)
            if not there:  # killed while it was being deleted
                assert await pieces.keys() <= {KEY}
                continue
            for sequence in there:
                assert await saved_contents(pieces, sequence) == expected(*CONTENTS[sequence])
            head = there[0]
            heads.add(head)
            assert list(await pieces.cells(KEY)) in (([], CELLS) if head == 3 else ([],) if head < 3 else (CELLS,))
            assert await is_sound(pieces, head)
            # Recovery adopts the newest, or does not; here it does not, where that is not the oldest.
            older = there[1] if head > 2 else head
            await save(pieces, 20, older, [b"after"])
            assert await sequences(pieces, 99) == [20, *[found for found in there if found <= older]][:5]
            await collect_all(pieces)
            assert (await pieces.sizes(KEY)).unreferenced == 0
            assert await is_sound(pieces, 20)
    assert heads == set(range(2, 10)), "some were killed after each of the commits"


_WRITER = """
import asyncio, sys
from pathlib import Path
from orchestrator.adapters.store.pieces.store import open_pieces
from orchestrator.adapters.system_clock import SystemClock
from tests.contract.pieces.steps import NO_FLOOR, save
async def main():
    async with open_pieces(Path(sys.argv[1]), SystemClock(), NO_FLOOR) as pieces:
        head = int(sys.argv[2])
        while True:
            await save(pieces, head + 1, head or None, [bytes([head % 251, i]) * 500_000 for i in range(20)])
            head += 1
            print(head, flush=True)
asyncio.run(main())
"""


async def test_killed_at_any_moment_the_last_committed_snapshot_is_whole(tmp_path: Path) -> None:
    head = 0
    for delay in (0.0, 0.003, 0.011, 0.02, 0.031, 0.043):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _WRITER, str(tmp_path), str(head), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        said = [await asyncio.wait_for(process.stdout.readline(), timeout=30) for _ in range(3)]
        await asyncio.sleep(delay)
        process.send_signal(signal.SIGKILL)
        said += (await asyncio.wait_for(process.stdout.read(), timeout=30)).splitlines(keepends=True)
        await process.wait()
        told = max(int(line) for line in said if line.endswith(b"\n"))

        async with open_pieces(tmp_path, ManualClock(), NO_FLOOR) as pieces:
            head = (await sequences(pieces, 10**9))[0]
            assert head >= told
            assert await is_sound(pieces, head)
            contents = [bytes([(head - 1) % 251, i]) * 500_000 for i in range(20)]
            assert await saved_contents(pieces, head) == expected(*contents)


# --- cancelling --------------------------------------------------------------------------------------------------


class Cancelling(turns.Turns):
    """Cancels its caller right after the n-th turn was queued: while it waits, or when it is over."""

    def __init__(self, turn: int, *, late: bool) -> None:
        super().__init__(ManualClock())
        self.left = turn
        self._late = late

    def take(self, key: str, kind: turns.Kind, work: Callable[[], T]) -> "asyncio.Future[T]":
        self.left -= 1
        if self.left != 0:
            return super().take(key, kind, work)
        over, gate = threading.Event(), threading.Event()

        def watched() -> T:
            try:
                return work()
            finally:
                over.set()

        held = None if self._late else super().take(key, kind, lambda: gate.wait(timeout=10))
        taken = super().take(key, kind, watched)
        if self._late:
            assert over.wait(timeout=10)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if held is not None:
            asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(gate.set))
        return taken


async def _everything(pieces: Pieces) -> None:
    await save(pieces, 3, 2, NEXT)
    await saved_contents(pieces, 3)
    await pieces.restate(intent_of(4, 3, replaces=True), 2)
    await pieces.fork(KEY, 4, intent_of(1, None, key=OTHER, replaces=True))
    await pieces.note_cells(KEY, CELLS)
    await pieces.cells(KEY, [1])
    await pieces.collect(KEY)
    await pieces.check(KEY, 4)
    await pieces.history(KEY, 4)
    await pieces.delete(OTHER)


@pytest.mark.parametrize("late", [False, True])
async def test_cancelled_at_any_await_nothing_is_half_done_and_all_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, late: bool
) -> None:
    monkeypatch.setattr(writer, "BATCH_BYTES", BATCH_BYTES)
    for turn in range(1, 100):
        directory = tmp_path / str(turn)
        async with open_pieces(directory, ManualClock(), NO_FLOOR) as pieces:
            await save(pieces, 1, None, CONTENTS[1])
            await save(pieces, 2, 1, HEAD)
            await pieces._turns.close()
            pieces._turns = cancelling = Cancelling(turn, late=late)
            task = asyncio.ensure_future(_everything(pieces))
            await asyncio.wait([task], timeout=20)
            assert task.done()
            if cancelling.left > 0:
                break
            assert task.cancelled()
            await _goes_on(pieces)
    assert turn > 15, "there are that many awaits"


async def _goes_on(pieces: SqlitePieces) -> None:
    assert not pieces._reading
    assert not pieces._writers
    assert list(await pieces.cells(KEY)) in ([], CELLS)
    there = await sequences(pieces, 99)
    assert there in ([2, 1], [3, 2, 1], [4, 3, 2, 1])
    for sequence in there:
        assert await saved_contents(pieces, sequence) == expected(*CONTENTS[sequence])
    await save(pieces, 9, there[0], LAST)
    assert await is_sound(pieces, 9)
    assert (await pieces.sizes(KEY)).unreferenced == 0
    try:
        await pieces.fork(KEY, 9, intent_of(2, None, key=OTHER, replaces=True))
    except SnapshotVoidedError:  # its delete was what was cancelled
        with pytest.raises(SnapshotNotFoundError):
            await pieces.open_snapshot(OTHER, 2)
