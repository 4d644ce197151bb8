"""A save under way: the frozen moment, its pieces through a window, and what it made."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

from orchestrator.adapters.channel import replies, snapshot_frames
from orchestrator.adapters.channel.disposable_threads import in_thread
from orchestrator.adapters.channel.exchanges import Exchange, Requests
from orchestrator.adapters.channel.patience import Patience
from orchestrator.adapters.channel.snapshot_frames import SaveReply
from orchestrator.domain import claims
from orchestrator.domain.errors import OrchestratorError, SandboxLostError
from orchestrator.domain.manifests import MAX_PIECES
from orchestrator.domain.snapshots import Piece, SaveFailedError, SaveOrder, SaveReport
from orchestrator.domain.wire import Frame, ProtocolViolationError

WINDOW: Final = 8  # pieces on their way, and so what is kept of them here
# What the agent may take beyond the save's own bound: ending it, collecting what it made, sending.
SAVE_MARGIN_SECONDS: Final = 30.0
IDLE_SECONDS: Final = 120.0
# Pieces are up to 1 MiB. What has a piece of its own has 32 KiB at least, with a pack's end of any size beside it, and
# ten thousand small names or files are some hundred packs: who sends smaller ones fills memory and the disk with rows.
LEAST_MEAN_PIECE: Final = 16 * 1024
SMALL_PIECES: Final = 10_000
ABANDON_SECONDS: Final = 30.0  # in which the agent has to answer a save that nobody wants any more
_OF_THE_SAVE: Final = frozenset({"failed", "interrupted"})


class SaveStream(Exchange):
    """The `Saving` port. What arrives is taken in without awaiting; `frozen`, `pieces` and `report` wait for it."""

    def __init__(self, requests: Requests, order: SaveOrder) -> None:
        super().__init__(requests, _header(order))
        self._order = order
        self._changed = asyncio.Event()
        self._files: bool | None = None  # once frozen
        self._pieces: deque[Piece] = deque()
        self._on_their_way = 0
        self._arrived = 0
        self._arrived_bytes = 0
        self._most_pieces = min(2 * MAX_PIECES, order.most_bytes // LEAST_MEAN_PIECE + SMALL_PIECES)
        self._all_taken = False
        self._failure: OrchestratorError | None = None
        self._was_interrupted = False
        self._reply: SaveReply | None = None
        self._report: SaveReport | None = None
        self._deadline: asyncio.TimerHandle | None = None  # of an abandoned one
        self._patience = Patience(total=order.bound + SAVE_MARGIN_SECONDS, idle=IDLE_SECONDS, over=self._out_of_time)
        requests.begin(self)

    async def frozen(self) -> None:
        """Wait for the moment, or until pieces must be taken for it to come: files may be more than the sandbox can
        keep beside itself. A caller who does not wait wants no save.
        """
        try:
            while self._files is None and len(self._pieces) < WINDOW:
                await self._next_change()
        except asyncio.CancelledError:
            self.abandon()
            raise

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """What the head does not have; left early, the save is abandoned."""
        try:
            while not self._all_taken:
                if self._pieces:
                    yield self._take()
                elif self._reply is not None:
                    self._all_taken = True
                else:
                    await self._next_change()
            self._require_sound()
        finally:
            if not self._all_taken:
                self.abandon()

    async def report(self) -> SaveReport:
        """What was made."""
        self._require_sound()
        if self._reply is None or not self._all_taken:
            raise AssertionError("a save's report comes after its last piece")
        if self._report is None:
            read = partial(snapshot_frames.save_report, self._reply, self._order)
            try:
                report = await in_thread(read, "agent-manifest")
            except ProtocolViolationError as violation:
                raise _failed(f"what the sandbox says of it cannot be read ({violation})") from violation
            self._require_few(len(report.manifest.namespace.pieces) + len(report.manifest.workspace.pieces))
            self._report = report
        return self._report

    def abandon(self) -> None:
        """Want it no more."""
        if not (self._all_taken and self._reply is not None):
            self._abandon("it was abandoned")

    # what the channel says

    def received(self, frame: Frame) -> None:
        """Take in a frame of it, whether it is wanted still or not."""
        self._patience.progress()
        if frame.type == "frozen":
            if self._files is not None or frame.parts:
                raise ProtocolViolationError("a save is frozen twice, or with parts")
            self._files = claims.flag_in(frame.header, "files")
        else:
            self._arrived += 1
            self._on_their_way += 1
            if self._on_their_way > WINDOW:
                raise ProtocolViolationError("more pieces than there is room for")
            piece = snapshot_frames.piece(frame)
            self._arrived_bytes += max(piece.raw_size, len(piece.data))
            self._bound()
            if self._failure is None:
                self._pieces.append(piece)
                self._patience.pause()
        self._changed.set()

    def sent(self) -> None:
        """Where it was abandoned without a connection, the agent has yet to be told."""
        if self._failure is not None:
            self._tell_abandoned()

    def interrupted(self) -> None:
        """The agent ends a save with its connection. One that it had not begun, it begins on the next."""
        self._was_interrupted = True
        self._on_their_way = 0
        if self._files is not None or self._arrived:
            self._abandon("its connection to the sandbox was lost")

    def answered(self, frame: Frame) -> None:
        """The reply: all pieces have come before it."""
        self._end_waiting()
        refused = replies.refusal(frame)
        if refused is not None:
            self._fail(self._refusal(refused))
        elif self._files is not None:
            reply = snapshot_frames.save_reply(frame)
            if reply.files_read is not self._files:
                raise ProtocolViolationError("a save's reply and its frozen moment differ")
            self._reply = reply if self._failure is None else None
        elif self._was_interrupted:
            # It was done, and all that it sent before went with the old connection.
            self._fail(_failed("its connection to the sandbox was lost"))
        else:
            raise ProtocolViolationError("a save is done and was never frozen")
        self._changed.set()

    def failed(self, error: SandboxLostError) -> None:
        """The sandbox is gone."""
        self._end_waiting()
        if self._reply is None:  # else all of it is here
            self._fail(error)

    # what follows from it

    def _bound(self) -> None:
        """Who sends without end fills the disk. User code may write pieces, so that nobody but this save suffers."""
        if self._arrived_bytes > self._order.most_bytes:
            self._abandon(f"the sandbox sent more than {self._order.most_bytes:,} bytes")
        elif self._arrived > self._most_pieces:
            self._abandon(f"the sandbox sent more than {self._most_pieces:,} pieces")

    def _require_few(self, pieces: int) -> None:
        if pieces > self._most_pieces:
            raise _failed(f"it refers to {pieces:,} pieces, and {self._most_pieces:,} is the most")

    def _take(self) -> Piece:
        self._require_sound()
        piece = self._pieces.popleft()
        self._on_their_way -= 1
        if not self._pieces:
            self._patience.resume()
        if self._reply is None:
            self.requests.send({"type": "taken", "save": self.number, "count": 1})
        return piece

    async def _next_change(self) -> None:
        self._require_sound()
        self._changed.clear()
        await self._changed.wait()
        self._require_sound()

    def _require_sound(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _refusal(self, refused: replies.Refusal) -> OrchestratorError:
        code, message = refused.code, refused.message
        if code in _OF_THE_SAVE:
            return _failed(message)
        if self._files is not None:
            return self.requests.give_up(f"it refused a save that it had begun ({code}, {message})")
        return self.requests.refused(self.kind, refused)

    def _out_of_time(self, why: str) -> None:
        self._abandon(f"it {why}")

    def _abandon(self, why: str) -> None:
        if self._failure is not None:
            return
        self._fail(_failed(why))
        if self._reply is None:
            self._patience.cancel()
            self._deadline = asyncio.get_running_loop().call_later(
                ABANDON_SECONDS, self.requests.give_up, "it did not end a save that was abandoned"
            )
            self._tell_abandoned()

    def _tell_abandoned(self) -> None:
        self.requests.send({"type": "abandon", "save": self.number})

    def _fail(self, error: OrchestratorError) -> None:
        self._failure = self._failure or error
        self._pieces.clear()
        self._changed.set()

    def _end_waiting(self) -> None:
        self._patience.cancel()
        if self._deadline is not None:
            self._deadline.cancel()


def _failed(why: str) -> SaveFailedError:
    return SaveFailedError(
        f"The session could not be saved: {why.rstrip('.')}.", hint="What was saved before stands; try again."
    )


def _header(order: SaveOrder) -> dict[str, object]:
    return {
        "type": "save",
        "snapshot": order.intent.sequence,
        "incarnation": order.intent.incarnation,
        "execution": order.intent.execution,
        "environment": order.environment,
        "head": order.head,
        "seed": order.intent.seed,
        "variable_limit": order.variable_limit,
        "session_limit": order.session_limit,
        "compress": order.compress,
        "final": order.final,
        "hold": order.hold,
        "bound": order.bound,
    }
