"""A Unix socket for each sandbox, in a directory of its own that is mounted read-only into it.

Everybody in the sandbox runs under the same uid and can reach the directory, so whoever connects is a suspect: it is
accepted, judged and closed in threads that nothing else waits for (a descriptor that was passed to us can make any
read or close last as long as its sender chose).
"""

import contextlib
import errno
import logging
import os
import select
import socket
import struct
import threading
import time
from pathlib import Path

from orchestrator.adapters.channel.disposable_threads import spawn
from orchestrator.adapters.channel.handshake import HEARTBEAT_SECONDS, shake_hands
from orchestrator.adapters.channel.transport import (
    Connection,
    Once,
    TransportError,
    UnreachableError,
    passed,
    seconds_until,
)
from orchestrator.domain.hardening import Channel
from orchestrator.domain.wire import ProtocolViolationError, socket_name

MAX_JUDGES = 8
JUDGE_SECONDS = 5.0
_REMOVALS = 3  # tries
_BACKLOG = 16
_PEER = struct.Struct("3i")  # pid, uid, gid of SO_PEERCRED

logger = logging.getLogger(__name__)


def channel_directory(parent: Path, sandbox_id: str) -> Path:
    """The sandbox's directory; derived, so that a later owner finds it. Its name says nothing of what it is for."""
    return parent / sandbox_id[:16]


def remove_channel_directory(directory: Path) -> None:
    """Take the directory away with what is left in it; only sockets of ours can be. Absent is success."""
    for left in reversed(range(_REMOVALS)):
        with contextlib.suppress(FileNotFoundError):
            for entry in directory.iterdir():
                entry.unlink(missing_ok=True)
            try:
                directory.rmdir()
            except OSError as failure:  # a listener that was just being made has bound its socket meanwhile
                if failure.errno != errno.ENOTEMPTY or not left:
                    raise
                continue
        return


def _bind(listener: socket.socket, path: Path) -> None:
    # By way of the directory's descriptor: a socket's address holds 107 bytes, a path may have more.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


class UnixTransport:
    """Listens while a hello is expected, and only then."""

    def __init__(self, *, parent: Path, sandbox_id: str, secret: str, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        self.directory = channel_directory(parent, sandbox_id)
        self._sandbox_id = sandbox_id
        self._secret = secret
        self._heartbeat = heartbeat
        self._pid = Once()
        self._judges = threading.Semaphore(MAX_JUDGES)  # over all attempts: a lingering judge outlives its own
        self._turn = threading.Lock()  # one attempt at a time, since they share the socket's name
        self._closed = threading.Event()
        self._current: _Attempt | None = None

    @property
    def channel(self) -> Channel:
        """The directory to mount."""
        return Channel("unix", str(self.directory))

    def open(self) -> None:
        """Make the directory: entered by all, listed by none."""
        try:
            parent = self.directory.parent
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            parent.chmod(0o700)
            self.directory.mkdir(exist_ok=True)
            self.directory.chmod(0o711)
        except OSError as error:
            raise TransportError(f"its channel's directory could not be made: {error}") from error

    def admit(self, pid: int) -> None:
        """Say which process is the container's init; candidates wait for it."""
        self._pid.give(pid)

    def connect(self, deadline: float) -> Connection:
        """The first candidate that proves itself."""
        if not self._turn.acquire(timeout=seconds_until(deadline)):
            raise TransportError("another attempt to connect has not ended")
        try:
            if self._closed.is_set():
                raise TransportError("its channel was closed")
            return self._attempt(deadline)
        finally:
            self._turn.release()

    def close(self) -> None:
        """End the attempt that waits."""
        self._closed.set()
        if attempt := self._current:
            attempt.wake()

    def remove(self) -> None:
        """Take the directory away."""
        remove_channel_directory(self.directory)

    @property
    def _path(self) -> Path:
        return self.directory / socket_name(self._secret)

    def _attempt(self, deadline: float) -> Connection:
        listener = self._listen()
        attempt = _Attempt(listener, deadline, self._closed)
        self._current = attempt
        failure = TransportError("its agent did not say hello")
        try:
            while not attempt.over():
                # Where every judge is held up, nobody more is accepted until one ends.
                if self._judges.acquire(timeout=0.05):
                    self._accept(attempt)
        except OSError as error:
            failure = UnreachableError(f"its channel could not be listened on: {error}")
        self._current = None
        self._path.unlink(missing_ok=True)
        # Candidates that were never accepted die with the listener, and may carry descriptors.
        spawn(listener.close, "channel-close")
        connection = attempt.conclude()
        if connection is None:
            raise TransportError("its channel was closed") if self._closed.is_set() else failure
        return connection

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._path.unlink(missing_ok=True)
            _bind(listener, self._path)
            self._path.chmod(0o666)  # before listening, so that nobody is let in or kept out too early
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            kind = TransportError if isinstance(error, FileNotFoundError) else UnreachableError  # it was taken away
            raise kind(f"its channel could not be opened: {error}") from error
        return listener

    def _accept(self, attempt: "_Attempt") -> None:
        try:
            candidate = attempt.next_candidate()
        except BaseException:
            self._judges.release()
            raise
        if candidate is None:
            self._judges.release()
            return

        def judge() -> None:
            try:
                self._judge(candidate, attempt)
            finally:
                self._judges.release()

        spawn(judge, "channel-judge")

    def _judge(self, candidate: socket.socket, attempt: "_Attempt") -> None:
        kept = False
        try:
            self._check_peer(candidate, attempt)
            hello = shake_hands(
                candidate,
                secret=self._secret,
                sandbox_id=self._sandbox_id,
                heartbeat=self._heartbeat,
                deadline=min(attempt.deadline, time.monotonic() + JUDGE_SECONDS),
            )
            kept = attempt.win(Connection(candidate, hello, self._heartbeat))
        except (OSError, TransportError, ProtocolViolationError) as reason:
            logger.info("sandbox %s: a candidate for its channel was turned away: %s", self._sandbox_id, reason)
        finally:
            if not kept:
                candidate.close()

    def _check_peer(self, candidate: socket.socket, attempt: "_Attempt") -> None:
        peer, _, _ = _PEER.unpack(candidate.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        init = self._pid.wait(attempt.deadline, attempt.over)
        if init is None:
            raise TransportError("nobody waits for it any more")
        # 0: the peer, or the container's init, has no pid in our namespace; then the secret alone decides.
        if 0 not in (peer, init) and peer != init:
            raise TransportError(f"process {peer} is not the container's init")


class _Attempt:
    """One wait for a hello: its listener, its deadline, and the connection that won."""

    def __init__(self, listener: socket.socket, deadline: float, closed: threading.Event) -> None:
        self.deadline = deadline
        self._listener = listener
        self._closed = closed
        self._lock = threading.Lock()
        self._concluded = False
        self._won: Connection | None = None
        # Shutting a listening Unix socket down does not wake who polls it.
        self._sleeper, self._waker = socket.socketpair()
        self._waiting = select.poll()
        for sock in (listener, self._sleeper):
            self._waiting.register(sock, select.POLLIN)

    def over(self) -> bool:
        return self._concluded or self._won is not None or self._closed.is_set() or passed(self.deadline)

    def win(self, connection: Connection) -> bool:
        """Take it as the winner; False where there is one, or nobody waits any more."""
        with self._lock:
            if self._concluded or self._won is not None:
                return False
            self._won = connection
        self.wake()
        return True

    def conclude(self) -> Connection | None:
        with self._lock:
            self._concluded = True
            self._sleeper.close()
            self._waker.close()
            return self._won

    def wake(self) -> None:
        """End a `next_candidate` that waits."""
        with self._lock:
            if not self._concluded:
                self._waker.send(b"!")

    def next_candidate(self) -> socket.socket | None:
        self._waiting.poll(1000 * seconds_until(self.deadline))
        try:
            candidate, _ = self._listener.accept()
        except BlockingIOError:
            return None  # woken, or at the deadline
        candidate.setblocking(True)
        return candidate
