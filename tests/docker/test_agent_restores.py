"""The agent's restores in real sandboxes: what comes back, what is quarantined, and what may follow."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from orchestrator.domain.errors import BusyError, NamespaceLostError
from orchestrator.domain.snapshots import (
    Piece,
    RestoreOrder,
    SaveFailedError,
    SaveReport,
    Section,
    SnapshotDamagedError,
)
from tests.docker.saved_sandbox import (
    SEED,
    Fresh,
    lose_connection,
    statuses,
)

# What loads well while a flag of the workspace is absent, as in a rehearsal, and does something else at a wake.
TRAP = """
import os, time, ctypes, signal
class Trap:
    def __init__(self, how): self.how = how
    def __setstate__(self, state):
        self.__dict__.update(state)
        if os.path.exists("armed"):
            spring(self.how)
def spring(how):
    if how == "segfault": ctypes.string_at(0)
    if how == "exit": os._exit(3)
    if how == "once":
        os.unlink("armed")
        os.kill(os.getpid(), 9)
    if how == "raise": raise ValueError("no")
    if how == "swallow":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(1000)
    if how == "hang":
        while True: time.sleep(1)
    if how == "slow":
        for _ in range(12):
            time.sleep(0.25)
            began = time.process_time()
            while time.process_time() - began < 0.04: pass
good = [1, 2, 3]
"""


async def trapped(fresh: Fresh, names: dict[str, str]) -> SaveReport:
    """A save with a trap for each name, that will go off when it is restored."""
    async with fresh() as box:
        await box.value(TRAP + "".join(f"{name} = Trap({how!r})\n" for name, how in names.items()))
        saved = await box.save()
        assert set(statuses(saved).values()) == {"saved"}
        return saved


@pytest.mark.parametrize(("how", "why"), [("segfault", "SIGSEGV"), ("exit", "exit code 3"), ("swallow", "timed out")])
async def test_group_that_ends_the_worker_is_quarantined_and_the_rest_comes_back(
    fresh: Fresh, how: str, why: str
) -> None:
    saved = await trapped(fresh, {"trap": how})
    async with fresh() as box:
        await box.run("open('armed', 'w')")
        await box.agent.clear()
        await box.restore(saved, "workspace")
        first = await box.restore(saved, "namespace", bound=1.0)
        assert first.crashed is not None
        assert (why in first.crashed[1], first.killed) == (True, False)
        report = await box.restore(saved, "namespace", quarantined=dict([first.crashed]), bound=1.0)
        assert report.crashed is None
        assert [name for name, _ in report.lost] == ["trap"]
        assert await box.value("good, 'trap' in globals()") == "([1, 2, 3], False)"


async def test_group_at_which_the_worker_was_killed_is_named_as_perhaps_innocent_and_loads_when_asked_again(
    fresh: Fresh,
) -> None:
    saved = await trapped(fresh, {"trap": "once"})
    async with fresh() as box:
        await box.run("open('armed', 'w')")
        await box.agent.clear()
        first = await box.restore(saved, "namespace")
        assert (first.crashed is not None, first.killed) == (True, True)
        again = await box.restore(saved, "namespace")
        assert (again.crashed, again.lost) == (None, ())
        assert await box.value("trap.how") == "'once'"


async def test_group_that_is_slow_because_others_have_the_processor_is_not_given_up(fresh: Fresh) -> None:
    saved = await trapped(fresh, {"trap": "slow"})
    async with fresh() as box:
        await box.value("open('armed', 'w').close()")
        await box.agent.clear()
        report = await box.restore(saved, "namespace", bound=2.0)
        assert (report.crashed, report.lost) == (None, ())
        assert await box.value("trap.how") == "'slow'"


@pytest.mark.parametrize(("how", "why"), [("raise", "ValueError: no"), ("hang", "timed out")])
async def test_group_that_fails_or_hangs_is_lost_alone(fresh: Fresh, how: str, why: str) -> None:
    saved = await trapped(fresh, {"trap": how})
    async with fresh() as box:
        await box.run("open('armed', 'w')")
        await box.agent.clear()
        report = await box.restore(saved, "namespace", bound=1.0)
        assert report.crashed is None
        ((name, reason),) = report.lost
        assert name == "trap"
        assert why in reason
        assert await box.value("good") == "[1, 2, 3]"


async def test_import_that_ends_the_worker_is_quarantined_like_a_group(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value(
            "import os\nopen('ours.py', 'w').write('import os\\nif os.path.exists(\"armed\"): os._exit(4)\\n')"
        )
        await box.value("import ours\nx = 1")
        saved = await box.save()
    async with fresh() as box:
        await box.restore(saved, "workspace")
        await box.run("open('armed', 'w')")
        await box.agent.clear()
        report = await box.restore(saved, "namespace")
        assert report.crashed is not None
        report = await box.restore(saved, "namespace", quarantined=dict([report.crashed]))
        assert [name for name, _ in report.lost] == ["ours"]
        assert await box.value("x") == "1"


async def test_damaged_piece_costs_what_needs_it(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value("import numpy as np\na = np.arange(400_000)\nb = np.arange(400_000) * 2\nc = 1")
        saved = await box.save()
        digest = next(name for name in saved.manifest.namespace.pieces if len(box.pieces[name].data) == 2**20)
    async with fresh() as box:
        report = await box.restore(saved, "namespace", damaged=frozenset({digest}))
        assert len(report.lost) == 1
        assert "the disk is old" in report.lost[0][1]
        assert await box.value("c, [name for name in 'ab' if name in globals()]") in ("(1, ['a'])", "(1, ['b'])")


async def test_cell_or_second_restore_in_a_used_worker_is_refused_or_waits(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value("x = 1")
        saved = await box.save()
        with pytest.raises(BusyError):
            await box.restore(saved, "namespace")
        await box.agent.clear()
        await box.restore(saved, "namespace")
        assert await box.value("x") == "1"


async def test_namespace_alone_comes_back_after_the_worker_was_killed(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value("x = [1]\nopen('f', 'w').write('kept')")
        saved = await box.save()
        assert not (await box.run("import os; os._exit(1)")).namespace_kept
        await box.agent.clear()  # else what a savepoint has brought back stands
        report = await box.restore(saved, "namespace")
        assert report.lost == ()
        assert await box.value("x, open('f').read()") == "([1], 'kept')"
        await box.save(head=1)
        assert box.sent < 10_000


async def test_death_after_a_restore_is_a_loss_and_the_next_cell_is_told(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value("import os, threading\nx = 1")
        saved = await box.save()
        await box.agent.clear()
        await box.restore(saved, "namespace")
        report = await box.run("threading.Timer(0.2, lambda: os._exit(5)).start()")
        assert report.variable_count == 1
        await asyncio.sleep(1.0)
        with pytest.raises(NamespaceLostError, match="exit code 5"):
            await box.run("1")


async def test_lost_connection_during_a_restore_leaves_a_fresh_worker(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value("import os\na = bytearray(os.urandom(30_000_000))\nb = 1")
        saved = await box.save()
        await box.agent.clear()
        half = saved.manifest.namespace

        async def interrupted() -> AsyncIterator[Piece]:
            for number, digest in enumerate(half.pieces):
                if number == len(half.pieces) // 2:
                    lose_connection(box.agent)
                    await asyncio.sleep(0.3)
                yield box.pieces[digest]

        with pytest.raises(SaveFailedError):
            await box.agent.restore(RestoreOrder(1, "namespace", half.body, SEED, 5.0), interrupted())
        assert (await box.restore(saved, "namespace")).lost == ()
        assert await box.value("len(a), b") == "(30000000, 1)"


async def test_slow_host_costs_no_variable(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value("import os\na = bytearray(os.urandom(3_000_000))\nb = 1")
        saved = await box.save()
        await box.agent.clear()
        half = saved.manifest.namespace

        async def slow() -> AsyncIterator[Piece]:
            for digest in half.pieces:
                await asyncio.sleep(2.0)
                yield box.pieces[digest]

        report = await box.agent.restore(RestoreOrder(1, "namespace", half.body, SEED, 0.5), slow())
        assert (report.lost, report.crashed) == ((), None)
        assert await box.value("len(a), b") == "(3000000, 1)"


@pytest.mark.parametrize("body", [b"", b"garbage", b"(\xb5/\xfd \x02{}garbage"])
async def test_body_that_is_none_is_refused_and_harms_nothing(fresh: Fresh, body: bytes) -> None:
    async with fresh() as box:
        await box.value("x = 1")
        saved = await box.save()
        await box.agent.clear()
        broken = replace(saved, manifest=replace(saved.manifest, namespace=Section(body, ())))
        with pytest.raises(SnapshotDamagedError):
            await box.restore(broken, "namespace")
        await box.restore(saved, "namespace")
        assert await box.value("x") == "1"


async def test_restore_shows_nothing_and_signals_stay_as_they_were(fresh: Fresh) -> None:
    loud = """
import os, signal
class Loud:
    def __setstate__(self, state):
        print("heard"); os.write(1, b"heard"); os.write(2, b"heard"); os.system("echo heard")
loud = Loud()
loud.x = 1
"""
    async with fresh() as box:
        await box.value(loud)
        saved = await box.save()
        await box.agent.clear()
        await box.restore(saved, "namespace")
        report = await box.run("print(sorted(map(str, signal.pthread_sigmask(signal.SIG_BLOCK, []))))")
        assert report.output_head == "[]\n"
        stopped = asyncio.create_task(box.run("while True: pass"))
        await asyncio.sleep(0.2)
        box.agent.interrupt(box.execution)
        report = await stopped
        assert (report.outcome, report.namespace_kept) == ("interrupted", True)
