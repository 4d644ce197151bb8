"""What reads bytes of strangers, each as one function of bytes: it answers, or refuses in its own words."""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, JSONRPCRequest

from orchestrator.adapters.channel import replies, snapshot_frames
from orchestrator.domain.capsule_reading import CapsuleRefusedError
from orchestrator.domain.capsules import HEAD, MAGIC
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.identifiers import MAX_SESSION_ID_CHARACTERS, session_id_of
from orchestrator.domain.kept_results import KeptExecution
from orchestrator.domain.manifests import read_manifest
from orchestrator.domain.model import CellOrder, ExecutionResult, Namespace, SessionSummary
from orchestrator.domain.snapshots import Manifest
from orchestrator.domain.wire import MAX_BODY, Frame, FrameDecoder, ProtocolViolationError, encode
from orchestrator.faces.line_transport import UnreadableLineError, parse
from orchestrator.faces.mcp_server import ToolServer, build_server
from tests.unit import capsules
from tests.unit.test_agent_saves import load

UNIT = Path(__file__).parents[1] / "unit"
SECONDS = 2.0  # that one input may take: some hundred times what the largest takes
BYTES = 64 * 1024 * 1024  # of memory that one input may make a reader allocate
MOST_INPUT = 128 * 1024  # bytes of one input: a whole header, and some body
_ORDER = CellOrder(1, "", time_limit=1, grace=1, output_head=100, output_tail=100)
_AGENT = load("wire")


def frames(data: bytes) -> None:
    """Both codecs read the same, in whatever pieces it comes; the host may refuse a header before its body is there."""
    step = data[0] + 1 if data else 1
    pieces = [data[start : start + step] for start in range(1, len(data), step)]
    host, agent = _frames_of(pieces), _frames_of_the_agent(pieces)
    assert host[1] or (not agent[1] and host[0] == agent[0])
    # Of a read with a bad frame in it the agent hands on nothing.
    assert agent[0] == host[0][: len(agent[0])]


def _frames_of(pieces: Sequence[bytes]) -> tuple[list[Any], bool]:
    """What was read, and whether something was refused."""
    decoder, found = FrameDecoder(max_body=MAX_BODY), []
    try:
        for piece in pieces:
            for frame in decoder.feed(piece):
                found.append((dict(frame.header), list(frame.parts)))  # noqa: PERF401 - what came before a refusal stays
    except ProtocolViolationError:
        return found, True
    return found, False


def _frames_of_the_agent(pieces: Sequence[bytes]) -> tuple[list[Any], bool]:
    decoder, found = _AGENT.Decoder(), []
    try:
        for piece in pieces:
            found += decoder.feed(piece)
    except _AGENT.ProtocolViolationError:
        return found, True
    return found, False


def manifest(data: bytes) -> None:
    """A manifest."""
    with suppress(ProtocolViolationError):
        assert isinstance(read_manifest(data, b"", b""), Manifest)


READERS: Sequence[Callable[[Frame], object]] = (
    replies.agent_hello,
    replies.landlock,
    replies.refusal,
    lambda frame: replies.cell_report(frame, _ORDER),
    replies.namespace,
    snapshot_frames.piece,
    snapshot_frames.save_reply,
    snapshot_frames.crashed_group,
    snapshot_frames.restore_report,
)


def channel(data: bytes) -> None:
    """Every reader of replies over every frame."""
    with suppress(ProtocolViolationError):
        for frame in FrameDecoder().feed(data):
            for reader in READERS:
                with suppress(ProtocolViolationError):
                    reader(frame)


def session_ids(data: bytes) -> None:
    """A session's name: what is taken names itself again."""
    with suppress(InvalidRequestError, UnicodeDecodeError):
        name = session_id_of(data.decode("utf-8", "surrogatepass"))
        assert session_id_of(name) == name
        assert 0 < len(name) <= MAX_SESSION_ID_CHARACTERS
        name.encode()


class _Nobody:
    """Sessions that do nothing, and are asked for nothing that the service would not take."""

    async def execute(self, code: str, **given: Any) -> ExecutionResult:  # noqa: ANN401 - whatever came through
        assert type(code) is str
        assert given["session_id"] is None or type(given["session_id"]) is str
        assert given["timeout"] is None or type(given["timeout"]) in (int, float)
        raise InvalidRequestError("nothing is run here")

    async def list_variables(self, session_id: str, **_: object) -> Namespace:
        assert type(session_id) is str
        return Namespace((), ())

    async def list_sessions(self, **_: object) -> Sequence[SessionSummary]:
        return ()

    async def result(self, session_id: str, execution: int) -> KeptExecution:
        assert type(session_id) is str
        assert type(execution) is int
        raise InvalidRequestError("nothing was run here")

    async def clear(self, session_id: str, **_: object) -> None:
        assert type(session_id) is str

    async def delete(self, session_id: str, **_: object) -> None:
        assert type(session_id) is str


@cache
def _server() -> ToolServer:
    return build_server(lambda _: _Nobody())


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def mcp(data: bytes) -> None:
    """A line of a client's, and where it calls a tool, the tool's arguments."""
    try:
        message = parse(data)
    except UnreadableLineError as refused:
        _require(refused.answer.error.message)
        return
    if isinstance(message, JSONRPCRequest) and message.method == "tools/call":
        given = message.params if isinstance(message.params, dict) else {}
        name, arguments = given.get("name"), given.get("arguments")
        if isinstance(name, str) and isinstance(arguments, dict):
            with suppress(ToolError):  # an unknown tool, which is the SDK's to answer
                answer = _loop().run_until_complete(_server().call_tool(name, arguments))
                assert isinstance(answer, CallToolResult)
                assert answer.structured_content is not None


def _require(told: object) -> None:
    assert told


def capsule(data: bytes) -> None:
    """The same in whatever cut; resealed, so that it reaches what only a signer could write."""
    step = data[0] + 1 if data else 1
    for tried in (data[1:], _resealed(data[1:])):
        assert _read_of(tried, len(tried) or 1) == _read_of(tried, step)


def _resealed(data: bytes) -> bytes:
    place, records = len(MAGIC), []
    while place + HEAD.size <= len(data):
        _, size = HEAD.unpack_from(data, place)
        records.append(data[place : place + HEAD.size + size])
        place += HEAD.size + size
    return capsules.resealed(records) if records else data


def _read_of(data: bytes, step: int) -> list[Any] | None:
    try:
        return capsules.read(data, step)
    except CapsuleRefusedError:
        return None


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": frames,
    "manifest": manifest,
    "capsule": capsule,
    "channel": channel,
    "session_ids": session_ids,
    "mcp": mcp,
}


def seeds(target: str) -> list[bytes]:
    """What the fuzzer begins with: golden frames, and one good example of everything else."""
    golden = json.loads((UNIT / "golden_frames.json").read_text("utf-8"))
    known = [bytes.fromhex(row["bytes"]) for row in (*golden["frames"], *golden["refused"])]
    match target:
        case "frames":
            return [bytes([step]) + raw for raw in (*known, b"".join(known[:3])) for step in (0, 6, 255)]
        case "manifest":
            return [json.dumps(_MANIFEST).encode()]
        case "capsule":
            return [b"\xff" + capsules.whole(), b"\0" + capsules.whole(cells=[])]
        case "channel":
            return [*known, *(encode(header, parts) for header, parts in _REPLIES)]
        case "session_ids":
            return [
                b"a",
                "café".encode(),
                "e\u0301".encode(),
                b"\xed\xa0\x80",
                "👩\u200d🔬".encode(),
                b" x",
                b"x" * 129,
            ]
        case _:
            return [json.dumps(_call(name, arguments)).encode() for name, arguments in _CALLS]


_DIGEST = "a" * 32
_MANIFEST = {
    "version": 1,
    "sequence": 3,
    "incarnation": 2,
    "execution": 7,
    "environment": "digest",
    "python": "3.11",
    "names": [["x", "value", "int", 28, "saved", None, None, _DIGEST]],
    "unlisted_names": 0,
    "files": [["data/a.csv", "file", 12, 6, _DIGEST], ["link", "link", 0, 7, None]],
    "unlisted_files": 1,
    "namespace": [_DIGEST],
    "workspace": [],
}
_RESULT = {"type": "reply", "id": 1, "ok": True, "execution": 1, "outcome": "ok", "duration": 0.5, "output_bytes": 3}
_RESULT |= {"namespace_kept": True, "resumed": None, "variables": 1, "cause": None, "memory_peak": 0, "notes": ["n"]}
_WORKER = b'{"error":null,"bound":["x"],"removed":[],"displays":["image/png"],"value":true,"notes":[]}'
_REPLIES: list[tuple[dict[str, Any], list[bytes]]] = [
    (_RESULT, [_WORKER, b"abc", b"", b"1", b"", b"\x89PNG\r\n\x1a\n"]),
    ({"type": "reply", "ok": True}, [b'{"variables":[["x","int",28]],"imports":[],"notes":[]}']),
    ({"type": "piece", "save": 1, "digest": _DIGEST, "size": 4, "encoding": "raw"}, [b"abcd"]),
    ({"type": "reply", "ok": True, "files": True, "cpu": 1, "remarks": [["x", "y"]]}, [b"{}", b"", b""]),
    ({"type": "reply", "ok": True, "restored": 1, "crashed": None}, [b'{"lost":[["x","y"]],"state_lost":[]}']),
    ({"type": "reply", "ok": False, "error": {"code": "lost", "message": "m", "resumed": 3}}, []),
]
_CALLS: list[tuple[str, dict[str, Any]]] = [
    ("python_repl", {"code": "x = 1", "session_id": "s", "timeout": 5}),
    ("python_repl", {"code": '{"a":1}', "session_id": None, "timeout": "null"}),
    ("python_list_variables", {"session_id": "[1]"}),
    ("python_list_sessions", {}),
    ("python_clear_session", {"session_id": "s"}),
    ("python_delete_session", {"session_id": ""}),
]


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
