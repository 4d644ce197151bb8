"""The composition root: builds everything, owns every task, and ends things in their order.

`Orchestrator` is the library. The owner process serves the same object.
"""

import asyncio
import functools
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import docker

from orchestrator import __version__, places
from orchestrator.adapters.data_directory import DataDirectory, Kind
from orchestrator.adapters.engine.docker_engine import DockerEngine
from orchestrator.adapters.engine.endpoint import find_engine
from orchestrator.adapters.engine.isolation import read_isolation
from orchestrator.adapters.image.agent_layer import find_sandbox_image_on, put_agent
from orchestrator.adapters.image.builder import find_sandbox_image, sandbox_image_of
from orchestrator.adapters.image.sources import read_image_files
from orchestrator.adapters.store.pieces.store import PiecesPolicy, open_pieces
from orchestrator.adapters.store.records import SqliteRecords, open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.comparison import Comparison
from orchestrator.domain.errors import InvalidRequestError, OrchestratorError
from orchestrator.domain.model import ExecutionResult, Namespace, SessionSummary
from orchestrator.domain.plan import SavingPolicy
from orchestrator.domain.ports import CREATE_BOUND, Clock, Engine, Records, SandboxImage
from orchestrator.domain.snapshot_ports import Pieces
from orchestrator.domain.snapshots import History, SnapshotSummary
from orchestrator.services.history import CheckReport, Histories
from orchestrator.services.live_session import Equipment, Limits
from orchestrator.services.reaper import Reaper
from orchestrator.services.recovery import recover
from orchestrator.services.sandboxes import Sandboxes
from orchestrator.services.saving import SavingLimits
from orchestrator.services.sessions import Sessions
from orchestrator.services.tasks import Patience, Tasks
from orchestrator.settings import Settings

logger = logging.getLogger(__name__)

RECORDS_NAME = "records.sqlite3"
CHANNELS_NAME = "channels"
_OWNER_GONE = "the orchestrator that ran it had ended without closing it"
_LEFTOVER_PAUSE = 30.0  # seconds between tries to reach an engine that may hold leftovers
_SWEEP_PAUSE = 300.0  # seconds between looks for containers that nobody knows


class Orchestrator:
    """Persistent Python sessions, each in a locked-down container.

    >>> async with Orchestrator.open() as o:
    ...     result = await o.execute("x = 41", session_id="s")
    ...     result = await o.execute("x + 1", session_id="s")
    """

    def __init__(self, sessions: Sessions, histories: Histories, patience: Patience) -> None:
        self.sessions = sessions
        self.histories = histories
        self._patience = patience

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings | None = None, *, kind: Kind = "library") -> AsyncIterator[Self]:
        """Own the data directory until the block ends, which hibernates its sessions; see `Sessions.close`.

        Settings come from the environment where none are given. The engine need not answer yet: the calls that need
        it say so. Raises OwnedError, naming its pid, where another process owns the directory; SettingsError;
        StoreUnusableError and StoreFullError.
        """
        settings = settings or Settings.load()
        _private(settings.runtime_dir)
        socket = settings.owner_socket if kind == "owner" else None
        directory = DataDirectory.own(settings.data_dir, kind=kind, version=__version__, socket=socket)
        try:
            clock = SystemClock()
            async with (
                open_records(settings.data_dir / RECORDS_NAME, clock) as records,
                open_pieces(settings.data_dir, clock, pieces_policy_of(settings)) as pieces,
            ):
                await recover(records, records, pieces, _OWNER_GONE)
                engine = build_engine(settings, records, clock)
                patience = Patience()
                try:
                    async with _running(settings, Store(records, pieces), engine, clock, patience) as sessions:
                        yield cls(*sessions, patience)
                finally:
                    await _closed(engine, patience)
        finally:
            directory.release()

    def hurry(self) -> None:
        """Let the block end without waiting for the engine: what it has not removed is left to the next owner."""
        self._patience.lose()

    async def execute(
        self,
        code: str,
        *,
        session_id: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of the cell, enforced in the sandbox
    ) -> ExecutionResult:
        """Run a cell; see `Sessions.execute`."""
        return await self.sessions.execute(code, session_id=session_id, timeout=timeout)

    async def list_variables(self, session_id: str) -> Namespace:
        """What a session's namespace holds; see `Sessions.list_variables`."""
        return await self.sessions.list_variables(session_id)

    async def list_sessions(self) -> Sequence[SessionSummary]:
        """All sessions, oldest first."""
        return await self.sessions.list_sessions()

    async def clear(self, session_id: str) -> None:
        """Empty a session's namespace; see `Sessions.clear`."""
        await self.sessions.clear(session_id)

    async def delete(self, session_id: str) -> None:
        """End a session for good; see `Sessions.delete`."""
        await self.sessions.delete(session_id)

    async def history(self, session_id: str) -> History:
        """A session's snapshots, newest first."""
        return await self.histories.history(session_id)

    async def save(self, session_id: str) -> SnapshotSummary:
        """Save a session now; see `Histories.save`."""
        return await self.histories.save(session_id)

    async def roll_back(self, session_id: str, sequence: int) -> SnapshotSummary:
        """Let a session stand at an earlier snapshot; see `Histories.roll_back`."""
        return await self.histories.roll_back(session_id, sequence)

    async def fork(self, session_id: str, new_id: str, *, sequence: int | None = None) -> SnapshotSummary:
        """Begin a session as a copy of another one's snapshot; see `Histories.fork`."""
        return await self.histories.fork(session_id, new_id, sequence=sequence)

    async def compare(self, session_id: str, before: int, after: int) -> Comparison:
        """What differs between two snapshots of a session; see `Histories.compare`."""
        return await self.histories.compare(session_id, before, after)

    async def check(self) -> CheckReport:
        """Verify all that is stored; see `Histories.check`."""
        return await self.histories.check()


@dataclass(frozen=True, slots=True)
class Store:
    """Where everything lies."""

    records: SqliteRecords
    pieces: Pieces


@asynccontextmanager
async def _running(
    settings: Settings, store: Store, engine: Engine, clock: Clock, patience: Patience
) -> AsyncIterator[tuple[Sessions, Histories]]:
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        tasks = Tasks(group, patience)
        sandboxes = Sandboxes(store.records, engine, tasks, limit=settings.max_sandboxes)
        limits = limits_of(settings)
        equipment = Equipment(store.records, store.records, store.pieces, sandboxes, tasks, clock, limits)
        sessions = Sessions(engine, equipment)
        reaper = Reaper(sessions.in_use, tasks, clock, limits.policy)
        background = [
            tasks.spawn(_clear_leftovers(sandboxes), "clear leftovers"),
            tasks.spawn(reaper.run(), "do what is due"),
        ]
        try:
            yield sessions, Histories(sessions, equipment)
        except BaseException as error:  # noqa: BLE001 - raised again below, not wrapped into the group's
            failure = error
        for task in background:
            task.cancel()
        await sessions.close()
    if failure is not None:
        raise failure


async def _closed(engine: Engine, patience: Patience) -> None:
    closing = asyncio.create_task(engine.close(), name="close the engine")
    try:
        await patience.wait([closing])
    finally:
        if not closing.done():
            closing.cancel()
        await asyncio.wait([closing])
    if not closing.cancelled():
        closing.result()


def _private(directory: Path) -> None:
    try:
        places.private_directory(str(directory))
    except places.PlaceError as failure:
        raise InvalidRequestError(failure.message, hint=failure.hint) from failure


async def _clear_leftovers(sandboxes: Sandboxes) -> None:
    """At once, after the last create of an earlier owner, and now and then: an engine may be late with anything."""
    for pause in itertools.chain((CREATE_BOUND + 1.0,), itertools.repeat(_SWEEP_PAUSE)):
        while True:
            try:
                await sandboxes.remove_leftovers()
            except OrchestratorError as error:
                logger.warning("what an earlier run may have left cannot be looked for yet: %s", error)
                await asyncio.sleep(_LEFTOVER_PAUSE)
            else:
                break
        await asyncio.sleep(pause)


def limits_of(settings: Settings) -> Limits:
    """What the settings say of each session."""
    return Limits(
        time_limit=settings.default_time_limit,
        grace=settings.interrupt_grace,
        output_head=settings.output_head,
        output_tail=settings.output_tail,
        max_code=settings.max_code,
        queue=settings.queue_limit,
        profile=settings.profile,
        policy=SavingPolicy(
            snapshot_after=settings.snapshot_after,
            snapshot_max_age=settings.snapshot_max_age,
            hibernate_after=settings.hibernate_after,
        ),
        saving=SavingLimits(
            variable=settings.variable_limit,
            session=settings.session_limit,
            restore_bound=settings.restore_bound,
            most_bytes=settings.most_of_a_save,
        ),
    )


def pieces_policy_of(settings: Settings) -> PiecesPolicy:
    """What the settings say of snapshots on the disk."""
    return PiecesPolicy(
        history=settings.snapshot_history,
        floor_bytes=settings.disk_floor,
        limit_bytes=settings.most_of_a_file,
    )


def build_engine(settings: Settings, records: Records, clock: Clock) -> DockerEngine:
    """The engine adapter as the settings describe it; nothing is asked of the engine yet."""
    return DockerEngine(
        installation=records.installation,
        find=functools.partial(find_engine, settings.docker_host),
        image_of=_image_finder(settings.image),
        put_agent=_agent_putter(settings.image),
        profile=settings.profile,
        isolation=read_isolation(
            own_profile=settings.sandbox_seccomp,
            runtime=settings.sandbox_runtime,
            user_namespace=settings.sandbox_user_namespace == "required",
        ),
        channel_parent=settings.runtime_dir / CHANNELS_NAME,
        channel=settings.channel,
        clock=clock,
        recall=records.remembered,
        remember=records.remember,
    )


def _image_finder(chosen: str | None) -> Callable[[docker.APIClient, str | None], SandboxImage | None]:
    """Finds the image of an environment, or the default one; a chosen image is the answer to every question."""

    def find(api: docker.APIClient, environment: str | None) -> SandboxImage | None:
        if chosen is not None:
            return sandbox_image_of(api, chosen)
        if environment is not None:
            return find_sandbox_image_on(api, read_image_files(), environment)
        return find_sandbox_image(api, read_image_files())

    return find


def _agent_putter(chosen: str | None) -> Callable[[docker.APIClient, str], SandboxImage | None]:
    """Puts the current agent on an environment; not where an image was chosen, whose agent is the operator's choice."""

    def put(api: docker.APIClient, environment: str) -> SandboxImage | None:
        return put_agent(api, read_image_files(), environment, logger.info) if chosen is None else None

    return put
