"""Everybody in a sandbox can knock at its socket. None of it stops the loop, and the agent still gets in."""

import asyncio
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.channel import unix_transport
from orchestrator.adapters.channel.disposable_threads import in_thread
from orchestrator.adapters.channel.transport import Connection, TransportError
from orchestrator.adapters.channel.unix_transport import MAX_JUDGES, UnixTransport, remove_channel_directory
from orchestrator.domain import wire
from tests.contract.conftest import unix_reach
from tests.contract.scripted_agent import SANDBOX, SECRET, Reach, ScriptedAgent, knock

LINGER_SECONDS = 5


@pytest.fixture
async def transport(tmp_path: Path) -> AsyncIterator[UnixTransport]:
    transport, _ = unix_reach(tmp_path / "c")
    yield transport
    transport.close()
    transport.remove()


@pytest.fixture
def unadmitted(tmp_path: Path) -> Iterator[UnixTransport]:
    """Whose judges still wait for the container's pid."""
    transport = UnixTransport(parent=tmp_path / "c", sandbox_id=SANDBOX, secret=SECRET)
    transport.open()
    yield transport
    transport.close()
    transport.remove()


@pytest.fixture
async def reach(transport: UnixTransport, tmp_path: Path) -> AsyncIterator[Reach]:
    reach = Reach(transport, unix_reach(tmp_path / "c")[1])
    yield reach
    await reach.close()


@pytest.fixture
def candidates() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for sock in opened:
        sock.close()


def connecting(transport: UnixTransport, seconds: float = 5.0) -> asyncio.Future[Connection]:
    deadline = time.monotonic() + seconds
    return in_thread(lambda: transport.connect(deadline), "agent-connect", discard=Connection.close)


async def knocked(transport: UnixTransport) -> socket.socket:
    while True:
        try:
            return knock(transport.directory)
        except OSError:
            await asyncio.sleep(0.005)


async def met(reach: Reach, connection: asyncio.Future[Connection]) -> ScriptedAgent:
    agent = await reach.agent().say_hello()
    (await connection).close()
    return agent


@pytest.fixture
def lingering() -> Iterator[Callable[[], socket.socket]]:
    """Makes sockets whose last close lasts LINGER_SECONDS."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    accepted: list[socket.socket] = []

    def make() -> socket.socket:
        sock = socket.create_connection(listener.getsockname())
        accepted.append(listener.accept()[0])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER_SECONDS))
        sock.setblocking(False)
        try:
            while True:
                sock.send(bytes(65536))
        except BlockingIOError:
            sock.setblocking(True)
        return sock

    yield make
    for sock in (*accepted, listener):
        sock.close()


def pass_on(candidate: socket.socket, passed: socket.socket) -> None:
    """The receiver gets the last reference, and with it the lingering close."""
    socket.send_fds(candidate, [b"S"], [passed.fileno()])
    passed.close()


def judges() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "channel-judge"]


def test_close_of_such_a_socket_really_lingers(lingering: Callable[[], socket.socket]) -> None:
    """Without this the tests below would prove nothing."""
    sock = lingering()
    began = time.monotonic()
    sock.close()
    assert time.monotonic() - began > LINGER_SECONDS - 0.5


@pytest.mark.usefixtures("steady_loop")
async def test_passed_descriptor_with_a_lingering_close_holds_up_only_its_own_judge(
    unadmitted: UnixTransport, tmp_path: Path, candidates: list[socket.socket], lingering: Callable[[], socket.socket]
) -> None:
    reach = Reach(unadmitted, unix_reach(tmp_path / "c")[1])
    connection = connecting(unadmitted)
    for _ in range(3):
        candidates.append(await knocked(unadmitted))
        # In a thread: whoever closes last, lingers. It is the judge, who does not read before the pid is known.
        await asyncio.to_thread(lambda: pass_on(candidates[-1], lingering()))
    began = time.monotonic()
    unadmitted.admit(os.getpid())
    await met(reach, connection)
    assert time.monotonic() - began < LINGER_SECONDS - 1
    assert len(judges()) == 3, "the descriptors' closes have not lingered"
    await reach.close()


@pytest.mark.usefixtures("steady_loop")
async def test_descriptors_of_candidates_that_were_never_accepted_hold_up_nothing(
    unadmitted: UnixTransport, candidates: list[socket.socket], lingering: Callable[[], socket.socket]
) -> None:
    """They die with the listener."""
    connection = connecting(unadmitted)
    candidates.append(await knocked(unadmitted))
    candidates.extend(knock(unadmitted.directory) for _ in range(MAX_JUDGES - 1))
    while len(judges()) < MAX_JUDGES:  # noqa: ASYNC110 - threads set no event of the loop's
        await asyncio.sleep(0.01)
    for _ in range(3):
        candidates.append(knock(unadmitted.directory))
        await asyncio.to_thread(lambda: pass_on(candidates[-1], lingering()))
    began = time.monotonic()
    unadmitted.close()
    with pytest.raises(TransportError, match="closed"):
        await connection
    assert time.monotonic() - began < LINGER_SECONDS - 1
    assert [thread for thread in threading.enumerate() if thread.name == "channel-close"]


@pytest.mark.usefixtures("steady_loop")
async def test_more_silent_candidates_than_judges_only_delay_the_agent(
    transport: UnixTransport, reach: Reach, candidates: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_transport, "JUDGE_SECONDS", 0.3)
    connection = connecting(transport, 10)
    candidates.append(await knocked(transport))
    candidates.extend(knock(transport.directory) for _ in range(11))
    meeting = asyncio.create_task(met(reach, connection))
    most = 0
    while not meeting.done():
        most = max(most, len(judges()))
        await asyncio.sleep(0.01)
    await meeting
    assert most == MAX_JUDGES


@pytest.mark.usefixtures("steady_loop")
async def test_process_that_is_not_the_containers_init_is_hung_up_on_unheard(
    transport: UnixTransport, reach: Reach
) -> None:
    """Even one that knows the secret: the peer's pid is asked first."""
    connection = connecting(transport)
    (await knocked(transport)).close()
    stranger = f"""
import os, socket
os.chdir({str(transport.directory)!r})
sock = socket.socket(socket.AF_UNIX)
sock.connect({wire.socket_name(SECRET)!r})
print(len(sock.recv(100)))
"""
    heard = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", stranger], capture_output=True, timeout=10, check=True
    )
    assert heard.stdout == b"0\n"
    assert not connection.done()
    await met(reach, connection)


async def test_candidate_waits_until_the_pid_is_known(unadmitted: UnixTransport, tmp_path: Path) -> None:
    """The agent is quicker than the engine's answer to `start`."""
    reach = Reach(unadmitted, unix_reach(tmp_path / "c")[1])
    connection = connecting(unadmitted)
    agent = await reach.agent().connect()
    heard = asyncio.create_task(agent.next())
    done, _ = await asyncio.wait({heard}, timeout=0.2)
    assert not done
    unadmitted.admit(os.getpid())
    assert (await heard).type == "challenge"
    unadmitted.close()
    with pytest.raises(TransportError, match="closed"):
        await connection
    await reach.close()


async def test_where_no_pid_can_be_known_the_secret_decides(unadmitted: UnixTransport, tmp_path: Path) -> None:
    unadmitted.admit(0)
    reach = Reach(unadmitted, unix_reach(tmp_path / "c")[1])
    connection = connecting(unadmitted)
    with pytest.raises(EOFError):
        await reach.agent().say_hello(secret="00" * 32)
    await met(reach, connection)
    await reach.close()


async def test_listener_stands_only_while_a_hello_is_expected_and_the_directory_stays(
    transport: UnixTransport, reach: Reach
) -> None:
    def name() -> list[str]:
        return [entry.name for entry in transport.directory.iterdir()]

    assert name() == []
    connection = connecting(transport)
    (await knocked(transport)).close()
    assert name() == [wire.socket_name(SECRET)]
    await met(reach, connection)
    assert name() == []


async def test_directory_can_be_entered_but_not_listed_and_its_parent_neither(transport: UnixTransport) -> None:
    connection = connecting(transport)
    (await knocked(transport)).close()
    modes = [
        stat.S_IMODE(path.stat().st_mode)
        for path in (
            transport.directory.parent,
            transport.directory,
            transport.directory / wire.socket_name(SECRET),
        )
    ]
    assert modes == [0o700, 0o711, 0o666]
    transport.close()
    with pytest.raises(TransportError):
        await connection


async def test_close_ends_an_attempt_at_once_and_later_ones_too(transport: UnixTransport) -> None:
    connection = connecting(transport, 30)
    (await knocked(transport)).close()
    began = time.monotonic()
    transport.close()
    for attempt in (connection, connecting(transport, 30)):
        with pytest.raises(TransportError, match="closed"):
            await attempt
    assert time.monotonic() - began < 1


async def test_connection_that_nobody_takes_any_more_is_closed(transport: UnixTransport, reach: Reach) -> None:
    connection = connecting(transport)
    agent = reach.agent()
    await agent.connect()
    connection.cancel()
    challenge = await agent.next()
    proof = wire.proof(SECRET, "agent", challenge.header["nonce"])
    agent.send({"type": "hello", "proof": proof, "nonce": "ef" * 16, **agent.identity})
    assert await agent.hung_up_on()


def test_a_socket_that_is_bound_while_its_directory_goes_does_not_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, late = tmp_path / "channel", [True]
    directory.mkdir()
    remove = Path.rmdir

    def removed(path: Path) -> None:
        if late.pop() if late else False:
            (path / "late").touch()
        remove(path)

    monkeypatch.setattr(Path, "rmdir", removed)
    remove_channel_directory(directory)
    assert not directory.exists()
    remove_channel_directory(directory)
