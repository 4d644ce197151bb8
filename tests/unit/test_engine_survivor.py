"""What the engine says of a container decides whether an owner may look for its agent in it, and where."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.adapters.channel.transport import TransportError, UnreachableError
from orchestrator.adapters.engine.launch import Launcher
from orchestrator.adapters.engine.survivor import Survivor
from orchestrator.domain.errors import EngineUnavailableError, OrchestratorError, SandboxGoneError
from orchestrator.domain.hardening import LABEL_ENVIRONMENT, LABEL_INSTALLATION, LABEL_SANDBOX
from orchestrator.domain.model import SandboxRecord, SandboxState

ID = "ab" * 16
RECORD = SandboxRecord(ID, SandboxState.CLAIMED, 40_001, "cd" * 32, "image", "handle", "session", 3)


def container(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - of the engine's own answer
    """As the engine describes one that lives, over a unix socket."""
    labels = {LABEL_INSTALLATION: "i", LABEL_SANDBOX: ID, LABEL_ENVIRONMENT: "e"}
    fields = {"labels": labels, "user": "40001:40001", "stdin": False, "source": f"/run/x/{ID[:16]}", "paused": False}
    said = {**fields, **changes}
    return {
        "Id": "handle",
        "State": {"Running": True, "Paused": said["paused"], "Pid": 7},
        "Config": {"Labels": said["labels"], "User": said["user"], "OpenStdin": said["stdin"]},
        "Mounts": [{"Destination": "/run/channel", "Source": said["source"]}],
    }


class Way:
    """A transport that is never opened: `fault` is why."""

    def __init__(self, kind: str, parent: Path | None, fault: TransportError) -> None:
        self.kind, self.parent = kind, parent
        self.admitted = 0
        self._fault = fault

    def admit(self, pid: int) -> None:
        self.admitted = pid

    def connect(self, _deadline: float) -> None:
        raise self._fault

    def close(self) -> None: ...


class Engine:
    """A launcher that only looks."""

    installation = "i"

    def __init__(self, found: dict[str, Any] | None, fault: TransportError | None = None) -> None:
        self.ways: list[Way] = []
        self._found = found
        self._fault = fault or TransportError("its agent did not say hello")

    async def look(self, _name: str) -> dict[str, Any] | None:
        return self._found

    def transport(self, _record: SandboxRecord, kind: str, *, parent: Path | None = None) -> Way:
        self.ways.append(Way(kind, parent, self._fault))
        return self.ways[-1]


async def refused(engine: Engine, record: SandboxRecord = RECORD) -> OrchestratorError:
    with pytest.raises((SandboxGoneError, EngineUnavailableError)) as refusal:
        await Survivor(cast("Launcher", engine), record).reach()
    return refusal.value


@pytest.mark.parametrize(("stdin", "kind", "parent"), [(False, "unix", Path("/run/x")), (True, "attach", None)])
async def test_the_container_tells_which_way_leads_to_its_agent(stdin: bool, kind: str, parent: Path | None) -> None:  # noqa: FBT001 - from the table
    engine = Engine(container(stdin=stdin))
    gone = await refused(engine)
    assert isinstance(gone, SandboxGoneError)
    assert gone.cause == "its agent did not say hello"
    (way,) = engine.ways
    assert (way.kind, way.parent, way.admitted) == (kind, parent, 7)


@pytest.mark.parametrize(
    "found",
    [
        container(labels={LABEL_INSTALLATION: "another", LABEL_SANDBOX: ID}),
        container(labels={LABEL_INSTALLATION: "i", LABEL_SANDBOX: "another"}),
        container(labels=None),
        container(user="40002:40002"),
        {**container(), "Id": "another"},
        container(source="/run/x/another"),
        container(source=""),
        {**container(), "Mounts": None},
        None,
    ],
)
async def test_what_is_not_quite_the_container_of_the_record_is_gone_and_not_even_looked_into(
    found: dict[str, Any] | None,
) -> None:
    engine = Engine(found)
    assert isinstance(await refused(engine), SandboxGoneError)
    assert engine.ways == []


async def test_a_record_that_never_learnt_its_handle_takes_the_name_for_enough() -> None:
    engine = Engine(container())
    await refused(engine, replace(RECORD, handle=None))
    assert len(engine.ways) == 1


async def test_what_is_paused_is_not_gone_and_the_answer_says_what_to_do() -> None:
    paused = await refused(Engine(container(paused=True)))
    assert isinstance(paused, EngineUnavailableError)
    assert paused.hint == f"Let it go on: docker unpause so-{ID}"


async def test_what_could_not_even_be_tried_gives_nobody_up() -> None:
    untried = await refused(Engine(container(), UnreachableError("its channel could not be opened: no descriptors")))
    assert isinstance(untried, EngineUnavailableError)
    assert "no descriptors" in untried.message
