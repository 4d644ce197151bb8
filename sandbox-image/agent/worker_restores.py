"""The worker's part of a restore: files, then the namespace, from pieces that come through a pipe."""

import os
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent import piece_records as records
from agent import pristine
from agent.piece_records import ENCODINGS, HEADER, MAX_PIECE
from agent.snapshot.libraries import zstandard
from agent.snapshot.pieces import DamagedError, unpack
from agent.snapshot.restoring import BodyError, restore, wanted
from agent.snapshot.workspace_restore import WorkspaceBodyError, restore_files, wanted_files
from agent.wire import Header

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_WORKSPACE = "/workspace"
_MAX_BODY = 256 * 1024 * 1024  # bytes, unpacked
_MAX_ROWS = 1000  # of what is lost
_MAX_NAME, _MAX_REASON = 400, 500  # characters

Tell = Callable[[Header], None]


class PieceSource:
    """Reads the pieces of a table in their order; those that nobody asks for are skipped."""

    def __init__(self, pipe: int, table: Sequence[str], waits: Callable[[bool], None]) -> None:
        self._pipe = pipe
        self._positions = {digest: position for position, digest in enumerate(table)}
        self._waits = waits
        self._at = 0  # records that were read
        self._ready = select.poll()
        self._ready.register(pipe, select.POLLIN)
        self._aside = bytearray()

    def fetch(self, digest: str, size: int, target: memoryview) -> None:
        """Fill `target`. Raises DamagedError."""
        position = self._positions[digest]
        if position < self._at:
            raise DamagedError(f"piece {digest} was asked for too late")
        while self._at < position:
            self._next(None)
        kind, encoding, raw_size, data = self._next(target)
        if kind == records.DAMAGED:
            raise DamagedError(bytes(data).decode("utf-8", "replace"))
        if raw_size != size:
            raise DamagedError(f"piece {digest} has {raw_size} bytes instead of {size}")
        if data is not target:
            unpack(encoding, bytes(data), size, target)

    def _next(self, target: memoryview | None) -> tuple[bytes, str, int, memoryview]:
        """The next record; its data are in `target` where they fit into it as they are."""
        # A group that runs out of time must not leave half a record behind.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        try:
            return self._record(target)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _record(self, target: memoryview | None) -> tuple[bytes, str, int, memoryview]:
        header = bytearray(HEADER.size)
        if self._ready.poll(0):
            self._read(memoryview(header))
        else:
            # The host's time is not the group's.
            timer = signal.setitimer(signal.ITIMER_REAL, 0)
            self._waits(True)
            self._read(memoryview(header))
            self._waits(False)
            signal.setitimer(signal.ITIMER_REAL, *timer)
        kind, encoding, size, length, _ = HEADER.unpack(header)
        self._at += 1
        if kind == records.PIECE and ENCODINGS[encoding] == "raw" and target is not None and len(target) == length:
            data = target
        else:
            self._aside = self._aside or bytearray(MAX_PIECE)
            data = memoryview(self._aside)[:length]
        self._read(data)
        return kind, ENCODINGS[encoding], size, data

    def _read(self, target: memoryview) -> None:
        while target:
            count = os.readv(self._pipe, [target])
            if not count:
                raise DamagedError("the pieces ended early")
            target = target[count:]


def run(namespace: dict[str, Any], header: Header, body: bytes, pipe: int, tell: Tell) -> tuple[Header, dict[str, Any]]:
    """Bring one section back: the fields of the answer, and the lists of what is lost. Raises nothing."""

    def say(**fields: Any) -> None:
        tell({"type": "restoring", "restore": header["restore"], **fields})

    try:
        act = _files if header["section"] == "workspace" else _namespace
        return act(namespace, header, _unpacked(body), pipe, say)
    except (BodyError, WorkspaceBodyError, zstandard.ZstdError) as error:
        return {"error": str(error), "malformed": True}, {}
    except BaseException as error:
        return {"error": f"{type(error).__name__}: {error}"[:_MAX_REASON]}, {}


def _files(
    _namespace: dict[str, Any], header: Header, body: bytes, pipe: int, say: Callable[..., None]
) -> tuple[Header, dict[str, Any]]:
    source = PieceSource(pipe, wanted_files(body), lambda waits: say(waits=waits))
    root = os.open(_WORKSPACE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        report = restore_files(root, body, source.fetch, header["seed"])
    finally:
        os.close(root)
    return {"restored": report.files}, {"lost": _capped(report.lost), "state_lost": []}


def _namespace(
    namespace: dict[str, Any], header: Header, body: bytes, pipe: int, say: Callable[..., None]
) -> tuple[Header, dict[str, Any]]:
    source = PieceSource(pipe, wanted(body), lambda waits: say(waits=waits))
    quarantined: Mapping[int, str] = dict(header["quarantined"])
    report = restore(
        namespace,
        body,
        source.fetch,
        header["seed"],
        announce=lambda group: say(group=group),
        quarantined=quarantined,
        bound=header["bound"],
        careful=header["careful"],
    )
    return {"restored": report.names}, {"lost": _capped(report.lost), "state_lost": _capped(report.state_lost)}


def _unpacked(body: bytes) -> bytes:
    size = zstandard.frame_content_size(body)
    if not 0 <= size <= _MAX_BODY:
        raise BodyError(f"a body of {size} bytes")
    unpacked: bytes = zstandard.ZstdDecompressor().decompress(body, max_output_size=_MAX_BODY)
    return unpacked


def _capped(rows: Sequence[tuple[str, str]]) -> list[list[str]]:
    capped = [[str(name)[:_MAX_NAME], str(why)[:_MAX_REASON]] for name, why in rows[:_MAX_ROWS]]
    if len(rows) > _MAX_ROWS:
        capped[-1] = ["…", f"{len(rows) - _MAX_ROWS + 1} more are not listed"]
    return capped
