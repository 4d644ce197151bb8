"""Sandboxes from their row to their row's end: written before the container exists, closed when it is proven absent."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orchestrator.domain.errors import (
    BusyError,
    EngineUnavailableError,
    ImageGoneError,
    OrchestratorError,
    SandboxLostError,
)
from orchestrator.domain.model import SandboxRecord, SandboxState
from orchestrator.domain.ports import CREATE_BOUND, Agent, Engine, Records, SandboxImage
from orchestrator.services.tasks import Tasks

logger = logging.getLogger(__name__)

# Between tries to remove a container that the engine does not let go of, in seconds; the last one repeats.
_REMOVAL_PAUSES = (0.5, 2.0, 10.0, 60.0)
_REACHED_AT_ONCE = 8  # those that do not answer hold up the others for a moment only
_CANCEL_PATIENCE = 5.0  # seconds for removals that were told to end


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A claimed sandbox and the connection to its agent."""

    id: str
    agent: Agent
    environment: str  # digest of the one that it has, which may be another than was asked for
    python: str  # such as 3.11


class Sandboxes:
    """Makes and ends sandboxes; at most `limit` at a time, each for one session or one stateless call.

    Made when an owner takes over: for `create_bound` seconds from then on, a create of an earlier owner may succeed.
    `survivors` are what `Records.recover` has left claimed: each counts, and is nobody's leftover, until its session
    has decided on it.
    """

    def __init__(
        self,
        records: Records,
        engine: Engine,
        tasks: Tasks,
        *,
        limit: int,
        survivors: Sequence[SandboxRecord] = (),
        create_bound: float = CREATE_BOUND,
    ) -> None:
        self._records = records
        self._engine = engine
        self._tasks = tasks
        self._limit = limit
        self._survivors = {record.session or "": record for record in survivors}  # by session
        self._reaching = asyncio.Semaphore(_REACHED_AT_ONCE)
        self._live = len(survivors)
        self._creates_end = asyncio.get_running_loop().time() + create_bound
        # Rows that this object has made, or taken over, and not closed yet.
        self._ours = {record.id for record in survivors}
        self._openings: set[asyncio.Task[None]] = set()
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._patient: set[str] = set()  # removals that wait for a create of an earlier owner

    async def start(self, session: str | None, incarnation: int, environment: str | None = None) -> Sandbox:
        """A fresh sandbox, claimed by that session's incarnation or (None) by a stateless call.

        It has that environment (None: the default one) while the engine has it, else another, which it names. Raises
        BusyError where the limit is reached or an image build takes long, EngineUnavailableError, StoreFullError.
        Whatever was begun when it fails or is cancelled is removed in the background.
        """
        if self._live >= self._limit:
            raise BusyError(
                f"All {self._limit} sandboxes are in use.",
                hint="Delete a session that is no longer needed, or try again when one has ended.",
            )
        self._live += 1
        try:
            try:
                return await self._start(await self._engine.prepare(environment), session, incarnation)
            except ImageGoneError:  # removed since it was looked for
                return await self._start(await self._engine.prepare(environment), session, incarnation)
        except BaseException:
            self._live -= 1
            raise

    async def _start(self, image: SandboxImage, session: str | None, incarnation: int) -> Sandbox:
        record = await self._open_row(image.tag)
        agent: Agent | None = None
        try:
            handle, agent = await self._engine.launch(record, image)
            await self._claim(record, handle, agent, session, incarnation)
        except BaseException:
            self._remove(record.id, agent, SandboxState.FAILED)
            raise
        return Sandbox(record.id, agent, image.environment, image.python)

    async def _open_row(self, image: str) -> SandboxRecord:
        """A row, which is closed again where its caller goes away while it is made."""
        row: asyncio.Future[SandboxRecord] = asyncio.get_running_loop().create_future()
        opening = self._tasks.spawn(self._open_for(row, image), "open a sandbox's row")
        self._openings.add(opening)
        opening.add_done_callback(self._openings.discard)
        try:
            return await row
        except asyncio.CancelledError:
            if row.done() and not row.cancelled() and row.exception() is None:  # it came at the same moment
                self._remove(row.result().id, None, SandboxState.FAILED)
            raise

    async def _open_for(self, row: "asyncio.Future[SandboxRecord]", image: str) -> None:
        try:
            record = await self._records.open_sandbox(image)
        except Exception as error:  # noqa: BLE001 - it belongs to who waits for the row
            if not row.done():
                row.set_exception(error)
            return
        self._ours.add(record.id)
        if row.done():
            self._remove(record.id, None, SandboxState.FAILED)
        else:
            row.set_result(record)

    async def _claim(
        self, record: SandboxRecord, handle: str, agent: Agent, session: str | None, incarnation: int
    ) -> None:
        created = await self._records.sandbox_created(record.id, handle)
        if not created or not await self._records.sandbox_claimed(record.id, session, incarnation):
            raise SandboxLostError("The sandbox was taken away while it was being made.", hint="Try again.")
        await agent.claim(session or record.id, incarnation)

    # those of an earlier owner

    @property
    def undecided(self) -> Collection[str]:
        """The sessions that were left a sandbox of which nobody knows yet whether it lives."""
        return tuple(self._survivors)

    def left_to(self, session: str) -> bool:
        """Whether that session is one of them."""
        return session in self._survivors

    async def adopt(self, session: str) -> Sandbox:
        """Reach the sandbox that was left to that session, and claim it again; `adopted` says that it is decided.

        A few at a time, first come, first served. Raises SandboxLostError where it does not live, which `give_up` then
        removes, and EngineUnavailableError where nobody can say.
        """
        record = self._survivors[session]
        async with self._reaching:
            environment, agent = await self._engine.adopt(record)
            try:
                await agent.claim(session, record.incarnation)
            except BaseException:
                await agent.close()
                raise
        return Sandbox(record.id, agent, environment, ".".join(agent.hello.python.split(".")[:2]))

    def adopted(self, session: str) -> None:
        """Its sandbox is in use like any other."""
        self._survivors.pop(session, None)

    def give_up(self, session: str) -> asyncio.Task[None]:
        """Remove in the background what was left to that session."""
        record = self._survivors.pop(session)
        self._live -= 1
        return self._remove(record.id, None, SandboxState.DESTROYING)

    async def is_outdated(self, sandbox: Sandbox) -> bool:
        """Whether a fresh one of the same environment would have another agent."""
        try:
            image = await self._engine.prepare(sandbox.environment)
        except (BusyError, EngineUnavailableError):
            return False  # not one that could take its place now
        return image.environment == sandbox.environment and image.agent != sandbox.agent.hello.agent

    async def let_go(self, sandbox: Sandbox) -> None:
        """Leave it alive, and its row as it is, for the next owner; it ends itself with its lease."""
        logger.info("sandbox %s is left alive to the next owner", sandbox.id)
        await sandbox.agent.close()

    # ends

    def end(self, sandbox: Sandbox) -> asyncio.Task[None]:
        """Destroy it in the background; call it once for each sandbox that was started."""
        self._live -= 1
        return self._remove(sandbox.id, sandbox.agent, SandboxState.DESTROYING)

    async def removed(self, *, seconds: float) -> None:
        """Wait until all that is being removed is gone; what is not by then is left to the next owner, by its row.

        Ends early where patience is lost. Nothing is removed any more afterwards. What an earlier owner may still be
        creating is not waited for.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while waited_for := self._under_way():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or self._tasks.patience.lost:
                break
            await self._tasks.patience.wait(waited_for, seconds=left, first=True)
        given_up = [*self._openings, *self._removals.values()]
        if given_up:
            logger.warning("%d sandboxes are left to the next owner: %s", len(given_up), ", ".join(self._removals))
        for task in given_up:
            task.cancel()
        if given_up:
            await asyncio.wait(given_up, timeout=_CANCEL_PATIENCE)

    def _under_way(self) -> set[asyncio.Task[None]]:
        return self._openings | {task for name, task in self._removals.items() if name not in self._patient}

    async def remove_leftovers(self) -> None:
        """Remove what an earlier owner left, by record and by label. May be called at any time, and again.

        Raises EngineUnavailableError where the engine cannot be asked.
        """
        for record in await self._records.sandboxes():
            if record.id not in self._ours:
                # One without a handle was being created: the engine may still be at it.
                self._remove(record.id, None, SandboxState.DESTROYING, may_come=record.handle is None)
        # The engine first: a row is written before its container is made, so what has none by now has lost it.
        containers = await self._engine.containers()
        known = {record.id for record in await self._records.sandboxes()}
        for container in containers:
            if container.sandbox_id not in known and not container.launched_here:
                await self._engine.destroy(container.sandbox_id)

    def _remove(
        self, sandbox_id: str, agent: Agent | None, state: SandboxState, *, may_come: bool = False
    ) -> asyncio.Task[None]:
        removal = self._removals.get(sandbox_id)
        if removal is None:
            work = self._remove_until_gone(sandbox_id, agent, state, may_come=may_come)
            removal = self._removals[sandbox_id] = self._tasks.spawn(work, f"remove {sandbox_id[:8]}")
            removal.add_done_callback(lambda _: self._removals.pop(sandbox_id, None))
        return removal

    async def _remove_until_gone(
        self, sandbox_id: str, agent: Agent | None, state: SandboxState, *, may_come: bool
    ) -> None:
        attempt = 0
        while True:
            try:
                if agent is not None:
                    await agent.close()
                if state is SandboxState.FAILED:
                    await self._records.sandbox_ending(sandbox_id, SandboxState.FAILED)
                await self._records.sandbox_ending(sandbox_id, SandboxState.DESTROYING)
                await self._engine.destroy(sandbox_id)
                if may_come:
                    await self._no_create_under_way(sandbox_id)
                    await self._engine.destroy(sandbox_id)
                await self._records.close_sandbox(sandbox_id)
            except Exception as error:
                if attempt == 0:
                    unknown = None if isinstance(error, OrchestratorError) else error
                    logger.warning("sandbox %s cannot be removed yet: %s", sandbox_id, error, exc_info=unknown)
                await asyncio.sleep(_REMOVAL_PAUSES[min(attempt, len(_REMOVAL_PAUSES) - 1)])
                attempt += 1
            else:
                self._ours.discard(sandbox_id)
                return

    async def _no_create_under_way(self, sandbox_id: str) -> None:
        self._patient.add(sandbox_id)
        try:
            await asyncio.sleep(self._creates_end - asyncio.get_running_loop().time())
        finally:
            self._patient.discard(sandbox_id)
