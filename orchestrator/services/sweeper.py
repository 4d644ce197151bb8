"""Once a minute: lets sessions age that nobody uses, and cleans up what belongs to nobody."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from orchestrator.domain.ageing import Age, AgedSession, Allowance, allowance, plan_ageing
from orchestrator.domain.asides import Asides, DropAside
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.model import SessionState
from orchestrator.domain.plan import Hibernate, Save
from orchestrator.domain.ports import Engine
from orchestrator.domain.strays import (
    Facts,
    FinishDelete,
    Mend,
    RemoveContainer,
    RemoveSandbox,
    SetAside,
    Sightings,
    UnknownFile,
    plan_strays,
    strays_in,
)
from orchestrator.domain.ticks import Counted, Ticks
from orchestrator.domain.upkeep import Action, Chore, Due, Withheld
from orchestrator.services.equipment import Equipment
from orchestrator.services.errands import Errands
from orchestrator.services.sessions import Sessions
from orchestrator.services.upkeep import Upkeep

logger = logging.getLogger(__name__)
T = TypeVar("T")

PAUSE = 60.0  # seconds between two rounds
_PAGE = 50  # sessions that are looked at together: about a millisecond
_KEYS = 500  # of files, likewise
_FILES_EVERY = 15  # rounds: a directory of files is dearer to read than rows
_MAINTENANCE_STEPS = 200  # in one round
_MAINTENANCE_REST = 0.02  # seconds between two, which are the calls'
_MAINTENANCE_WAIT = 1.0  # seconds for the records to be left alone
_MAINTENANCE_WAITS = 10
_ASK_BOUND = 30.0  # seconds for an engine, or a directory
# What the records remember by these names.
_STOPPED_AT = "mass expiry stopped at"
_SET_ASIDE = "set aside since"


@dataclass(frozen=True, slots=True)
class _Look:
    """What a round, or a dry run, goes by."""

    ticks: Ticks
    ahead: Counted  # of what the records have noted; zeros in a round, which notes it first
    sightings: Sightings
    allowance: Allowance
    asides: Asides | None  # None: nobody looked
    chores: tuple[Chore, ...]  # but for ageing
    withheld: tuple[Withheld, ...]


class Sweeper:
    """The slow loop beside the reaper's quick one. What it decides is carried out by `Upkeep`, one by one; `others` are
    errands that have no other loop.
    """

    def __init__(
        self,
        sessions: Sessions,
        engine: Engine,
        equipment: Equipment,
        others: Mapping[str, Callable[[], Awaitable[object]]] = MappingProxyType({}),
    ) -> None:
        self._sessions = sessions
        self._engine = engine
        self._records = equipment.records
        self._upkeep = equipment.upkeep
        self._pieces = equipment.pieces
        self._sandboxes = equipment.sandboxes
        self._clock = equipment.clock
        self._telemetry = equipment.telemetry
        self._limits = equipment.limits
        self._actions = Upkeep(sessions, engine, equipment)
        self._errands = Errands(equipment.clock)
        self._others = others
        self._ticks: Ticks | None = None
        self._sightings = Sightings()
        self._rounds = 0
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """For ever, until it is cancelled."""
        while True:
            try:
                if self._ticks is None:
                    await self.begin()
                else:
                    await self.round()
                    await self._errands.run("maintain", "the records", self._maintain)
                for name, work in self._others.items():
                    await self._errands.run("keep up", name, work)
            except OrchestratorError as error:
                logger.warning("nobody could look for what is due: %s", error)
            except Exception:
                logger.exception("nobody could look for what is due")
            await asyncio.sleep(PAUSE)

    async def begin(self) -> None:
        """The first tick, on which nothing is done: whoever starts has other worries."""
        self._ticks = await self._next_tick()

    async def round(self) -> None:
        """Look, and do what is due, one by one."""
        async with self._turn:
            self._ticks = await self._counted(await self._next_tick())
            look = await self._look(self._ticks, Counted(), files=self._rounds % _FILES_EVERY == 0)
            self._rounds += 1
            self._sightings = look.sightings
            await self._remember(look)
            for chore in look.chores:
                self._telemetry.acted("sweep")
                await self._carry_out(chore)
            async for age in self._ageing(look):
                self._telemetry.acted("age")
                await self._carry_out(age)
            self._errands.forget_old()

    async def due(self) -> Due:
        """What the next round would do if it came now; nothing is changed."""
        ticks = await self._next_tick()
        noted = await self._upkeep.counted()
        ahead = Counted(ticks.counted.seconds - noted.seconds, ticks.counted.watched - noted.watched)
        look = await self._look(ticks, ahead, files=True)
        actions: list[Action] = []
        withheld = list(look.withheld)
        for action in [*look.chores, *[age async for age in self._ageing(look)]]:
            kind, subject = _named(action)
            resting = self._errands.resting(kind, subject)
            if resting is None:
                actions.append(action)
            else:
                withheld.append(Withheld(f"{kind} {subject}", resting))
        return Due(tuple(actions), tuple(withheld))

    # looking

    async def _next_tick(self) -> Ticks:
        return (self._ticks or Ticks(await self._upkeep.counted())).next(self._clock.now(), self._clock.uptime())

    async def _look(self, ticks: Ticks, ahead: Counted, *, files: bool) -> _Look:
        allowed, withheld = await self._allowance(ticks, ahead)
        facts, unseen = await self._facts(files=files)
        sightings = self._sightings.next(self._clock.monotonic(), strays_in(facts))
        sweeps = plan_strays(self._clock.monotonic(), sightings, facts.ours, self._limits.longest_call)
        chores: list[Chore] = [sweep for sweep in sweeps if files or not isinstance(sweep, SetAside)]
        asides = await self._asides(ticks, unseen) if files and ticks.refused is None else None
        if asides is not None:
            chores += asides.due(ticks.counted.seconds)
        return _Look(ticks, ahead, sightings, allowed, asides, tuple(chores), (*withheld, *unseen))

    async def _asides(self, ticks: Ticks, unseen: list[Withheld]) -> Asides | None:
        paths = await _asked(self._pieces.aside, "files that were set aside are not looked for", unseen)
        known = Asides.of(await self._records.remembered(_SET_ASIDE))
        return None if paths is None else known.next(ticks.counted.seconds, paths)

    async def _allowance(self, ticks: Ticks, ahead: Counted) -> tuple[Allowance, list[Withheld]]:
        """How many may expire, and what may not age at all."""
        if ticks.refused is not None:
            pages = [await self._upkeep.aged(*horizon, limit=_PAGE) for horizon in self._limits.ageing.horizons()]
            waiting = sum(map(len, pages))
            many = f"{waiting} session{'s' * (waiting != 1)}{' or more' * (waiting >= _PAGE)}"
            return Allowance(0), [Withheld(f"{many} would age", ticks.refused)] if waiting else []
        if self._limits.ageing.expire_after is None:
            return Allowance(None), []
        counts = await self._upkeep.ageing_counts(self._limits.ageing.expire_after - ahead.seconds)
        before = await self._records.remembered(_STOPPED_AT)
        allowed = allowance(counts, ticks.counted.watched, float(before) if before else None)
        return allowed, [Withheld("sessions would expire", allowed.why)] if allowed.why else []

    async def _facts(self, *, files: bool) -> tuple[Facts, list[Withheld]]:
        """Everything but the age of sessions. What cannot be asked now counts as empty, and is told."""
        lives = self._sessions.in_use()
        busy = frozenset(live.session.key for live in lives if live.row.busy)
        unseen: list[Withheld] = []
        # The engine and the disk first: a row is written before its container and its file, so what has none by now has
        # lost it.
        containers = await _asked(self._engine.containers, "containers are not looked for", unseen)
        stored = await _asked(self._pieces.keys, "files are not looked for", unseen) if files else None
        seen_before = [stray.key for stray in self._sightings.since if isinstance(stray, UnknownFile)]
        unknown = seen_before if stored is None else await self._unknown(sorted(stored))
        facts = Facts(
            between=await self._upkeep.between(),
            open_executions=await self._upkeep.open_executions(),
            sandboxes=await self._upkeep.held_sandboxes(),
            containers=containers or (),
            unknown_files=unknown,
            in_use=busy | {live.session.key for live in lives if live.container is not None},
            busy=busy,
            ending=self._sessions.ending(),
            ours=self._sandboxes.ours,
            removing=self._sandboxes.removing,
        )
        return facts, unseen

    async def _unknown(self, keys: Sequence[str]) -> list[str]:
        """Those that no session has."""
        parts = [keys[start : start + _KEYS] for start in range(0, len(keys), _KEYS)]
        return [key for part in parts for key in await self._upkeep.unknown(part)]

    async def _ageing(self, look: _Look) -> AsyncIterator[Age]:
        """What is due of the sessions that sleep, page by page."""
        if look.ticks.refused is not None:
            return
        most = look.allowance.most
        for state, seconds in reversed(self._limits.ageing.horizons()):  # nothing takes two steps in one round
            ahead = look.ahead.watched if state is SessionState.EXPIRED else look.ahead.seconds
            last: AgedSession | None = None
            while page := await self._upkeep.aged(state, seconds - ahead, after=last, limit=_PAGE):
                last = page[-1]
                # Below zero: used since the last tick.
                rows = [replace(row, seconds=row.seconds + ahead) for row in page if row.seconds >= 0]
                for age in plan_ageing(rows, most, self._limits.ageing):
                    if most is not None and age.target is SessionState.EXPIRED:
                        most -= 1
                    yield age

    # doing

    async def _counted(self, ticks: Ticks) -> Ticks:
        """Note what counts, before anything is decided by it."""
        if ticks.refused is None:
            await self._upkeep.count(ticks.counted, late=ticks.late, began_at=ticks.began_at)
        else:
            logger.warning("no session ages by this look: %s", ticks.refused)
        return ticks

    async def _remember(self, look: _Look) -> None:
        """That a mass expiry was stopped, and since when; and since when files have been set aside."""
        stopped = "" if look.allowance.stopped_at is None else repr(look.allowance.stopped_at)
        if look.ticks.refused is None and stopped != (await self._records.remembered(_STOPPED_AT) or ""):
            logger.warning("mass expiry: %s", look.allowance.why or "it is over")
            await self._records.remember(_STOPPED_AT, stopped)
        if look.asides is not None and look.asides != Asides.of(await self._records.remembered(_SET_ASIDE)):
            await self._records.remember(_SET_ASIDE, look.asides.text)

    async def _carry_out(self, action: Chore) -> None:
        kind, subject = _named(action)
        if not isinstance(action, Age) and self._errands.resting(kind, subject) is None:
            logger.info("%s %s: %s", kind, subject, action.why)
        await self._errands.run(kind, subject, lambda: self._actions.carry_out(action))

    async def _maintain(self) -> None:
        waits = 0
        for _ in range(_MAINTENANCE_STEPS):
            match await self._upkeep.maintain():
                case "done":
                    return
                case "more":
                    await asyncio.sleep(_MAINTENANCE_REST)
                case "in use":  # by this round, at first
                    waits += 1
                    if waits > _MAINTENANCE_WAITS:
                        return
                    await asyncio.sleep(_MAINTENANCE_WAIT)


async def _asked(ask: Callable[[], Awaitable[T]], otherwise: str, unseen: list[Withheld]) -> T | None:
    """The answer, or None where there is none now, which is told."""
    try:
        async with asyncio.timeout(_ASK_BOUND):
            return await ask()
    except TimeoutError:
        unseen.append(Withheld(otherwise, f"no answer came within {_ASK_BOUND:.0f} s"))
    except OrchestratorError as error:
        unseen.append(Withheld(otherwise, error.message))
    return None


_NAMES: Mapping[type[Action], str] = {
    Save: "save",
    Hibernate: "hibernate",
    Mend: "mend",
    FinishDelete: "finish the delete of",
    RemoveContainer: "remove the container of sandbox",
    SetAside: "set aside the file of",
}


def _named(action: Action) -> tuple[str, str]:
    """What an action is called in the log, and what it is done to."""
    if isinstance(action, Age):
        return f"age to {action.target}", action.session.key
    if isinstance(action, DropAside):
        return "delete what was set aside,", action.path
    if isinstance(action, RemoveSandbox):
        return "remove sandbox", action.sandbox.id
    return _NAMES[type(action)], action.sandbox_id if isinstance(action, RemoveContainer) else action.key
