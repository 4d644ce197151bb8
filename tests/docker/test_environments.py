"""Sessions keep their environment: the engine port finds it, puts the current agent on it, or says that it is gone."""

import asyncio
import io
import os
import secrets
import shutil
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import docker
import pytest
from docker.errors import APIError

from orchestrator.adapters.engine import image_choice
from orchestrator.adapters.engine.docker_engine import DockerEngine
from orchestrator.adapters.image.agent_layer import find_sandbox_image_on, put_agent
from orchestrator.adapters.image.build_lock import build_lock, lock_path
from orchestrator.adapters.image.build_steps import ImageBuildError, build, build_context
from orchestrator.adapters.image.builder import ImageBuilder, find_sandbox_image
from orchestrator.adapters.image.sources import image_folder, read_image_files
from orchestrator.adapters.store.records import SqliteRecords, open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.app import RECORDS_NAME
from orchestrator.domain.errors import BusyError, ImageGoneError
from orchestrator.domain.images import LABEL_ENVIRONMENT, LABEL_INPUTS, LABEL_KIND, digest, tag
from orchestrator.domain.model import LOCAL_TENANT, CellOrder
from orchestrator.domain.ports import SandboxImage
from orchestrator.provisioning import build_engine
from orchestrator.services.sandboxes import Sandboxes
from orchestrator.services.slots import Ticket
from orchestrator.services.survivors import Sandbox
from orchestrator.services.tasks import Tasks
from orchestrator.settings import Settings
from tests import leaks

pytestmark = pytest.mark.usefixtures("alone_among_images")

FILES = read_image_files()
ADDED = "as the last layer"
WAITING = "waiting for another build to end"  # somebody else's, at the same time
STALE = "/opt/agent/agent/stale.py"


def silent(_line: str) -> None:
    pass


@pytest.fixture(scope="module")
def default(engine: docker.APIClient) -> SandboxImage:
    return ImageBuilder(engine, FILES, silent).build()


class Images:
    """Images that a test makes, each in a moment from one that is there; they are removed after it."""

    def __init__(self, api: docker.APIClient, default: SandboxImage) -> None:
        self.api = api
        self.default = default
        self.environment = digest({"test": secrets.token_hex(8)})
        self.inputs = digest({"inputs": self.environment})

    def make(self, kind: str, *, base: str, name: str = "", dockerfile: str = "", **labels: str) -> str:
        """An image of the test's environment; its labels are those of `base` but for these."""
        with build_context() as context:
            context.add("Dockerfile", f"ARG BASE\nFROM ${{BASE}}\nUSER 0:0\n{dockerfile}".encode())
            made = name or f"session-orchestrator/{kind}:{self.environment}-{labels.get('agent', '')}"
            stated = {LABEL_KIND: kind, LABEL_ENVIRONMENT: self.environment, LABEL_INPUTS: self.inputs}
            stated |= {f"session-orchestrator.image.{label}": value for label, value in labels.items()}
            build(self.api, context, tag=made, arguments={"BASE": base}, labels=stated, report=silent)
        return made

    def make_environment(self, **labels: str) -> str:
        """Another environment, without any agent."""
        return self.make("environment", base=tag("environment", self.default.environment), **labels)

    def make_older_agent(self) -> str:
        """The test's environment with an agent that is not the current one."""
        with_more = f'RUN ["/opt/environment/bin/python", "-c", "open({STALE!r}, \'w\').close()"]'
        return self.make("sandbox", base=self.default.tag, dockerfile=with_more, agent="0" * 12)

    def there(self) -> list[str]:
        found = self.api.images(filters={"label": [f"{LABEL_ENVIRONMENT}={self.environment}"]})
        return [name for image in found for name in image["RepoTags"]]

    def remove(self) -> None:
        for name in self.there():
            with suppress(APIError):
                self.api.remove_image(name, force=True)


@pytest.fixture
def images(engine: docker.APIClient, default: SandboxImage) -> Iterator[Images]:
    images = Images(engine, default)
    yield images
    images.remove()
    assert images.there() == []


@pytest.fixture
async def records(settings: Settings) -> AsyncIterator[SqliteRecords]:
    settings.data_dir.mkdir()
    async with open_records(settings.data_dir / RECORDS_NAME, SystemClock()) as records:
        yield records


@pytest.fixture
async def sandboxed(
    settings: Settings, records: SqliteRecords, engine: docker.APIClient
) -> AsyncIterator[DockerEngine]:
    """The engine port as the application wires it."""
    async with AsyncExitStack() as stack:
        opened = build_engine(settings, records, SystemClock())
        stack.push_async_callback(opened.close)
        yield opened
    assert leaks.containers(engine, records.installation) == []


@asynccontextmanager
async def sandboxes_of(records: SqliteRecords, engine: DockerEngine) -> AsyncIterator[Sandboxes]:
    async with asyncio.TaskGroup() as group:
        sandboxes = Sandboxes(records, engine, Tasks(group), limit=4, create_bound=0.0)
        yield sandboxes
        await sandboxes.removed(seconds=20)


async def started(sandboxes: Sandboxes, environment: str) -> Sandbox:
    async with sandboxes.slot(LOCAL_TENANT, Ticket()) as slot:
        return await sandboxes.start(slot, None, 1, environment)


def files_of(api: docker.APIClient, image: str, folder: str) -> set[str]:
    made = api.create_container(image, entrypoint=["true"])["Id"]
    try:
        stream, _ = api.get_archive(made, folder)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            return {name for name in archive.getnames() if not name.endswith(".pyc")}
    finally:
        api.remove_container(made, force=True)


async def test_current_agent_is_put_on_an_environment_that_has_none_and_a_session_runs_on_it(
    sandboxed: DockerEngine, records: SqliteRecords, images: Images, default: SandboxImage
) -> None:
    images.make_environment()
    image = await sandboxed.prepare(images.environment)
    assert (image.environment, image.agent, image.python) == (images.environment, default.agent, default.python)
    assert image.tag != default.tag
    async with sandboxes_of(records, sandboxed) as sandboxes:
        sandbox = await started(sandboxes, images.environment)
        assert (sandbox.environment, sandbox.python) == (images.environment, default.python)
        assert sandbox.agent.hello.agent == default.agent
        code = "import numpy; int(numpy.arange(4).sum())"
        report = await sandbox.agent.execute(CellOrder(1, code, 20.0, 1.0, output_head=1000, output_tail=1000))
        assert report.value == "6"
        await sandboxes.end(sandbox)
    assert (await sandboxed.prepare()).environment == default.environment


async def test_older_agent_is_replaced_whole_where_only_its_image_has_the_environment(
    sandboxed: DockerEngine, engine: docker.APIClient, images: Images, default: SandboxImage
) -> None:
    older = images.make_older_agent()
    assert "agent/stale.py" in files_of(engine, older, "/opt/agent/agent")
    image = await sandboxed.prepare(images.environment)
    assert (image.environment, image.agent) == (images.environment, default.agent)
    for folder in ("/opt/agent/agent", "/opt/agent/lib"):
        assert files_of(engine, image.tag, folder) == files_of(engine, default.tag, folder)


async def test_layer_is_the_agent_alone_where_the_environment_has_the_agent_s_libraries(
    engine: docker.APIClient, default: SandboxImage, tmp_path: Path
) -> None:
    """As after an upgrade: all but the agent is there."""
    changed = tmp_path / "sandbox-image"
    shutil.copytree(image_folder(), changed, ignore=shutil.ignore_patterns("__pycache__"))
    (changed / "agent" / "changed.py").write_text(f'"""Changed in a test, by {os.getpid()}."""\n')
    newer = read_image_files(folder=changed)
    told: list[str] = []
    made = put_agent(engine, newer, default.environment, told.append)
    assert made is not None
    try:
        assert made.environment == default.environment
        assert made.agent not in (default.agent, "")
        steps = [line for line in told if line != WAITING]
        assert steps[0] == "adding the agent as the last layer"
        assert find_sandbox_image(engine, newer) == find_sandbox_image_on(engine, newer, default.environment) == made
    finally:
        engine.remove_image(made.tag)


async def test_environment_that_is_gone_is_answered_with_the_default_one(
    sandboxed: DockerEngine, records: SqliteRecords, default: SandboxImage
) -> None:
    gone = digest({"gone": secrets.token_hex(8)})
    assert await sandboxed.prepare(gone) == default
    async with sandboxes_of(records, sandboxed) as sandboxes:
        sandbox = await started(sandboxes, gone)
        assert sandbox.environment == default.environment
        sandboxes.end(sandbox)


async def test_environment_whose_python_no_current_agent_is_made_for_is_answered_with_the_default_one(
    sandboxed: DockerEngine, images: Images, default: SandboxImage, caplog: pytest.LogCaptureFixture
) -> None:
    images.make_environment(python="3.99.1")
    assert await sandboxed.prepare(images.environment) == default
    assert "Python 3.99" in caplog.text


async def test_callers_and_owners_at_once_share_one_build(
    settings: Settings, records: SqliteRecords, images: Images, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    images.make_environment()
    owners = [build_engine(settings, records, SystemClock()) for _ in range(2)]
    try:
        asked = [owner.prepare(images.environment) for owner in owners for _ in range(3)]
        answers = await asyncio.gather(*asked)
    finally:
        for owner in owners:
            await owner.close()
    assert len(set(answers)) == 1
    assert answers[0].environment == images.environment
    assert caplog.text.count(ADDED) == 1


async def test_image_that_was_removed_meanwhile_is_made_anew_when_a_sandbox_needs_it(
    sandboxed: DockerEngine, records: SqliteRecords, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_choice, "PREPARED_SECONDS", 3600.0)
    images.make_environment()
    image = await sandboxed.prepare(images.environment)
    images.api.remove_image(image.tag)
    assert await sandboxed.prepare(images.environment) == image  # nobody has noticed
    async with sandboxes_of(records, sandboxed) as sandboxes:
        sandbox = await started(sandboxes, images.environment)
        assert sandbox.environment == images.environment
        await sandboxes.end(sandbox)
        images.remove()
        with_default = await started(sandboxes, images.environment)
        assert with_default.environment == images.default.environment
        sandboxes.end(with_default)


async def test_engine_that_lost_an_image_says_so_and_looks_anew(
    sandboxed: DockerEngine, records: SqliteRecords, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_choice, "PREPARED_SECONDS", 3600.0)
    images.make_environment()
    image = await sandboxed.prepare(images.environment)
    images.remove()
    row = await records.open_sandbox(image.tag)
    with pytest.raises(ImageGoneError):
        await sandboxed.launch(row, image)
    await sandboxed.destroy(row.id)
    assert await sandboxed.prepare(images.environment) == images.default


async def test_chosen_image_is_the_answer_for_every_environment(
    settings: Settings, records: SqliteRecords, images: Images, default: SandboxImage
) -> None:
    images.make_environment()
    chosen = images.make("sandbox", base=default.tag, name=f"test/chosen:{images.environment}", agent="0" * 12)
    engine = build_engine(settings.model_copy(update={"image": chosen}), records, SystemClock())
    try:
        answers = [await engine.prepare(asked) for asked in (None, default.environment, images.environment, "gone")]
    finally:
        await engine.close()
    assert {answer.tag for answer in answers} == {chosen}
    assert answers[0].agent == "0" * 12


async def test_images_under_other_names_are_nobody_s_environment(
    sandboxed: DockerEngine, images: Images, default: SandboxImage
) -> None:
    """Whatever is built on an image of ours inherits its labels."""
    images.make("sandbox", base=default.tag, name=f"test/derived:{images.environment}", agent=default.agent)
    assert await sandboxed.prepare(images.environment) == default


async def test_agent_on_an_older_environment_of_the_same_inputs_does_not_make_it_the_default(
    engine: docker.APIClient, images: Images, default: SandboxImage
) -> None:
    """Both were made from the same sources at different times; `make image` chose the newer one."""
    inputs = engine.inspect_image(default.tag)["Config"]["Labels"][LABEL_INPUTS]  # type: ignore[no-untyped-call]
    images.make(
        "sandbox", base=default.tag, name=tag("sandbox", images.environment), inputs=inputs, agent=default.agent
    )
    newest_first = find_sandbox_image_on(engine, FILES, images.environment)
    assert newest_first is not None
    assert find_sandbox_image(engine, FILES) == default


async def test_environment_that_cannot_run_the_agent_fails_the_build_with_a_way_out_and_leaves_no_image(
    engine: docker.APIClient, images: Images
) -> None:
    broken = 'RUN ["rm", "/opt/environment/bin/python"]'
    images.make("environment", base=tag("environment", images.default.environment), dockerfile=broken)
    before = images.there()
    with pytest.raises(ImageBuildError) as failure:
        put_agent(engine, FILES, images.environment, silent)
    assert images.environment in failure.value.message
    assert failure.value.hint is not None
    assert "\n" not in failure.value.message
    assert images.there() == before


async def test_build_of_somebody_else_is_waited_for_in_bounds(engine: docker.APIClient, images: Images) -> None:
    images.make_environment()
    with build_lock(lock_path(), silent), pytest.raises(BusyError):
        put_agent(engine, FILES, images.environment, silent, wait_seconds=0.0)
    gone = digest({"gone": secrets.token_hex(8)})
    with build_lock(lock_path(), silent):
        assert put_agent(engine, FILES, gone, silent, wait_seconds=0.0) is None
