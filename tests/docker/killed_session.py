"""Owners that end themselves with SIGKILL at a named step: each line on standard input is one of them.

A line is JSON: [scenario, step, data directory, runtime directory, channel]. The answer is the signal that ended that
owner, or 0 where it came to the end of its scenario. The steps are patched in here, in a child forked for each line;
the product knows nothing of them.
"""

import asyncio
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar, cast

from orchestrator.adapters.channel import replies
from orchestrator.adapters.channel.agent_channel import AgentChannel
from orchestrator.adapters.engine.docker_engine import DockerEngine
from orchestrator.adapters.store import snapshots
from orchestrator.adapters.store.pieces import commits, writer
from orchestrator.adapters.store.pieces.store import SqlitePieces
from orchestrator.adapters.store.pieces.writer import SqliteSnapshotWriter
from orchestrator.adapters.store.records import SqliteRecords
from orchestrator.adapters.telemetry.measured import MeasuredAgent
from orchestrator.app import Orchestrator
from orchestrator.domain.errors import BusyError
from orchestrator.domain.snapshots import DamagedPiece, Piece, RestoreOrder, RestoreReport
from orchestrator.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

SESSION = "s"
# Each replaces half of the megabytes, a shared list's end, a name and a file, so that a mixture of two shows; and it
# counts itself.
CELLS = {
    1: "import random\nx = [1]; y = x; z = 'one'; a = random.Random(1).randbytes(2_000_000)\n"
    "b = random.Random(2).randbytes(1_500_000)\nopen('f', 'w').write('1')\nopen('count', 'a').write('1 ');",
    2: "x.append(2); z = 'two'; a = random.Random(3).randbytes(2_000_000)\nopen('f', 'w').write('2')\n"
    "open('count', 'a').write('2 ');",
    3: "x.append(3); z = 'three'; b = random.Random(4).randbytes(1_500_000)\nopen('f', 'w').write('3')\n"
    "open('count', 'a').write('3 ');",
}
# Time enough for its owner to die and the next one to come.
SLOW = "import time; time.sleep(4)\n" + CELLS[3]


@dataclass(frozen=True, slots=True)
class Step:
    """A call at whose begin or end the owner is killed; the n-th one since the scenario has armed it."""

    place: Any
    name: str
    when: Literal["before", "after"]
    nth: int = 1


class Killer:
    """Counts the calls of its step once it is armed."""

    def __init__(self, step: Step) -> None:
        self.armed = False
        self._step = step
        self._left = step.nth
        usual = getattr(step.place, step.name)
        setattr(step.place, step.name, self._watched(usual))

    def _watched(self, usual: Callable[P, R]) -> Callable[P, R]:
        def called(*arguments: P.args, **named: P.kwargs) -> R:
            self._reached("before")
            result = usual(*arguments, **named)
            if inspect.isawaitable(result):
                return cast("R", self._finished(result))
            self._reached("after")
            return result

        return called

    async def _finished(self, result: Awaitable[T]) -> T:
        done = await result
        self._reached("after")
        return done

    def _reached(self, when: str) -> None:
        if self.armed and when == self._step.when:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


async def has_begun(orchestrator: Orchestrator, session_id: str, execution: int) -> None:
    """Wait until the agent has been given that execution: a listing that follows it is refused then."""
    live = await orchestrator.sessions.find(session_id)
    while (sandbox := live._incarnation.sandbox) is None:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)
    measured = cast("MeasuredAgent", sandbox.agent)
    channel = cast("AgentChannel", measured._agent)
    while execution not in {getattr(one, "execution", None) for one in channel._requests._waiting.values()}:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    with suppress(BusyError):
        await channel.list_variables()


class Scenarios:
    """What an owner does; the named step is somewhere in what follows `arm`."""

    def __init__(self, orchestrator: Orchestrator, arm: Callable[[], None]) -> None:
        self._orchestrator = orchestrator
        self._arm = arm

    async def idle(self) -> None:
        """Execution 1 is saved, execution 2 is not, and nobody calls."""
        await self._two()
        self._arm()
        self.answered()

    async def run(self) -> None:
        """Likewise, and execution 3 is ordered, which takes its time."""
        await self._two()
        self._arm()
        calling = asyncio.create_task(self._orchestrator.execute(SLOW, session_id=SESSION))
        await has_begun(self._orchestrator, SESSION, 3)
        self.runs()
        await calling
        await asyncio.sleep(30)

    def runs(self) -> None:
        """Execution 3 does."""

    async def start(self) -> None:
        """The very first call."""
        self._arm()
        await self._run(1)
        await asyncio.sleep(30)

    async def remove(self) -> None:
        """Execution 1 is saved, execution 2 is not, and the session is deleted."""
        await self._two()
        self._arm()
        await self._orchestrator.delete(SESSION)
        await asyncio.sleep(30)

    async def save(self) -> None:
        """Execution 1 is saved, execution 2 is being saved."""
        await self._two()
        self._arm()
        await self._orchestrator.save(SESSION)

    async def quiet(self) -> None:
        """The same in the background."""
        await self._two()
        live = await self._orchestrator.sessions.find(SESSION)
        self._arm()
        await live.save_when_due(first=False)
        await asyncio.sleep(200)

    async def hibernate(self) -> None:
        """Execution 1 is saved; then it is to sleep."""
        await self._two()
        live = await self._orchestrator.sessions.find(SESSION)
        self._arm()
        await live.hibernate()
        await asyncio.sleep(200)

    async def wake(self) -> None:
        """Both executions are saved, it sleeps, and is called."""
        await self._two()
        live = await self._orchestrator.sessions.find(SESSION)
        if not await live.hibernate():
            raise AssertionError("it did not fall asleep")
        self._arm()
        await self._run(3)

    async def roll_back(self) -> None:
        """Executions 1 and 2 are saved, 3 is not; it is to go back to the first."""
        await self._run(1)
        first = await self._orchestrator.save(SESSION)
        await self._run(2)
        await self._orchestrator.save(SESSION)
        await self._run(3)
        self._arm()
        await self._orchestrator.roll_back(SESSION, first.sequence)
        await asyncio.sleep(200)

    async def clear(self) -> None:
        """Execution 1 is saved, 2 is not; it is cleared."""
        await self._two()
        self._arm()
        await self._orchestrator.clear(SESSION)
        self.answered()

    def answered(self) -> None:
        """The caller has the answer."""

    async def _two(self) -> None:
        await self._run(1)
        await self._orchestrator.save(SESSION)
        await self._run(2)

    async def _run(self, execution: int) -> None:
        result = await self._orchestrator.execute(CELLS[execution], session_id=SESSION)
        if result.error is not None or result.execution != execution:
            raise AssertionError(result)


SAVING: Mapping[str, Step] = {
    "before the intent": Step(SqliteRecords, "intend_snapshot", "before"),
    "after the intent": Step(SqliteRecords, "intend_snapshot", "after"),
    "after begin": Step(SqlitePieces, "begin", "after"),
    "after frozen": Step(AgentChannel, "save", "after"),
    "amid the pieces": Step(SqliteSnapshotWriter, "put", "after", 2),
    "after the last piece": Step(SqliteSnapshotWriter, "commit", "before"),
    "inside the commit": Step(commits, "_trim", "after"),
    "between commit and head": Step(SqliteRecords, "snapshot_committed", "before"),
    "inside the head's change": Step(snapshots, "_list", "after"),
    "after the head": Step(SqliteRecords, "snapshot_committed", "after"),
}
STARTING: Mapping[str, Step] = {
    "after creating": Step(SqliteRecords, "begin_creating", "after"),
    "after the sandbox's row": Step(SqliteRecords, "open_sandbox", "after"),
    "after the sandbox's start": Step(DockerEngine, "launch", "after"),
    "after the claim's row": Step(SqliteRecords, "sandbox_claimed", "after"),
    "after the claim": Step(AgentChannel, "claim", "after"),
}
REMOVING: Mapping[str, Step] = {
    "before the sandbox goes": Step(DockerEngine, "destroy", "before"),
    "after the sandbox went": Step(DockerEngine, "destroy", "after"),
}
STEPS: Mapping[str, Mapping[str, Step]] = {
    "idle": {"between two calls": Step(Scenarios, "answered", "after")},
    "run": {
        "after the execution's row": Step(SqliteRecords, "open_execution", "after"),
        "while it runs": Step(Scenarios, "runs", "after"),
        "after the reply": Step(replies, "cell_report", "after"),
        "before the execution's end": Step(SqliteRecords, "close_execution", "before"),
        "after the execution's end": Step(SqliteRecords, "close_execution", "after"),
    },
    "start": {
        **STARTING,
        "after ready": Step(SqliteRecords, "session_ready", "after"),
        "after the execution's row": Step(SqliteRecords, "open_execution", "after"),
    },
    "remove": {
        "after destroying": Step(SqliteRecords, "session_destroying", "after"),
        **REMOVING,
        "after its file": Step(SqlitePieces, "delete", "after"),
    },
    "save": SAVING,
    "quiet": {"before collecting": Step(SqlitePieces, "collect", "before")},
    "hibernate": {
        "after snapshotting": Step(SqliteRecords, "session_snapshotting", "after"),
        **{name: SAVING[name] for name in ("after frozen", "amid the pieces", "between commit and head")},
        "before hibernated": Step(SqliteRecords, "hibernate_saved", "before"),
        "after hibernated": Step(SqliteRecords, "hibernate_saved", "after"),
        **REMOVING,
    },
    "wake": {
        **STARTING,
        "after the workspace": Step(AgentChannel, "restore", "after"),
        "amid the namespace": Step(AgentChannel, "_restored", "after", 3),
        "after the namespace": Step(AgentChannel, "restore", "after", 2),
        "after ready": Step(SqliteRecords, "session_ready", "after"),
        "after the execution's row": Step(SqliteRecords, "open_execution", "after"),
        "before the execution's end": Step(SqliteRecords, "close_execution", "before"),
        "after the execution's end": Step(SqliteRecords, "close_execution", "after"),
    },
    "roll back": {
        "while the present is saved": SAVING["amid the pieces"],
        "after the present is saved": Step(SqliteRecords, "snapshot_committed", "after"),
        "after the intent": Step(SqliteRecords, "intend_replacement", "after"),
        "inside the commit": Step(commits, "_trim", "after", 2),
        "between commit and head": Step(SqlitePieces, "restate", "after"),
        "inside the head's change": Step(snapshots, "_stand_at", "after"),
        "after the head": Step(SqliteRecords, "snapshot_committed", "after", 2),
        "after hibernated": Step(SqliteRecords, "session_hibernated", "after"),
        "before the sandbox goes": Step(DockerEngine, "destroy", "before"),
    },
    "clear": {
        "after the intent": Step(SqliteRecords, "intend_replacement", "after"),
        "after the worker": Step(AgentChannel, "clear", "after"),
        "inside the commit": Step(commits, "_trim", "after"),
        "between commit and head": Step(SqliteRecords, "snapshot_committed", "before"),
        "inside the head's change": Step(snapshots, "_stand_at", "after"),
        "after the head": Step(SqliteRecords, "snapshot_committed", "after"),
        "after the clear's row": Step(SqliteRecords, "session_cleared", "after"),
        "after the answer": Step(Scenarios, "answered", "after"),
    },
}


def _with_counted_pieces() -> None:
    """The pieces of a restored namespace pass one by one through `AgentChannel._restored`, for a step to count."""
    usual = AgentChannel.restore

    async def restored(_channel: AgentChannel, piece: Piece | DamagedPiece) -> Piece | DamagedPiece:
        await asyncio.sleep(0)
        return piece

    async def restore(
        self: AgentChannel, order: RestoreOrder, pieces: AsyncIterator[Piece | DamagedPiece]
    ) -> RestoreReport:
        if order.section != "namespace":
            return await usual(self, order, pieces)
        return await usual(self, order, (await self._restored(piece) async for piece in pieces))  # type: ignore[attr-defined]

    AgentChannel._restored = restored  # type: ignore[attr-defined]
    AgentChannel.restore = restore  # type: ignore[method-assign]


async def _live(scenario: str, step: str, data: str, runtime: str, channel: str) -> None:
    writer.BATCH_BYTES = 1_000_000  # type: ignore[misc] # so that a snapshot is written in several turns
    _with_counted_pieces()
    killer = Killer(STEPS[scenario][step])

    def arm() -> None:
        killer.armed = True

    settings = Settings.load(data_dir=data, runtime_dir=runtime, channel=channel, snapshot_after=1000)
    async with Orchestrator.open(settings) as orchestrator:
        await getattr(Scenarios(orchestrator, arm), scenario.replace(" ", "_"))()


def main() -> None:
    """One owner for each line."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.alarm(300)  # of which it needs a few
            try:
                asyncio.run(_live(*json.loads(line)))
            except BaseException:  # noqa: BLE001 - only the parent reads the next line
                traceback.print_exc()
            finally:
                os._exit(0)
        status = os.waitpid(child, 0)[1]
        sys.stdout.write(f"{os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
