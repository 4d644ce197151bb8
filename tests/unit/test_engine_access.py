"""What goes wrong with an engine becomes one sentence and what to do; only what is safe is asked again."""

import gc
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import docker
import pytest

from orchestrator.adapters.engine.access import EngineAccess
from orchestrator.adapters.engine.candidates import Endpoint
from orchestrator.adapters.engine.endpoint import Probe
from orchestrator.adapters.engine.failures import EngineConflictError, EngineFaltersError, EngineUnreachableError
from orchestrator.domain.errors import EngineUnavailableError

Answer = tuple[int, bytes] | None  # None: hang up


class ScriptedEngine:
    """Answers requests in order as the test says, the last answer again and again."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[str] = []
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                engine.asked.append(f"{self.command} {self.path}")
                answer = engine.answers.pop(0) if len(engine.answers) > 1 else engine.answers[0]
                self.close_connection = True
                if answer is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(answer[0])
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])

            do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the standard library's names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - likewise
                """Tests are quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def probe(self) -> Probe:
        return Probe(Endpoint(f"tcp://127.0.0.1:{self.server.server_port}", "test"), "works", "", "20.10", "1.41")

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join(5)
        self.server.server_close()


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine()
    yield engine
    engine.close()


@pytest.fixture
def access(engine: ScriptedEngine) -> Iterator[EngineAccess]:
    access = EngineAccess(engine.probe)
    yield access
    access.close()


def version(api: docker.APIClient) -> object:
    return api.version()


def test_engine_that_falters_is_asked_again_where_that_is_safe(engine: ScriptedEngine, access: EngineAccess) -> None:
    engine.answers = [(500, b'{"message":"busy"}'), None, (200, b'{"Version":"1"}')]
    assert access.ask("Looking", version) == {"Version": "1"}
    assert len(engine.asked) == 3


@pytest.mark.parametrize("answer", [(500, b'{"message":"broken"}'), None])
def test_change_that_may_have_happened_is_not_made_twice(
    engine: ScriptedEngine, access: EngineAccess, answer: Answer
) -> None:
    engine.answers = [answer]
    with pytest.raises(EngineFaltersError, match="Creating a sandbox failed"):
        access.change("Creating a sandbox", version)
    assert len(engine.asked) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(409, EngineConflictError), (500, EngineFaltersError), (400, EngineUnavailableError)],
)
def test_answer_of_the_engine_is_in_the_sentence(
    engine: ScriptedEngine, access: EngineAccess, status: int, kind: type[EngineUnavailableError]
) -> None:
    engine.answers = [(status, b'{"message":"cgroup namespaces are not supported\\nmore"}')]
    with pytest.raises(kind) as raised:
        access.change("Creating a sandbox", version)
    assert type(raised.value) is kind
    sentence = "Creating a sandbox failed: the engine says: cgroup namespaces are not supported."
    assert raised.value.message == sentence


def test_missing_image_says_what_to_run(engine: ScriptedEngine, access: EngineAccess) -> None:
    engine.answers = [(404, b'{"message":"No such image: x"}')]
    with pytest.raises(EngineUnavailableError) as raised:
        access.change("Creating a sandbox", version)
    assert raised.value.hint == "Run `orchestrator image build`."


# The SDK leaves a socket that could not connect to the garbage collector.
unclosed_by_the_sdk = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")


@unclosed_by_the_sdk
def test_engine_is_looked_for_again_after_nobody_answered(engine: ScriptedEngine, tmp_path: Path) -> None:
    places = [Probe(Endpoint(f"unix://{tmp_path}/gone.sock", "test"), "works", "", "20.10", "1.41"), engine.probe()]
    engine.answers = [(200, b'{"Version":"1"}')]
    found = EngineAccess(lambda: places.pop(0))
    assert found.change("Creating a sandbox", version) == {"Version": "1"}
    found.close()
    gc.collect()


@unclosed_by_the_sdk
@pytest.mark.parametrize("place", [lambda folder: f"unix://{folder}/gone.sock", lambda _: "tcp://127.0.0.1:1"])
def test_nobody_there_is_told_as_such(tmp_path: Path, place: Callable[[Path], str]) -> None:
    access = EngineAccess(lambda: Probe(Endpoint(place(tmp_path), "test"), "works", "", "20.10", "1.41"))
    with pytest.raises(EngineUnreachableError, match="no Docker Engine answers"):
        access.change("Creating a sandbox", version)
    access.close()
    gc.collect()


def test_failure_to_find_an_engine_is_told_in_the_finders_words() -> None:
    def find() -> Probe:
        raise EngineUnavailableError("No Docker Engine is usable: x.", hint="Run y.")

    with pytest.raises(EngineUnavailableError, match="No Docker Engine is usable"):
        EngineAccess(find).ask("Looking", version)


def test_closed_access_asks_nothing(engine: ScriptedEngine) -> None:
    access = EngineAccess(engine.probe)
    access.close()
    with pytest.raises(EngineUnavailableError, match="was closed"):
        access.ask("Looking", version)
    assert engine.asked == []


OURS = b'{"Id":"c1","Config":{"Labels":{"installation":"a"}}}'
THEIRS = b'{"Id":"c1","Config":{"Labels":{"installation":"b"}}}'
NONE = (404, b'{"message":"No such container"}')


def test_removal_under_way_is_waited_for_until_the_engine_has_forgotten(
    engine: ScriptedEngine, access: EngineAccess
) -> None:
    engine.answers = [(200, OURS), (409, b'{"message":"removal in progress"}'), (200, OURS), (200, OURS), NONE]
    access.remove("so-x", {"installation": "a"})
    assert [line.split()[0] for line in engine.asked] == ["GET", "DELETE", "GET", "GET", "GET"]


def test_container_without_our_label_is_not_touched(engine: ScriptedEngine, access: EngineAccess) -> None:
    engine.answers = [(200, THEIRS)]
    access.remove("so-x", {"installation": "a"})
    assert [line.split()[0] for line in engine.asked] == ["GET"]


def test_container_that_vanishes_under_the_removal_is_a_success(engine: ScriptedEngine, access: EngineAccess) -> None:
    engine.answers = [(200, OURS), NONE]
    access.remove("so-x", {"installation": "a"})
