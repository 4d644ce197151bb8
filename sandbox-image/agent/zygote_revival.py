"""A zygote that was killed, as a worker can, is made again: rehearsals need it.

It is exec'ed, and can be looked into until it has hidden itself: so long nothing of the session's runs.
"""

from agent.processes import continue_all, stop_all_but
from agent.reactor import Reactor, Timer
from agent.zygote_process import Zygote

_HIDDEN_BOUND = 10.0  # seconds
_MOST_REVIVALS = 8  # of a zygote that is killed again and again, beside one worker


class ZygoteRevival:
    """Everything is stopped while one is under way."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._times = 0
        self._under_way: Timer | None = None
        self.held = False  # everything is stopped for a save

    def begin(self, zygote: Zygote, *, ready: bool) -> None:
        """Make another where there is none and a worker that would need it."""
        due = zygote.pid is None and ready and self._under_way is None and not self.held
        if not due or self._times == _MOST_REVIVALS:
            return
        self._times += 1
        stop_all_but(())
        try:
            zygote.start()
        except OSError:  # no process can be started
            continue_all()
            return
        self._under_way = self._reactor.after(_HIDDEN_BOUND, zygote.kill)

    def over(self) -> None:
        """Nobody can look into the zygote any more, or it has ended."""
        if self._end() and not self.held:
            continue_all()

    def release(self) -> None:
        """What was stopped for a save may run."""
        self.held = False
        if self._under_way is None:
            continue_all()

    def forget(self) -> bool:
        """All but the zygote is ended; whether that was under way."""
        self._times = 0
        return self._end()

    def _end(self) -> bool:
        timer, self._under_way = self._under_way, None
        if timer is not None:
            timer.cancel()
        return timer is not None
