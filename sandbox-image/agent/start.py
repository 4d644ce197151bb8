"""How PID 1 begins: it connects and says hello, and only then imports and starts everything else.

The host waits for the hello of a sandbox that is just being made; for the rest nobody waits.
"""

import os
import sys

from agent.channel import AttachConnector, Channel, UnixConnector
from agent.reactor import Reactor
from agent.wire import Header

TYPE_CHECKING = False  # typing is dear to import before the hello
if TYPE_CHECKING:
    from agent.supervisor import Supervisor

_OURS = ("SO_SECRET", "SO_SANDBOX", "SO_CHANNEL", "SO_LEASE", "SO_THREADS")


def main() -> None:
    """Read what the container was given, then serve until the lease is over or the host says so."""
    given = {name: os.environ.pop(name, "") for name in _OURS}
    Start(given).run()


class Start:
    """The channel, and behind it the supervisor as soon as the first hello is out."""

    def __init__(self, given: dict[str, str]) -> None:
        self._sandbox = given["SO_SANDBOX"]
        self._lease = float(given["SO_LEASE"] or 1800)
        self._threads = int(given["SO_THREADS"] or 1)
        self._supervisor: Supervisor | None = None
        self._reactor = Reactor()
        secret = given["SO_SECRET"]
        self._channel = Channel(self._reactor, secret, self._lease, self)
        connector = AttachConnector if given["SO_CHANNEL"] == "attach" else UnixConnector
        self._connector = connector(self._reactor, self._channel, secret)

    def run(self) -> None:
        """For ever; the process ends by os._exit."""
        self._reactor.run()

    def identity(self) -> Header:
        """What a hello says."""
        progress = self._supervisor.progress() if self._supervisor else (0, 0, None)
        return {
            "sandbox": self._sandbox,
            "agent": _own_digest(),
            "python": ".".join(map(str, sys.version_info[:3])),
            "lease": self._lease,
            **dict(zip(("incarnation", "last_execution", "running"), progress, strict=True)),
        }

    def greeted(self) -> None:
        """A hello is out."""
        if self._supervisor is None:
            from agent.supervisor import Supervisor

            self._supervisor = Supervisor(self._reactor, self._channel, self._threads)

    def asked(self, header: Header, parts: list[bytes]) -> None:
        """The host wants something; it does so only after a hello."""
        if self._supervisor is not None:
            self._supervisor.asked(header, parts)

    def disconnected(self) -> None:
        """The connection is gone."""
        if self._supervisor is not None:
            self._supervisor.disconnected()


def _own_digest() -> str:
    # Written by the image build; absent where the agent runs from a checkout.
    try:
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "DIGEST"), encoding="ascii") as file:
            return file.read(128).strip()
    except OSError:
        return ""
