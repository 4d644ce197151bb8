"""The supervisor's one thread: descriptors to wait on, and timers."""

import select
import time
from _collections_abc import Callable  # collections is dear to import before the hello

READ, WRITE = select.EPOLLIN, select.EPOLLOUT


class Timer:
    """Something to be done at a time; cancelled by `cancel`."""

    def __init__(self, when: float, act: Callable[[], None]) -> None:
        self.when = when
        self.act = act
        self.live = True

    def cancel(self) -> None:
        """It will not happen. Idempotent."""
        self.live = False


class Reactor:
    """Calls back what is ready, then what is due."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self.failed: Callable[[Exception], None] | None = None  # is told what a callback raises; None: it ends `run`

    def watch(self, fd: int, ready: Callable[[int], None], events: int = READ) -> None:
        """Call `ready` with the events seen on `fd`; watching it again changes events and callback."""
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = ready

    def forget(self, fd: int) -> None:
        """Stop; before the descriptor is closed. Idempotent."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, act: Callable[[], None]) -> Timer:
        """Call `act` once, in so many seconds."""
        timer = Timer(time.monotonic() + seconds, act)
        self._timers.append(timer)
        return timer

    def run(self) -> None:
        """For ever; the process ends by os._exit."""
        while True:
            for fd, events in self._epoll.poll(self._patience()):
                self._call_back(fd, events)
            now = time.monotonic()
            due = [timer for timer in self._timers if timer.live and timer.when <= now]
            self._timers = [timer for timer in self._timers if timer.live and timer.when > now]
            for timer in sorted(due, key=lambda timer: timer.when):
                if timer.live:  # one due before it may have cancelled it
                    self._guarded(timer.act)

    def _call_back(self, fd: int, events: int) -> None:
        ready = self._callbacks.get(fd)
        if ready is not None:
            self._guarded(lambda: ready(events))

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            if self.failed is None:
                raise
            self.failed(error)

    def _patience(self) -> float:
        waiting = [timer.when for timer in self._timers if timer.live]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else -1
