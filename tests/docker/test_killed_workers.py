"""Workers are killed from outside while saves, hibernations and cells are on their way: what is not there was told."""

import asyncio
import json
import os
import re
from contextlib import closing, suppress

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.app import Orchestrator
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.hardening import container_name
from orchestrator.domain.model import ExecutionResult

ROUNDS = 24
_LOST = re.compile(r"Lost: the effects of executions? (\d+)(?: to (\d+))?,")
_WORKER_NICENESS = "10"


async def kill_worker(orchestrator: Orchestrator) -> None:
    """The kernel's or somebody's kill -9, where there is one."""
    live = await orchestrator.sessions.find("s")
    if live._incarnation.sandbox is None:
        return
    name = container_name(live._incarnation.sandbox.id)
    with closing(api_client(find_engine())) as api:
        rows = api.top(name, "-eo pid,ni,stat,comm")["Processes"]
    for pid, niceness, state, called in rows:
        if niceness == _WORKER_NICENESS and called.startswith("python") and not state.startswith("Z"):
            with suppress(ProcessLookupError):
                os.kill(int(pid), 9)
            return


def lost_by(result: ExecutionResult) -> set[int]:
    """The executions that an answer tells as lost."""
    found = [match for note in result.notes if (match := _LOST.match(note))]
    return {number for match in found for number in range(int(match[1]), int(match[2] or match[1]) + 1)}


async def test_every_execution_is_there_or_told_whatever_was_on_its_way_when_a_worker_was_killed(
    orchestrator: Orchestrator,
) -> None:
    lost: set[int] = set()
    left: dict[int, int] = {}  # the execution that left each number
    for number in range(1, 3 * ROUNDS + 1):
        live = await orchestrator.sessions.find("s") if left else None
        beside: list[asyncio.Task[object]] = []
        if live is not None and number % 3 == 0:
            await kill_worker(orchestrator)
            # A save goes before the cell, which is sent before the save is answered.
            saving = live.save_when_due(first=True) if number % 2 else live.hibernate()
            beside.append(asyncio.create_task(saving))
            await asyncio.sleep(0)
        code = f"numbers = globals().get('numbers', [])\nnumbers.append({number})\nnumbers"
        result = await orchestrator.execute(code, session_id="s")
        for task in beside:
            with suppress(OrchestratorError):
                await task
        assert result.execution is not None
        left[number] = result.execution
        lost |= lost_by(result)
        if result.value is not None:
            there = set(json.loads(result.value))
            assert {left[one] for one in left.keys() - there} <= lost, result.notes
            assert not {left[one] for one in left.keys() & there} & lost, "what was told as lost came back"
