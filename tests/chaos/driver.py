"""Drives one session: sends steps, judges what comes back, and keeps its history for whoever has to understand it."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.answers import Answer, answer_of
from tests.chaos.clients import BreachError, ClosedError, Editor
from tests.chaos.ledger import was_on_its_way
from tests.chaos.model import FAULTY, SessionModel
from tests.chaos.programs import KINDS, Kind, choose, code_of

BREACH = "BREACH"
_BURST = (2, 8)  # steps in a row
_THOUGHT = 0.3  # seconds at most between two of them
_REST = (0.0, 7.0)  # seconds between bursts: long enough for a session to fall asleep, now and then
_CANCEL_AFTER = (0.1, 1.5)  # seconds
_BUSY_PAUSE = 0.5  # seconds
_LATE = 1.0  # seconds in which an owner notices that nobody waits for an answer any more
_LAST_TRIES = 30
_MOST_BREACHES = 3  # of one session: the rest follows from them


@dataclass(slots=True)
class Tally:
    """What is counted over all sessions."""

    outcomes: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)  # seconds, of plain steps that were ok
    longest: float = 0.0  # seconds, of any answer


class Driver:
    """One session and who calls it."""

    def __init__(self, name: str, editor: Editor, chance: random.Random, tally: Tally, records: Path) -> None:
        self.name = name
        self.model = SessionModel()
        self.breaches: list[str] = []
        self.history: list[tuple[float, str]] = []
        self._editor = editor
        self._chance = chance
        self._tally = tally
        self._records = records
        self._number = 0

    async def run(self, until: float) -> None:
        """Steps in bursts, until that moment of time.monotonic."""
        while time.monotonic() < until and len(self.breaches) < _MOST_BREACHES:
            for _ in range(self._chance.randint(*_BURST)):
                await self._step(choose(self._chance))
                await asyncio.sleep(self._chance.uniform(0, _THOUGHT))
            await asyncio.sleep(min(self._chance.uniform(*_REST), max(0.0, until - time.monotonic())))

    async def finish(self) -> None:
        """Once nothing is hurt any more the session answers, and what it holds is checked once more."""
        for _ in range(_LAST_TRIES):
            answer = await self._step("plain")
            if answer is not None and answer.code is None:
                return
            await asyncio.sleep(_BUSY_PAUSE)
        self._breach("the session does not answer any more")

    async def _step(self, name: str) -> Answer | None:
        kind = KINDS[name]
        self._number += 1
        number = self._number
        arguments = {"code": code_of(kind, number), "timeout": kind.time_limit}
        if not kind.stateless:
            arguments["session_id"] = self.name
            self.model.sent(number, name)
        self._note(f"step {number} ({name}) is sent")
        began, sent = time.monotonic(), time.time()
        try:
            calling = asyncio.create_task(self._editor.call("python_repl", arguments, seconds=kind.time_limit))
            fields = await self._cancelled(calling) if kind.cancelled else await calling
        except ClosedError:
            await self._unanswered(number, kind, sent, "its connection was closed")
            return None
        except BreachError as failure:
            self._breach(f"step {number} ({name}): {failure}")
            return None
        if fields is None:
            await self._unanswered(number, kind, sent, "its client cancelled it")
            return None
        return await self._judge(number, name, answer_of(fields), time.monotonic() - began)

    async def _cancelled(self, calling: "asyncio.Task[Mapping[str, Any]]") -> Mapping[str, Any] | None:
        """The client gives its call up after a while: None, unless it was answered before."""
        done, _ = await asyncio.wait([calling], timeout=self._chance.uniform(*_CANCEL_AFTER))
        if not done:
            calling.cancel()
            await asyncio.wait([calling])
        return None if calling.cancelled() else calling.result()

    async def _unanswered(self, number: int, kind: Kind, sent: float, why: str) -> None:
        self._note(f"step {number} has no answer: {why}")
        self._tally.outcomes[f"no answer, {why}"] += 1
        if not kind.stateless:
            await asyncio.sleep(_LATE)
            on_its_way = await asyncio.to_thread(was_on_its_way, self._records, self.name, sent)
            self.model.unanswered(number, may_have_told=on_its_way)

    async def _judge(self, number: int, name: str, answer: Answer, seconds: float) -> Answer:
        self._note(f"step {number} is answered after {seconds:.2f} s: {answer.summary}")
        self._tally.outcomes[answer.code or "ok"] += 1
        self._tally.longest = max(self._tally.longest, seconds)
        if name == "plain" and answer.code is None:
            self._tally.latencies.append(seconds)
        if KINDS[name].stateless:
            wrong = answer.value != "42" if answer.code is None else answer.code not in FAULTY
            found = [f"the stateless step {number} ended with {answer.summary}"] if wrong else []
        else:
            found = self.model.answered(number, answer)
        for breach in found:
            self._breach(breach)
        if answer.code in ("busy", "engine_unavailable"):
            await asyncio.sleep(_BUSY_PAUSE)
        return answer

    def _note(self, line: str) -> None:
        self.history.append((time.monotonic(), line))

    def _breach(self, what: str) -> None:
        self.breaches.append(f"{self.name}: {what}")
        self._note(f"{BREACH}: {what}")
