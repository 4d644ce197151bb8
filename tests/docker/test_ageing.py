"""Sessions that nobody uses grow old and go, and strays are swept up: the real engine, agent and store."""

import asyncio
from contextlib import closing
from pathlib import Path

import docker
import pytest

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.app import Orchestrator
from orchestrator.domain import strays
from orchestrator.domain.hardening import LABEL_INSTALLATION, LABEL_SANDBOX, container_name
from orchestrator.domain.model import SessionState
from orchestrator.domain.plan import Hibernate, SavingPolicy
from orchestrator.domain.strays import RemoveContainer
from orchestrator.domain.upkeep import Due
from orchestrator.settings import Settings
from tests import leaks
from tests.docker.test_hibernation import installation_of, reopened, state_of, until

# Rounds come as fast as the test makes them; ages are seconds instead of weeks.
QUICK = {"hibernate_after": 0.5, "inactive_after": 1.0, "expire_after": 3.0, "delete_after": 2.0}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(data_dir=tmp_path / "data", runtime_dir=tmp_path / "run", channel="unix", interrupt_grace=0.5)


def make_container(image: str, installation: str, sandbox_id: str) -> None:
    """One that looks like a sandbox of ours, over a connection that does not stay."""
    labels = {LABEL_INSTALLATION: installation, LABEL_SANDBOX: sandbox_id}
    with closing(api_client(find_engine())) as engine:
        engine.create_container(image, entrypoint=["/bin/true"], name=container_name(sandbox_id), labels=labels)


def number_of_containers(installation: str) -> int:
    with closing(api_client(find_engine())) as engine:
        return len(leaks.containers(engine, installation))


async def state_after_rounds(orchestrator: Orchestrator, session_id: str = "s") -> SessionState | None:
    await orchestrator._services.reaping.sweeper.round()
    await asyncio.sleep(0.1)
    found = await orchestrator.sessions._records.find_session("local", session_id)
    return None if found is None else found.state


async def becomes(orchestrator: Orchestrator, state: SessionState | None) -> None:
    async def reached() -> bool:
        return await state_after_rounds(orchestrator) is state

    await until(reached)


async def test_a_session_is_left_to_grow_old_wakes_at_every_age_and_is_deleted_in_the_end(
    settings: Settings, engine: docker.APIClient
) -> None:
    quick = settings.model_copy(update=QUICK)
    async with reopened(quick, engine) as orchestrator:
        await orchestrator.execute("x = [1]; y = x", session_id="s")
        for age in (SessionState.INACTIVE, SessionState.EXPIRED):
            await becomes(orchestrator, age)
            listed = [one.session_id for one in await orchestrator.list_sessions()]
            assert listed == (["s"] if age is SessionState.INACTIVE else [])
            woken = await orchestrator.execute("x is y, x", session_id="s")
            assert (woken.value, woken.notes) == ("(True, [1])", ())
        await becomes(orchestrator, None)
        assert leaks.files(quick.data_dir / "sessions") == []
        again = await orchestrator.execute("'x' in globals()", session_id="s")
        assert again.value == "False"
        assert (await orchestrator.check()).problems == ()


async def test_a_container_with_our_label_and_no_row_is_named_by_a_dry_run_and_then_removed(
    settings: Settings, engine: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strays, "CONTAINER", 0.2)
    async with reopened(settings, engine) as orchestrator:
        await orchestrator.execute("x = 1", session_id="s")
        installation = installation_of(settings)
        image = (await orchestrator.sessions._engine.prepare()).tag
        stray = "f" * 32
        await asyncio.to_thread(make_container, image, installation, stray)
        await orchestrator._services.reaping.sweeper.round()
        await asyncio.sleep(0.3)
        due = [action for action in (await orchestrator.due()).actions if isinstance(action, RemoveContainer)]
        assert [action.sandbox_id for action in due] == [stray]
        assert await asyncio.to_thread(number_of_containers, installation) == 2

        await orchestrator._services.reaping.sweeper.round()

        assert await asyncio.to_thread(number_of_containers, installation) == 1
        assert (await orchestrator.execute("x", session_id="s")).value == "1"


async def test_the_library_tells_what_is_due_of_sessions_in_use_too_and_changes_nothing(
    settings: Settings, engine: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reopened(settings, engine) as orchestrator:
        assert await orchestrator.due() == Due((), ())
        await orchestrator.execute("x = 1", session_id="s")
        key = (await orchestrator.sessions.find("s")).session.key
        with monkeypatch.context() as patched:
            patched.setattr(orchestrator._services.reaping.reaper, "look", lambda: None)
            patched.setattr(orchestrator._services.reaping.reaper, "_policy", SavingPolicy(hibernate_after=0.0))
            for _ in range(2):
                assert await orchestrator.due() == Due((Hibernate(key),), ())
            assert await state_of(orchestrator, "s") is SessionState.READY
