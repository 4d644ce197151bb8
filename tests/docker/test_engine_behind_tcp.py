"""A real engine behind a TCP relay that the test can slow down: what is in flight when nobody waits any more."""

import asyncio
import contextlib
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.adapters.engine import image_choice
from orchestrator.adapters.engine.candidates import Endpoint
from orchestrator.adapters.engine.docker_engine import DockerEngine
from orchestrator.adapters.engine.endpoint import Probe, api_client, dial, find_engine
from orchestrator.adapters.engine.isolation import read_isolation
from orchestrator.adapters.image.builder import find_sandbox_image
from orchestrator.adapters.image.sources import read_image_files
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.errors import EngineUnavailableError
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.domain.model import CellOrder, SandboxRecord, SandboxState
from orchestrator.domain.ports import SandboxImage
from tests import leaks


class Relay:
    """Carries each connection to the engine; requests that name `slow` are held back for `seconds` first."""

    def __init__(self) -> None:
        self.slow = b"/no such request/"
        self.seconds = 0.0
        self._engine = find_engine()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self._over = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def probe(self) -> Probe:
        port = self._listener.getsockname()[1]
        return Probe(Endpoint(f"tcp://127.0.0.1:{port}", "test"), "works", "", "", self._engine.api_version)

    def close(self) -> None:
        self._over.set()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            engine = dial(self._engine.endpoint, time.monotonic() + 5)
            self._open.append(engine)
            engine.settimeout(None)
            threading.Thread(target=self._carry, args=(engine, client), daemon=True).start()
            self._carry(client, engine)

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.slow in data:  # in any request: clients keep connections
                    self._over.wait(self.seconds)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def relay() -> Iterator[Relay]:
    relay = Relay()
    yield relay
    relay.close()


async def forgets(_key: str) -> str | None:
    return None


async def remembers(_key: str, _value: str) -> None:
    return None


@pytest.fixture
async def engine(relay: Relay, tmp_path: Path) -> AsyncIterator[DockerEngine]:
    installation = secrets.token_hex(16)
    engine = DockerEngine(
        installation=installation,
        find=relay.probe,
        image_of=lambda api, _environment: find_sandbox_image(api, read_image_files()),
        put_agent=lambda _api, _environment: None,
        profile=SandboxProfile(),
        isolation=read_isolation(),
        channel_parent=tmp_path / "c",
        channel="attach",
        clock=SystemClock(),
        recall=forgets,
        remember=remembers,
    )
    yield engine
    await engine.close()
    with closing(api_client(find_engine())) as api:
        assert leaks.containers(api, installation) == []


def record(image: SandboxImage) -> SandboxRecord:
    return SandboxRecord(
        id=secrets.token_hex(16),
        state=SandboxState.CREATING,
        uid=65_500,
        secret=secrets.token_hex(32),
        image=image.tag,
        handle=None,
        session=None,
        incarnation=0,
    )


async def test_engine_reached_by_tcp_serves_sandboxes_over_its_attach_stream(engine: DockerEngine) -> None:
    image = await engine.prepare()
    row = record(image)
    _, agent = await engine.launch(row, image)
    await agent.claim("session", 1)
    order = CellOrder(1, "print('x' * 3_000_000)", 20.0, 1.0, output_head=1_000_000, output_tail=500_000)
    report = await agent.execute(order)
    assert (report.output_bytes, len(report.output_head)) == (3_000_001, 1_000_000)
    await engine.destroy(row.id)


async def test_create_that_the_engine_does_after_its_caller_has_gone_is_waited_out_by_destroy(
    engine: DockerEngine, relay: Relay
) -> None:
    image = await engine.prepare()
    row = record(image)
    relay.slow, relay.seconds = b"/containers/create", 1.0
    began = time.monotonic()
    launching = asyncio.create_task(engine.launch(row, image))
    await asyncio.sleep(0.2)
    launching.cancel()
    await asyncio.gather(launching, return_exceptions=True)
    assert time.monotonic() - began < 0.8, "a cancelled launch does not wait for the engine"
    await engine.destroy(row.id)
    assert time.monotonic() - began > 1
    assert await engine.containers() == []


async def test_engine_that_answers_nothing_holds_a_caller_for_its_bound_and_all_callers_once(
    engine: DockerEngine, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_choice, "FIND_SECONDS", 0.3)
    relay.slow, relay.seconds = b"GET", 3.0
    began = time.monotonic()
    answers = await asyncio.gather(*(engine.prepare() for _ in range(8)), return_exceptions=True)
    assert all(isinstance(answer, EngineUnavailableError) for answer in answers)
    assert time.monotonic() - began < 1.5
