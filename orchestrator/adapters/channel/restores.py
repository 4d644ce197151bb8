"""A restore under way: pieces go out through a window until the agent has said what came back."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import Any, Final

from orchestrator.adapters.channel import replies, snapshot_frames
from orchestrator.adapters.channel.disposable_threads import in_thread
from orchestrator.adapters.channel.exchanges import Exchange, Requests
from orchestrator.adapters.channel.patience import Patience
from orchestrator.domain import claims
from orchestrator.domain.errors import OrchestratorError, SandboxLostError
from orchestrator.domain.snapshots import (
    DamagedPiece,
    Piece,
    RestoreOrder,
    RestoreReport,
    SaveFailedError,
    SnapshotDamagedError,
)
from orchestrator.domain.wire import Frame, ProtocolViolationError

WINDOW: Final = 8  # pieces on their way
IDLE_SECONDS: Final = 120.0  # beside the bound of a group, which may take in nothing while it loads
TOTAL_SECONDS: Final = 3_600.0
# After a new connection, for the agent to say what became of a restore that lost the one before. One that has never
# heard of it begins it now, and waits for pieces that went with the old one: it says nothing.
INTERRUPTED_SECONDS: Final = 10.0
MAX_REASON: Final = 300
_OF_THE_RESTORE: Final = frozenset({"failed", "interrupted"})


class RestoreStream(Exchange):
    """What arrives is taken in without awaiting; `feed` does the rest, for one caller."""

    def __init__(self, requests: Requests, order: RestoreOrder) -> None:
        try:
            super().__init__(requests, _header(order), [order.body])
        except ValueError as error:
            raise SnapshotDamagedError("What a snapshot says of itself is larger than a sandbox takes in.") from error
        self._outcome: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        # Nobody may wait for it any more.
        self._outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._room = asyncio.Event()
        self._on_their_way = 0
        self._began = False
        self._all_sent = False  # or all that ever will be
        self._is_connected = False
        self._lost_pieces = False
        self._deadline: asyncio.TimerHandle | None = None  # of one that has
        self._patience = Patience(total=TOTAL_SECONDS, idle=IDLE_SECONDS + order.bound, over=self._out_of_time)
        requests.begin(self)

    async def feed(self, pieces: AsyncIterator[Piece | DamagedPiece]) -> RestoreReport:
        """Push pieces until the reply is there, or there are no more of them."""
        pushing = asyncio.create_task(self._push(pieces), name="agent-restore")
        ends: set[asyncio.Future[Any]] = {pushing, self._outcome}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not self._outcome.done():
                await pushing  # raises what reading raised
            return await self._report(await asyncio.shield(self._outcome))
        finally:
            # Whoever leaves early still has the agent's reply to come, at the latest after a `clear`.
            self._all_sent = True
            self._account()
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()

    # what the channel says

    def received(self, frame: Frame) -> None:
        """The agent has room for more."""
        count = claims.count_in(frame.header, "count")
        if not 1 <= count <= self._on_their_way or frame.parts:
            raise ProtocolViolationError("a restore took what was not sent")
        self._on_their_way -= count
        self._patience.progress()
        self._account()
        self._room.set()

    def sent(self) -> None:
        """Pieces may follow it, unless some went with a connection before."""
        self._is_connected = True
        if self._lost_pieces:
            self._deadline = asyncio.get_running_loop().call_later(INTERRUPTED_SECONDS, self._give_up_waiting)
        self._room.set()

    def interrupted(self) -> None:
        """Pieces went with the connection, and none can be asked for again: what remains is the agent's word on it,
        which comes when a fresh worker stands.
        """
        self._is_connected = False
        self._stop_waiting()
        if self._began:
            self._lost_pieces = self._all_sent = True
            self._on_their_way = 0
            self._account()

    def answered(self, frame: Frame) -> None:
        """The reply."""
        self._patience.cancel()
        self._stop_waiting()
        refused = replies.refusal(frame)
        if self._outcome.done():
            return
        if refused is None:
            self._outcome.set_result(frame)
        else:
            self._outcome.set_exception(self._refusal(refused))

    def failed(self, error: SandboxLostError) -> None:
        """The sandbox is gone."""
        self._patience.cancel()
        self._stop_waiting()
        if not self._outcome.done():
            self._outcome.set_exception(error)

    # what follows from it

    async def _push(self, pieces: AsyncIterator[Piece | DamagedPiece]) -> None:
        self._account()
        async for piece in pieces:
            # Read one ahead: the disk need not wait for the sandbox.
            await self._wait_for_room()
            self._began = True
            self._on_their_way += 1
            self._send(piece)
            self._account()
        self._all_sent = True
        self._account()

    def _account(self) -> None:
        """Time counts while it is the agent's turn, and not while pieces are read here."""
        if self._all_sent or self._on_their_way >= WINDOW:
            self._patience.resume()
        else:
            self._patience.pause()

    async def _wait_for_room(self) -> None:
        while self._on_their_way >= WINDOW or not self._is_connected or self._lost_pieces:
            self._room.clear()
            await self._room.wait()

    def _send(self, piece: Piece | DamagedPiece) -> None:
        if isinstance(piece, DamagedPiece):
            reason = claims.clean(piece.reason, MAX_REASON)
            self.requests.send(
                {"type": "damaged", "restore": self.number, "digest": piece.raw_digest, "reason": reason}
            )
            return
        header = {
            "type": "piece",
            "restore": self.number,
            "digest": piece.raw_digest,
            "size": piece.raw_size,
            "encoding": piece.encoding,
        }
        self.requests.send(header, [piece.data])

    async def _report(self, frame: Frame) -> RestoreReport:
        try:
            return await in_thread(partial(snapshot_frames.restore_report, frame), "agent-losses")
        except ProtocolViolationError as violation:
            raise self.requests.broken(violation) from violation

    def _refusal(self, refused: replies.Refusal) -> OrchestratorError:
        code, message = refused.code, refused.message
        if code in _OF_THE_RESTORE:
            return _interrupted(message)
        if code == "malformed":
            return SnapshotDamagedError(f"The sandbox cannot read what was saved: {message}.")
        return self.requests.refused(self.kind, refused)

    def _give_up_waiting(self) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(_interrupted("its connection to the sandbox was lost"))

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _out_of_time(self, why: str) -> None:
        self.requests.give_up(f"bringing its session back {why}")


def _interrupted(why: str) -> SaveFailedError:
    return SaveFailedError(
        f"A session was not brought back: {why.rstrip('.')}.", hint="Call again: a new sandbox will be made."
    )


def _header(order: RestoreOrder) -> dict[str, object]:
    return {
        "type": "restore",
        "snapshot": order.sequence,
        "section": order.section,
        "seed": order.seed,
        "bound": order.bound,
        "quarantined": [[group, claims.clean(why, MAX_REASON)] for group, why in order.quarantined.items()],
        "careful": order.careful,
    }
