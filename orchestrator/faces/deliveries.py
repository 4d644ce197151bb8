"""Which answers have reached their client, over a connection that may end while one is on its way."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Self

from orchestrator.services.receipts import Receipt

ARRIVED_SECONDS: Final = 1.0  # after which a written answer has arrived, if the connection is still there


class Deliveries:
    """Of one connection. An answer has arrived when its client goes on speaking after it was written, or a moment
    later. What the end of the connection overtakes has not, as far as anybody here can tell.
    """

    def __init__(self) -> None:
        self._expected: dict[str, Receipt] = {}
        self._written: dict[Receipt, asyncio.TimerHandle] = {}

    def expect(self, request: object) -> Receipt:
        """There will be an answer to that request."""
        receipt = self._expected[str(request)] = Receipt()
        return receipt

    def written(self, request: object) -> None:
        """The answer is out."""
        receipt = self._expected.pop(str(request), None)
        if receipt is not None:
            loop = asyncio.get_running_loop()
            self._written[receipt] = loop.call_later(ARRIVED_SECONDS, self._arrived, receipt)

    def heard(self) -> None:
        """The client says something."""
        for receipt in list(self._written):
            self._arrived(receipt)

    @contextmanager
    def of_all_calls(self) -> Iterator[Self]:
        """What is called within comes over this connection."""
        before = _CURRENT.set(self)
        try:
            yield self
        finally:
            _CURRENT.reset(before)
            self.end()

    def end(self) -> None:
        """The connection is gone."""
        for timer in self._written.values():
            timer.cancel()
        self._written.clear()
        self._expected.clear()

    def _arrived(self, receipt: Receipt) -> None:
        self._written.pop(receipt).cancel()
        receipt.received()


# Of the connection that a call came over.
_CURRENT: ContextVar[Deliveries | None] = ContextVar("deliveries", default=None)


def receipt_for(request: object) -> Receipt | None:
    """For the answer to that request, which is being served; None where answers cannot go astray unseen."""
    deliveries = _CURRENT.get()
    return None if deliveries is None else deliveries.expect(request)
