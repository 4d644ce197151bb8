"""What operators ask for beyond the usual isolation is honoured, or refused with the setting's name."""

import json
from pathlib import Path

import docker
import pytest

from orchestrator.adapters.engine.failures import IsolationUnmetError
from orchestrator.adapters.engine.isolation import read_isolation
from orchestrator.app import Orchestrator
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.settings import Settings


async def test_a_runtime_that_the_engine_has_is_used(settings: Settings, engine: docker.APIClient) -> None:
    default = engine.info()["DefaultRuntime"]
    async with Orchestrator.open(settings.model_copy(update={"sandbox_runtime": default})) as orchestrator:
        assert (await orchestrator.execute("6 * 7", session_id="s")).value == "42"
        (row,) = await orchestrator.sessions.list_sessions()
        assert row.total_executions == 1
        used = [
            engine.inspect_container(found["Id"])["HostConfig"]["Runtime"]
            for found in engine.containers(filters={"label": "session-orchestrator.product"})
        ]
        assert default in used


async def test_a_runtime_that_the_engine_lacks_is_refused_at_the_start_by_the_settings_name(settings: Settings) -> None:
    with pytest.raises(IsolationUnmetError, match=r"ORCHESTRATOR_SANDBOX_RUNTIME: .* no-such") as refused:
        async with Orchestrator.open(settings.model_copy(update={"sandbox_runtime": "no-such"})):
            raise AssertionError("it was opened")
    assert refused.value.hint is not None
    async with Orchestrator.open(settings) as orchestrator:
        assert (await orchestrator.execute("1", session_id="s")).value == "1"


async def test_an_engine_that_shares_user_ids_is_refused_where_that_is_not_wanted(
    settings: Settings, engine: docker.APIClient
) -> None:
    wanting = settings.model_copy(update={"sandbox_user_namespace": "required"})
    options = {option.partition(",")[0] for option in engine.info()["SecurityOptions"]}
    if options & {"name=userns", "name=rootless"}:
        async with Orchestrator.open(wanting) as orchestrator:
            assert (await orchestrator.execute("1", session_id="s")).value == "1"
        return
    with pytest.raises(IsolationUnmetError, match="ORCHESTRATOR_SANDBOX_USER_NAMESPACE"):
        async with Orchestrator.open(wanting):
            raise AssertionError("it was opened")


async def test_more_than_the_machine_has_is_refused_at_the_start(settings: Settings, engine: docker.APIClient) -> None:
    has = engine.info()
    for wanted, name in (
        ({"sandbox_cpus": has["NCPU"] + 1.0}, "ORCHESTRATOR_SANDBOX_CPUS"),
        ({"sandbox_memory": has["MemTotal"] + 1}, "ORCHESTRATOR_SANDBOX_MEMORY"),
    ):
        with pytest.raises(IsolationUnmetError, match=f"{name} is "):
            async with Orchestrator.open(settings.model_copy(update=wanted)):
                raise AssertionError("it was opened")


async def test_an_operators_profile_closes_what_ours_opens(settings: Settings, tmp_path: Path) -> None:
    profile = json.loads(read_isolation().seccomp)
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name != "uname"]
    own = tmp_path / "own.json"
    own.write_text(json.dumps(profile), "utf-8")
    code = "import os\ntry: told = os.uname().sysname\nexcept OSError as error: told = error.errno\ntold"
    async with Orchestrator.open(settings.model_copy(update={"sandbox_seccomp": own})) as orchestrator:
        assert (await orchestrator.execute(code, session_id="s")).value == "1"
    async with Orchestrator.open(settings) as orchestrator:
        assert (await orchestrator.execute(code, session_id="another")).value == "'Linux'"


async def test_a_profile_that_closes_nothing_is_refused_at_the_start_and_leaves_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    own = tmp_path / "own.json"
    own.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}', "utf-8")
    with pytest.raises(InvalidRequestError, match="ORCHESTRATOR_SANDBOX_SECCOMP"):
        async with Orchestrator.open(settings.model_copy(update={"sandbox_seccomp": own})):
            raise AssertionError("it was opened")
    async with Orchestrator.open(settings) as orchestrator:
        assert await orchestrator.list_sessions() == []
