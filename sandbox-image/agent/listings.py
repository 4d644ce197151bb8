"""Listings in the supervisor's hands: one at a time, and each begun when a save lets go of the worker."""

import json
from collections.abc import Callable
from typing import Any

from agent.channel import Channel
from agent.listing import Listing
from agent.reactor import Reactor
from agent.workers import Workers


class Listings:
    """`lost` has a request refused, or taken up again, whose worker has ended."""

    def __init__(self, reactor: Reactor, channel: Channel, workers: Workers, lost: Callable[[int], None]) -> None:
        self._reactor = reactor
        self._channel = channel
        self._workers = workers
        self._lost = lost
        self._listing: Listing | None = None
        self._waiting: int | None = None  # a request that waits for a save to let go of the worker

    @property
    def under_way(self) -> bool:
        """Whether there is one, or one that waits."""
        return self._listing is not None or self._waiting is not None

    def wait(self, request: int) -> None:
        """It is to be begun later: by whoever asks for what has `waited`."""
        self._waiting = request

    def waited(self) -> int | None:
        """The request that has waited, if there is one; it does not any more."""
        request, self._waiting = self._waiting, None
        return request

    def begin(self, request: int) -> None:
        """Take up a request that nothing speaks against."""

        def ask(skip: int, pipe: int) -> None:
            self._workers.send({"type": "inspect", "skip": skip}, descriptors=[pipe])

        def done(table: dict[str, Any]) -> None:
            self._listing = None
            self._channel.reply(request, {"ok": True}, [json.dumps(table).encode()])

        def lost() -> None:
            self._listing = None
            self._lost(request)

        self._listing = Listing(self._reactor, ask, done, lost)

    def child(self, pid: object) -> None:
        """The worker says which process describes it."""
        if self._listing is not None and isinstance(pid, int) and pid not in self._workers.ours():
            self._listing.child(pid)

    def abandon(self, *, lost: bool = False) -> None:
        """The worker is gone: answer with what there is, or not at all from it."""
        if self._listing is not None:
            self._listing.abandon(lost=lost)
