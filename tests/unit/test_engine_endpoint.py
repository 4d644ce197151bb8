"""What is told of each place where an engine may be, whatever listens there, and always in time."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from orchestrator.adapters.engine.candidates import Endpoint
from orchestrator.adapters.engine.endpoint import Probe, find_engine, probe, survey, unavailable
from orchestrator.domain.errors import EngineUnavailableError

VERSION = {"Version": "20.10.24", "ApiVersion": "1.41"}


@contextmanager
def listener(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[Endpoint]:
    """A unix socket on which one connection is answered by `answer`."""

    def serve() -> None:
        with suppress(OSError), server.accept()[0] as connection:
            connection.recv(65536)
            answer(connection)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(5)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Endpoint(f"unix://{path}", "test")
        finally:
            thread.join()


def answering(body: bytes, status: str = "200 OK") -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.0 {status}\r\n\r\n".encode() + body)

    return answer


def test_an_engine_tells_its_version(tmp_path: Path) -> None:
    with listener(tmp_path / "s", answering(json.dumps(VERSION).encode())) as endpoint:
        found = probe(endpoint)
    assert (found.verdict, found.version, found.api_version) == ("works", "20.10.24", "1.41")


@pytest.mark.parametrize("body", [b"", b"hello", b"[]", b'{"Version": 3}', b"\xff\xfe"])
def test_something_else_that_listens_is_not_taken_for_an_engine(tmp_path: Path, body: bytes) -> None:
    with listener(tmp_path / "s", answering(body)) as endpoint:
        assert probe(endpoint).verdict == "not_an_engine"


def test_an_error_status_is_no_engine(tmp_path: Path) -> None:
    body = json.dumps(VERSION).encode()
    with listener(tmp_path / "s", answering(body, "500 No")) as endpoint:
        assert probe(endpoint).verdict == "not_an_engine"


def test_a_server_that_trickles_does_not_outlast_the_time_out(tmp_path: Path) -> None:
    def trickle(connection: socket.socket) -> None:
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.02)

    with listener(tmp_path / "s", trickle) as endpoint:
        began = time.monotonic()
        assert probe(endpoint, timeout_seconds=0.3).verdict == "silent"
        assert time.monotonic() - began < 1.5


def test_a_socket_that_nobody_serves_is_absent(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left_over:
        left_over.bind(str(tmp_path / "s"))
    assert probe(Endpoint(f"unix://{tmp_path}/s", "test")).verdict == "absent"


def test_a_missing_socket_is_absent(tmp_path: Path) -> None:
    assert probe(Endpoint(f"unix://{tmp_path}/none", "test")).verdict == "absent"


@pytest.mark.parametrize(
    "address",
    [
        "ssh://host",
        "tcp://:2375",
        "tcp://127.0.0.1:99999",
        "tcp://127.0.0.1:port",
        "tcp://[::1",
        "unix://[x",
        f"tcp://{'a' * 64}",
    ],
)
def test_an_address_of_another_kind_or_none_at_all_is_told_as_such(address: str) -> None:
    found = probe(Endpoint(address, "test"))
    assert (found.verdict, found.detail[:6]) == ("unsupported", "is no ")


def test_the_survey_stops_at_the_first_that_works(tmp_path: Path) -> None:
    missing = Endpoint(f"unix://{tmp_path}/none", "first")
    with listener(tmp_path / "s", answering(json.dumps(VERSION).encode())) as endpoint:
        found = survey(places=[missing, endpoint, missing])
    assert [one.verdict for one in found] == ["absent", "works"]


def test_the_refusal_is_named_before_the_absence() -> None:
    absent = Probe(Endpoint("unix:///a", "default socket"), "absent", "does not exist")
    refused = Probe(Endpoint("unix:///b", "rootless socket"), "no_permission", "does not let this user in")
    failure = unavailable([absent, refused])
    assert "unix:///b" in failure.message
    assert failure.hint is not None
    assert "equals root" in failure.hint


def test_the_setting_is_heard_above_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    with listener(tmp_path / "s", answering(json.dumps(VERSION).encode())) as endpoint:
        found = find_engine(endpoint.base_url)
    assert found.endpoint == Endpoint(endpoint.base_url, "ORCHESTRATOR_DOCKER_HOST", exclusive=True)
    with pytest.raises(EngineUnavailableError, match=r"tcp://localhost:1 \(ORCHESTRATOR_DOCKER_HOST\)"):
        find_engine("localhost:1")


def orchestrator(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "command", ["engine ensure", "engine status", "engine run -- true", "image build", "image show"]
)
def test_every_command_asks_the_engine_that_the_setting_names_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DOCKER_HOST", f"unix://{tmp_path}/none")
    ended = orchestrator(*command.split())
    # The status of an engine is an answer, be it no; the others cannot do without one.
    assert ended.returncode == (1 if command == "engine status" else 5)
    assert f"unix://{tmp_path}/none (ORCHESTRATOR_DOCKER_HOST)" in ended.stdout + ended.stderr


def test_a_command_that_is_run_finds_the_same_engine_with_tools_of_docker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    with listener(tmp_path / "s", answering(json.dumps(VERSION).encode())) as endpoint:
        monkeypatch.setenv("ORCHESTRATOR_DOCKER_HOST", endpoint.base_url)
        ended = orchestrator("engine", "run", "--", "sh", "-c", 'echo "$DOCKER_HOST $DOCKER_TLS_VERIFY"')
    assert (ended.stdout, ended.returncode) == (f"{endpoint.base_url} \n", 0)
