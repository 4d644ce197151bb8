"""What a fork of the worker does to save: it reads the files, sees the namespace through, and tells the supervisor.

The fork is a frozen copy of the session. It runs user code only in children of its own (see snapshot/keeper.py), all of
which hold the writing end of the pipe that the supervisor reads: what user code writes there costs this save.
"""

import builtins
import faulthandler
import os
import resource
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from agent import piece_records as records
from agent import plain_json, pristine, refused_rows
from agent.cgroup import MemoryGauge
from agent.manifest import manifest, remarks
from agent.piece_records import HEADER, NO_DIGEST
from agent.processes import living_beside
from agent.snapshot import process_patches, process_state
from agent.snapshot.keeper import SaveFailedError, keep, settle
from agent.snapshot.libraries import zstandard
from agent.snapshot.nodes import Limits
from agent.snapshot.pieces import Emit, PieceWriter
from agent.snapshot.saving import Order, Saved
from agent.snapshot.workspace_scan import GivenUpError, Scanned, scan

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_WORKSPACE = "/workspace"
_NOT_SAVED = ("/tmp", "/dev/shm")
_DIGEST_SIZE = 16
_LEAST_KEPT = 64 * 1024 * 1024  # bytes of files that are kept until all are read
_REHEARSAL_BOUND = 5.0  # seconds for the zygote to fork
_GO_BOUND = 30.0  # seconds for the supervisor to see to this process, or to stop everything else
_ENDING = 0.05  # seconds in which what was about to end has ended
_PATIENCE = 24 * 3600.0  # the supervisor bounds how long nothing is taken


def digests_of(joined: bytes) -> frozenset[bytes]:
    """Digests that came side by side."""
    return frozenset(joined[start : start + _DIGEST_SIZE] for start in range(0, len(joined), _DIGEST_SIZE))


@dataclass(frozen=True)
class Beside:
    """The worker that the frozen copy is of, and its threads beside the one that is in the copy."""

    worker: int
    threads: int


class SaveChild:
    """One save. `before` is what `process_state.before_fork` said in the worker."""

    def __init__(
        self,
        namespace: dict[str, Any],
        before: dict[str, Any],
        beside: Beside,
        header: dict[str, Any],
        parts: Sequence[bytes],
    ) -> None:
        self._namespace = namespace
        self._before = before
        self._beside = beside
        self._order = header
        known, rehearsed, self._refused = parts
        self._known, self._rehearsed = digests_of(known), digests_of(rehearsed)
        self._files = True
        self._running: list[tuple[str, str]] = []
        self._given_up = False  # reading files, before it has begun
        self._scanned = Scanned()

    def run(self, pipe: int, connection: socket.socket, spared: int) -> NoReturn:
        """Save and end. Of the descriptors from `spared` on, only these two go on meaning what they mean."""
        self._pipe, self._connection = pipe, connection
        try:
            vars(builtins).update(pristine.BUILTINS)  # what pickles needs those, too, and no cell runs here
            process_patches.put_back()
            settle()
            faulthandler.disable()  # its report is for the worker's own end
            _let_go(spared, {pipe, connection.fileno()})
            self._run()
        except SaveFailedError as error:
            self._write(records.FAILED, str(error).encode("utf-8", "replace")[:1000])
        except BaseException as error:
            self._write(records.FAILED, f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:1000])
        finally:
            os._exit(0)

    def _run(self) -> None:
        self._await_go()
        ours = {self._beside.worker, os.getpid(), os.getppid(), *self._order["ours"]}
        living = living_beside(ours)
        self._scan()
        if living:
            time.sleep(_ENDING)
            living &= living_beside(ours)
        self._running = process_state.running(self._beside.threads, len(living))
        refused = keep(
            self._namespace, self._saving(), self._emit, self._finish, lost=self._lost, storing_silence=_PATIENCE
        )
        self._lost(refused)
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        done = {"cpu": sum(one.ru_utime + one.ru_stime for one in used)}
        self._write(records.DONE, plain_json.write(done))

    def _await_go(self) -> None:
        """The supervisor sees to it first that this goes before the worker where memory runs out."""
        self._connection.settimeout(_GO_BOUND)
        while (word := self._connection.recv(1)) != records.GO:
            if word != records.GIVE_UP:
                raise SaveFailedError("the supervisor has given it up")
            self._given_up = True
        self._connection.settimeout(None)

    def _lost(self, refused: Mapping[str, str]) -> None:
        """At once: the next save is to know of them also where this one comes to nothing."""
        self._write(records.REFUSED, refused_rows.packed(refused, self._namespace))

    # the files, while nothing else moves them

    def _scan(self) -> None:
        kept = _Kept(self._emit)
        pieces = PieceWriter(kept.emit, self._order["seed"], self._known, compress=self._order["compress"])
        root = os.open(_WORKSPACE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._scanned = scan(
                root, pieces, self._order["execution"], give_up=self._told_to_give_up, outside=_NOT_SAVED
            )
        except GivenUpError:
            self._files = False
            kept.forget()
        finally:
            os.close(root)
        self._write(records.FROZEN, flag=int(self._files))
        kept.release()

    def _told_to_give_up(self) -> bool:
        try:
            return self._given_up or self._connection.recv(1, socket.MSG_DONTWAIT) == records.GIVE_UP
        except BlockingIOError:
            return False

    # the namespace

    def _saving(self) -> Order:
        order = self._order
        return Order(
            seed=order["seed"],
            limits=Limits(order["variable_limit"], order["session_limit"]),
            known=self._known,
            compress=order["compress"],
            take=partial(process_state.take, self._namespace, self._before),
            rehearsed=frozenset(digest.hex() for digest in self._rehearsed),
            rehearse=self._rehearse,
            given_up=self._rehearsal_was_given_up,
            running=self._running,
            refused=refused_rows.unpacked(self._refused, self._namespace),
        )

    def _rehearse(self) -> socket.socket | None:
        self._write(records.REHEARSE)
        self._connection.settimeout(_REHEARSAL_BOUND)
        while True:
            try:
                message, descriptors, _, _ = pristine.recv_fds(self._connection, 1, 1)
            except OSError:
                return None
            if descriptors:
                return pristine.socket_of(fileno=descriptors[0])
            if message != records.GIVE_UP:  # which came too late
                return None

    def _rehearsal_was_given_up(self) -> bool:
        self._connection.settimeout(0)
        try:
            return self._connection.recv(1) == records.NO_REHEARSAL
        except OSError:
            return False

    def _finish(self, saved: Saved) -> None:
        scanned = self._scanned
        workspace = scanned.pieces
        self._write(records.MANIFEST, manifest(self._order, saved.names, scanned.files, saved.pieces, workspace))
        packer = zstandard.ZstdCompressor(level=3)
        self._write(records.NAMESPACE_BODY, packer.compress(saved.body))
        self._write(records.WORKSPACE_BODY, packer.compress(scanned.body) if self._files else b"")
        self._write(records.NAMESPACE_DIGESTS, bytes.fromhex("".join(saved.pieces)))
        self._write(records.WORKSPACE_DIGESTS, bytes.fromhex("".join(workspace)))
        self._write(records.REHEARSED, bytes.fromhex("".join(saved.rehearsed)))
        self._write(records.REMARKS, remarks(saved.remarks, scanned.remarks, scanned.refused))

    # the pipe

    def _emit(self, digest: bytes, size: int, encoding: str, data: Any) -> None:
        self._write(records.PIECE, data, records.ENCODINGS.index(encoding), size, digest)

    def _write(self, kind: bytes, data: Any = b"", encoding: int = 0, flag: int = 0, digest: bytes = NO_DIGEST) -> None:
        """A record, without copying its data."""
        view = memoryview(data)
        header = HEADER.pack(kind, encoding, flag, len(view), digest)
        written = os.writev(self._pipe, (header, view)) - len(header)
        while written < len(view):
            written += os.write(self._pipe, view[written:])


class _Kept:
    """Pieces of files, kept until all are read: a waiting cell waits for memory then, and not for the host's disk."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._pieces: list[tuple[bytes, int, str, Any]] = []
        self._room = max(_LEAST_KEPT, MemoryGauge().left() * 3 // 4)

    def emit(self, digest: bytes, size: int, encoding: str, data: Any) -> None:
        """Keep it, or wait for the host after all where there are too many."""
        self._room -= len(data)
        if self._room >= 0:
            self._pieces.append((digest, size, encoding, data))
            return
        self.release()
        self._emit(digest, size, encoding, data)

    def release(self) -> None:
        """Hand them on, and let each go at once."""
        self._pieces.reverse()
        while self._pieces:
            self._emit(*self._pieces.pop())

    def forget(self) -> None:
        """Nobody wants them."""
        self._pieces.clear()


def _let_go(spared: int, kept: set[int]) -> None:
    """Our own descriptors of the worker lead nowhere: user code that writes to all that it finds reaches no channel."""
    null = os.open("/dev/null", os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        if int(name) >= spared and int(name) not in kept:
            os.dup2(null, int(name))
    os.close(null)
