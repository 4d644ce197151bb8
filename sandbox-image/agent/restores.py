"""Restores in the supervisor's hands: pieces go from the host to the worker, and a worker that does not live through a
group is replaced by a fresh one.
"""

from agent.channel import Channel
from agent.executions import Executions
from agent.piece_feed import PieceFeed, record_of
from agent.processes import KILLED
from agent.reactor import Reactor, Timer
from agent.save_memory import NAMESPACE, WORKSPACE, SaveMemory
from agent.wire import Header
from agent.workers import Workers

_MARGIN = 5.0  # seconds of silence beyond what one group may take
_MAX_LISTS = 4 * 1024 * 1024  # bytes of the JSON of what is lost
_MAX_CREDIT = 16
_CAREFUL = (0, 1, 2)
_BROKEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class Restores:
    """One at a time, before the first cell of a worker."""

    def __init__(
        self, reactor: Reactor, channel: Channel, workers: Workers, executions: Executions, memory: SaveMemory
    ) -> None:
        self._reactor = reactor
        self._channel = channel
        self._workers = workers
        self._executions = executions
        self._memory = memory
        self._order: Header = {}
        self._body = b""
        self._feed: PieceFeed | None = None  # there is a restore as long as there is one
        self._given = False  # the worker has it
        self._group: int | None = None  # that is being loaded
        self._silence: Timer | None = None

    @property
    def under_way(self) -> bool:
        """Whether there is one."""
        return self._feed is not None

    def begin(self, header: Header, body: bytes) -> None:
        """Take up a request that nothing speaks against."""
        self._order, self._body = header, body
        self._feed = PieceFeed(self._reactor, self._passed)
        self._given, self._group = False, None
        self._memory.restoring(header["snapshot"], header["seed"], header["section"])
        if self._workers.ready:
            self.worker_ready()

    def worker_ready(self) -> None:
        """Give it what waits for it."""
        if self._feed is not None and not self._given:
            self._given = True
            fields = {name: self._order[name] for name in ("section", "seed", "bound", "quarantined", "careful")}
            frame = {"type": "restore", "restore": self._order["id"], **fields}
            try:
                self._workers.send(frame, [self._body], [self._feed.reading])
            except ValueError:
                self._end()
                self._channel.refuse(self._order["id"], "malformed", "the order does not fit into one frame")
                return
            self._body = b""
            self._listen()

    def piece(self, header: Header, parts: list[bytes]) -> None:
        """A piece from the host, or word that there is none."""
        if self._feed is None or header.get("restore") != self._order["id"]:
            return
        try:
            record = record_of(header, parts)
        except _BROKEN:
            return
        if header["type"] == "piece":
            digest = bytes.fromhex(header["digest"])
            self._memory.came(self._order["snapshot"], self._order["seed"], self._order["section"], digest)
        self._feed.add(*record)

    def worker_says(self, header: Header, parts: list[bytes]) -> None:
        """How far it is, or what came of it."""
        if self._feed is None or header.get("restore") != self._order["id"]:
            return
        if header["type"] == "restored":
            self._finish(header, parts)
            return
        group = header.get("group")
        if isinstance(group, int):
            self._group = group
        self._listen(waits=header.get("waits") is True)

    def worker_died(self, how: str) -> None:
        """A fresh one is being made; was it in the middle of this?"""
        if self._feed is not None and self._given:
            self._lost(f"loading it ended the process: {how}"[:300], killed=how == KILLED)

    def interrupt(self, why: str) -> None:
        """What is there is not known: a fresh worker is made, if the present one has begun."""
        if self._feed is None:
            return
        self._end()
        if self._given:
            self._executions.replace_worker()
        self._channel.refuse(self._order["id"], "interrupted", why)

    def _passed(self) -> None:
        self._channel.send({"type": "taken", "restore": self._order["id"], "count": 1})
        if self._silence is not None:
            self._listen()

    def _listen(self, *, waits: bool = False) -> None:
        """Count its silence from here, unless it waits for the host."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        if not waits:
            self._silence = self._reactor.after(float(self._order["bound"]) + _MARGIN, self._silent)

    def _silent(self) -> None:
        self._executions.replace_worker()
        self._lost("it timed out, and could not be interrupted")

    def _lost(self, why: str, *, killed: bool = False) -> None:
        """The worker did not live through it: the next one is asked without the group that it was at, or, where it was
        killed, perhaps from outside, with it once more.
        """
        self._end()
        if self._order["section"] == NAMESPACE and self._group is not None:
            crashed = {"ok": True, "restored": 0, "crashed": [self._group, why], "killed": killed}
            self._channel.reply(self._order["id"], crashed)
        else:
            self._channel.refuse(self._order["id"], "failed", f"the worker has ended: {why}")

    def _finish(self, header: Header, parts: list[bytes]) -> None:
        error, restored = header.get("error"), header.get("restored")
        request = self._order["id"]
        self._end()
        if isinstance(error, str):
            self._executions.replace_worker()
            code = "malformed" if header.get("malformed") is True else "failed"
            self._channel.refuse(request, code, error[:1000])
            return
        lists = parts[0] if len(parts) == 1 and len(parts[0]) <= _MAX_LISTS else b'{"lost":[],"state_lost":[]}'
        count = restored if type(restored) is int and 0 <= restored < 2**53 else 0
        if self._order["section"] == NAMESPACE:
            variables = header.get("variables")
            self._executions.restored(variables if isinstance(variables, int) else 0)
        self._channel.reply(request, {"ok": True, "restored": count, "crashed": None}, [lists])

    def _end(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        if self._feed is not None:
            self._feed.close(given=self._given)
            self._feed = None


def is_restore(header: Header, parts: list[bytes]) -> bool:
    """Whether a `restore` request has all that it needs."""
    quarantined = header.get("quarantined")
    return (
        len(parts) == 1
        and all(type(header.get(name)) is int and header[name] >= 0 for name in ("snapshot", "seed"))
        and header.get("section") in (NAMESPACE, WORKSPACE)
        and isinstance(header.get("bound"), int | float)
        and header.get("careful") in _CAREFUL
        and isinstance(quarantined, list)
        and all(isinstance(row, list) and [type(one) for one in row] == [int, str] for row in quarantined)
    )
