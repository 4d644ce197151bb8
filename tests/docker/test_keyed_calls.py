"""Calls with an idempotency key whose owner is killed between the run and the answer: made again, none runs twice."""

import asyncio
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import docker
import pytest

from orchestrator.domain.access import LOCAL_CALLER
from orchestrator.domain.errors import BusyError, InvalidRequestError, OutcomeUnknownError
from orchestrator.domain.model import ExecutionResult
from orchestrator.services.tenant_sessions import TenantSessions
from orchestrator.services.tickets import Ticket
from orchestrator.settings import Settings
from tests.docker.test_taken_over import BOUND, kill_all, next_owner

COUNTED: Final = "import time; runs += 1; print('begun', flush=True); time.sleep({seconds}); runs"
_OWNER: Final = """
import asyncio, sys
from orchestrator.app import Orchestrator
from orchestrator.domain.access import LOCAL_CALLER
from orchestrator.settings import Settings
from tests.docker.killed_session import has_begun

async def main():
    settings = Settings.load(data_dir=sys.argv[1], runtime_dir=sys.argv[2], channel="unix", snapshot_after=3600)
    code, whole = sys.argv[3], sys.argv[4] == "whole"
    async with Orchestrator.open(settings) as orchestrator:
        sessions = orchestrator.on_behalf(LOCAL_CALLER)
        await sessions.execute("runs = 0", session_id="s")
        await sessions.save("s")
        call = asyncio.create_task(sessions.execute(code, session_id="s", idempotency_key="k"))
        await (call if whole else has_begun(orchestrator, "s", 2))
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def killed_owner(settings: Settings, code: str, until: str) -> None:
    """An owner that has made the call, and dies where its cell has begun or, `until` it is whole, at its answer."""
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _OWNER, str(settings.data_dir), str(settings.runtime_dir), code, until),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert owner.stdout is not None
    async with asyncio.timeout(BOUND):
        assert await owner.stdout.readline() == b"ready\n"
    owner.send_signal(signal.SIGKILL)
    await owner.wait()


async def made_again(sessions: TenantSessions, code: str, limit: float | None = None) -> ExecutionResult:
    """The same call with the same key, until nobody says any more that the first one is under way."""
    async with asyncio.timeout(BOUND):
        while True:
            try:
                return await sessions.execute(code, session_id="s", timeout=limit, idempotency_key="k")
            except BusyError:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize(("seconds", "until"), [(0, "whole"), (3, "begun")])
async def test_the_first_answer_is_told_by_the_next_owner_and_nothing_runs_twice(
    settings: Settings, engine: docker.APIClient, seconds: int, until: str
) -> None:
    code = COUNTED.format(seconds=seconds)
    await killed_owner(settings, code, until)
    async with next_owner(settings, engine) as orchestrator:
        sessions = orchestrator.on_behalf(LOCAL_CALLER)
        for _ in range(2):
            answer = await made_again(sessions, code)
            assert (answer.value, answer.execution) == ("1", 2)
        with pytest.raises(InvalidRequestError, match="used for another call"):
            await sessions.execute("runs += 1", session_id="s", idempotency_key="k")
        assert (await sessions.execute("runs", session_id="s")).value == "1"
        # The same name and key of another tenant are another call.
        other = await orchestrator.tenants.create("other", by=LOCAL_CALLER)
        theirs = orchestrator.on_behalf(replace(LOCAL_CALLER, tenant=other.id))
        assert (await theirs.execute("'theirs'", session_id="s", idempotency_key="k")).value == "'theirs'"
        assert (await sessions.execute("runs", session_id="s")).value == "1"
        await theirs.delete("s")


async def test_what_was_lost_with_its_sandbox_has_an_unknown_outcome_and_is_not_run_again(
    settings: Settings, engine: docker.APIClient
) -> None:
    code = COUNTED.format(seconds=600)
    await killed_owner(settings, code, "begun")
    kill_all(settings)
    async with next_owner(settings, engine) as orchestrator:
        sessions = orchestrator.on_behalf(LOCAL_CALLER)
        for _ in range(2):
            with pytest.raises(OutcomeUnknownError, match="not run again") as caught:
                await made_again(sessions, code)
            assert caught.value.execution == 2
            assert (await sessions.execute("runs", session_id="s")).value == "0"


async def test_a_cancelled_call_is_answered_with_how_it_ended(settings: Settings, engine: docker.APIClient) -> None:
    async with next_owner(settings, engine) as orchestrator:
        sessions = orchestrator.on_behalf(LOCAL_CALLER)
        await sessions.execute("runs = 0", session_id="s")
        code = COUNTED.format(seconds=600)
        begun, ticket = asyncio.Event(), Ticket()
        ticket.heard = lambda _, told: begun.set() if "begun" in told else None
        call = asyncio.create_task(
            sessions.execute(code, session_id="s", timeout=900, ticket=ticket, idempotency_key="k")
        )
        await asyncio.wait_for(begun.wait(), BOUND)
        call.cancel()
        await asyncio.wait([call])
        answer = await made_again(sessions, code, 900)
        assert answer.error is not None
        assert (answer.error.code, answer.execution) == ("interrupted", 2)
        assert (await sessions.execute("runs", session_id="s")).value == "1"
