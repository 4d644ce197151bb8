"""Sandboxes from their row to their row's end: written before the container exists, closed when it is proven absent."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from orchestrator.domain.errors import (
    ImageGoneError,
    OrchestratorError,
    SandboxLostError,
)
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.domain.model import SandboxRecord, SandboxState
from orchestrator.domain.ports import CREATE_BOUND, Agent, Engine, Records, SandboxImage
from orchestrator.services.room import Wanted, refused, wanted
from orchestrator.services.sandbox_rows import SandboxRows
from orchestrator.services.slots import Slot, Slots, Ticket
from orchestrator.services.survivors import Sandbox, Survivors
from orchestrator.services.tasks import Tasks

logger = logging.getLogger(__name__)

# Between tries to remove a container that the engine does not let go of, in seconds; the last one repeats.
_REMOVAL_PAUSES = (0.5, 2.0, 10.0, 60.0)
_LEFTOVER_PAUSE = 30.0  # seconds between tries to reach an engine that may hold leftovers
_CANCEL_PATIENCE = 5.0  # seconds for removals that were told to end


class Sandboxes:
    """Makes and ends sandboxes; at most `limit` at a time, each for one session or one stateless call.

    What counts is what the engine holds, and so the memory of the host: from before a container is made until the
    engine has forgotten it. A sandbox that is being removed keeps its slot, and so does one that an earlier owner left.
    Who finds no slot waits for one, `wait` seconds at most.

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
        wait: float = 30.0,
        survivors: Sequence[SandboxRecord] = (),
        create_bound: float = CREATE_BOUND,
    ) -> None:
        self._records = records
        self._engine = engine
        self._tasks = tasks
        self._slots = Slots(limit=limit, wait=wait)
        # By row, until its container is proven gone.
        self._slot_of: dict[str, Slot] = {record.id: self._slots.occupy() for record in survivors}
        self.survivors = Survivors(engine, survivors)
        self._creates_end = asyncio.get_running_loop().time() + create_bound
        # Rows that this object has made, or taken over, and not closed yet.
        self._ours = {record.id for record in survivors}
        self._rows = SandboxRows(records, tasks, self._ours, self._discard)
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._patient: set[str] = set()  # removals that wait for a create that nobody answered
        self._stuck: set[str] = set()  # removals that the engine has refused so far

    def resize(self, limit: int, wait: float) -> None:
        """Let there be so many at once from now on, for which a call waits so many seconds."""
        self._slots.resize(limit, wait)

    @asynccontextmanager
    async def slot(self, tenant: str, ticket: Ticket) -> AsyncGenerator[Slot, None]:
        """Room for one sandbox, for which the call may wait; what is started in it keeps it, or else it is given back.

        Raises BusyError where none came free in time, too many wait, or the ticket is given up; QuotaError where the
        tenant has all that it may have.
        """
        most = ticket.terms.share.sandboxes
        slot = await self._slots.take(tenant, ticket, most=most)
        if slot is None:
            stuck = len(self._slot_of.keys() & self._stuck)
            raise refused(self._slots, self._slots.limit, tenant, most, stuck)
        try:
            yield slot
        finally:
            if slot not in self._slot_of.values():
                slot.free()

    async def start(
        self,
        slot: Slot,
        session: str | None,
        incarnation: int,
        environment: str | None = None,
        profile: SandboxProfile | None = None,
    ) -> Sandbox:
        """A fresh sandbox, claimed by that session's incarnation or (None) by a stateless call. It has the memory and
        the cpus of that profile; None: of the installation's.

        It has that environment (None: the default one) while the engine has it, else another, which it names. Raises
        BusyError where an image build takes long, EngineUnavailableError, StoreFullError. Whatever was begun when it
        fails or is cancelled is removed in the background.
        """
        try:
            return await self._start(slot, await self._engine.prepare(environment), session, incarnation, profile)
        except ImageGoneError:  # removed since it was looked for, so that no container was made
            return await self._start(slot, await self._engine.prepare(environment), session, incarnation, profile)

    async def _start(
        self,
        slot: Slot,
        image: SandboxImage,
        session: str | None,
        incarnation: int,
        profile: SandboxProfile | None,
    ) -> Sandbox:
        record = await self._rows.open(image.tag)
        self._slot_of[record.id] = slot
        agent: Agent | None = None
        try:
            handle, agent = await self._engine.launch(record, image)
            if profile is not None:
                await self._engine.limit(record.id, profile)
            await self._claim(record, handle, agent, session, incarnation)
        except BaseException as error:
            if isinstance(error, ImageGoneError):
                del self._slot_of[record.id]
            self._remove(record.id, agent, SandboxState.FAILED)
            raise
        return Sandbox(record.id, agent, image.environment, image.python)

    def _discard(self, sandbox_id: str) -> None:
        self._remove(sandbox_id, None, SandboxState.FAILED)

    async def _claim(
        self, record: SandboxRecord, handle: str, agent: Agent, session: str | None, incarnation: int
    ) -> None:
        created = await self._records.sandbox_created(record.id, handle)
        if not created or not await self._records.sandbox_claimed(record.id, session, incarnation):
            raise SandboxLostError("The sandbox was taken away while it was being made.", hint="Try again.")
        await agent.claim(session or record.id, incarnation)

    # ends

    def give_up(self, session: str) -> asyncio.Task[None]:
        """Remove in the background what was left to that session."""
        return self._remove(self.survivors.given_up(session), None, SandboxState.DESTROYING)

    def end(self, sandbox: Sandbox) -> asyncio.Task[None]:
        """Destroy it in the background; call it once for each sandbox that was started."""
        return self._remove(sandbox.id, sandbox.agent, SandboxState.DESTROYING)

    @property
    def ours(self) -> frozenset[str]:
        """The sandboxes that were made here and are not gone yet."""
        return frozenset(self._ours)

    @property
    def removing(self) -> frozenset[str]:
        """Those that are being removed, whoever made them."""
        return frozenset(self._removals)

    def remove(self, sandbox_id: str) -> asyncio.Task[None]:
        """Destroy one that a plan has found to be of no use; `end` may come for it all the same."""
        return self._remove(sandbox_id, None, SandboxState.DESTROYING)

    @property
    def wanted(self) -> Wanted:
        """How many sandboxes must end for all who wait now, beside those that are just being removed."""
        ending = (self._slot_of.keys() & self._removals.keys()) - self._stuck
        return wanted(self._slots, [self._slot_of[sandbox_id] for sandbox_id in ending])

    async def crowded(self) -> None:
        """Return when somebody waits for a slot."""
        await self._slots.crowded.wait()

    async def removed(self, *, seconds: float) -> None:
        """Wait until all that is being removed is gone; what is not by then is left to the next owner, by its row.

        Ends early where patience is lost. Nothing is removed any more afterwards. Creates that were never answered
        are not waited for.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while waited_for := self._under_way():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or self._tasks.patience.lost:
                break
            await self._tasks.patience.wait(waited_for, seconds=left, first=True)
        given_up = [*self._rows.openings, *self._removals.values()]
        if given_up:
            logger.warning("%d sandboxes are left to the next owner: %s", len(given_up), ", ".join(self._removals))
        for task in given_up:
            task.cancel()
        if given_up:
            await asyncio.wait(given_up, timeout=_CANCEL_PATIENCE)

    def _under_way(self) -> set[asyncio.Task[None]]:
        return self._rows.openings | {task for name, task in self._removals.items() if name not in self._patient}

    async def clear_leftovers(self) -> None:
        """At once, and after the last create of an earlier owner; what comes later the sweeper finds."""
        for pause in (CREATE_BOUND + 1.0, 0.0):
            while True:
                try:
                    await self.remove_leftovers()
                except OrchestratorError as error:
                    logger.warning("what an earlier run may have left cannot be looked for yet: %s", error)
                    await asyncio.sleep(_LEFTOVER_PAUSE)
                else:
                    break
            await asyncio.sleep(pause)

    async def remove_leftovers(self) -> None:
        """Remove what an earlier owner left, by record and by label. May be called at any time, and again.

        Raises EngineUnavailableError where the engine cannot be asked.
        """
        for record in await self._records.sandboxes():
            if record.id not in self._ours:
                if record.id not in self._removals:
                    self._slot_of[record.id] = self._slots.occupy()
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
                self._free_slot(sandbox_id)
                if await self._may_have_come(sandbox_id, may_come=may_come):
                    await self._engine.destroy(sandbox_id)
                await self._records.close_sandbox(sandbox_id)
            except Exception as error:
                if attempt == 0:
                    unknown = None if isinstance(error, OrchestratorError) else error
                    logger.warning("sandbox %s cannot be removed yet: %s", sandbox_id, error, exc_info=unknown)
                self._stuck.add(sandbox_id)
                await self._pause(attempt)
                attempt += 1
            else:
                self._ours.discard(sandbox_id)
                return

    def _free_slot(self, sandbox_id: str) -> None:
        """Its container is gone. One that a late create still makes is never started, and so takes no memory."""
        self._stuck.discard(sandbox_id)
        slot = self._slot_of.pop(sandbox_id, None)
        if slot is not None:
            slot.free()

    async def _may_have_come(self, sandbox_id: str, *, may_come: bool) -> bool:
        """Whether a create that nobody answered, an earlier owner's (`may_come`) or ours, may have come through."""
        self._patient.add(sandbox_id)
        try:
            if may_come:
                await asyncio.sleep(self._creates_end - asyncio.get_running_loop().time())
            return await self._engine.create_unanswered(sandbox_id) or may_come
        finally:
            self._patient.discard(sandbox_id)

    async def _pause(self, attempt: int) -> None:
        """Before the next attempt; cut short where somebody waits for the slot, since the engine may be back."""
        await asyncio.sleep(_REMOVAL_PAUSES[0])
        rest = _REMOVAL_PAUSES[min(attempt, len(_REMOVAL_PAUSES) - 1)] - _REMOVAL_PAUSES[0]
        if rest > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._slots.crowded.wait()
