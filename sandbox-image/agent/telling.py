"""What a cell writes while it runs, told to the host that has asked for it: now and then, and only the latest."""

from agent.cell import Cell
from agent.channel import Channel
from agent.reactor import Reactor, Timer
from agent.wire import encode

_PAUSE = 0.2  # seconds from something written to its being told, with all that follows meanwhile
_RECENT = 1_000  # bytes


class Telling:
    """Costs a cell that writes nothing, or ends at once, nothing."""

    def __init__(self, reactor: Reactor, channel: Channel) -> None:
        self._reactor = reactor
        self._channel = channel
        self._timer: Timer | None = None
        self._cell: Cell | None = None  # that it is for

    def wrote(self, cell: Cell) -> None:
        """Something of it was read just now."""
        if not cell.told:
            return
        if self._timer is not None and self._timer.live:
            if cell is self._cell:
                return
            self._timer.cancel()  # of a cell that has ended just now
        self._cell = cell
        self._timer = self._reactor.after(_PAUSE, lambda: self._tell(cell))

    def _tell(self, cell: Cell) -> None:
        self._timer = None
        if cell.ended is None and cell.capture is not None and cell.capture.total:
            header = {"type": "output", "execute": cell.request, "total": cell.capture.total}
            self._channel.send_encoded(encode(header, [cell.capture.recent(_RECENT)]))
