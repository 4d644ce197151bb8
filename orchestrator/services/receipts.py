"""Whether a caller has got an answer, where that is known only after the answer was returned."""

from collections.abc import Callable


class Receipt:
    """Of one call. A face whose clients may go away while an answer is on its way to them gives one along."""

    def __init__(self) -> None:
        self._received = False
        self._then: Callable[[], None] | None = None

    def when_received(self, then: Callable[[], None]) -> None:
        """Call that once the caller has the answer; never where it went away. It returns at once."""
        self._then = then
        if self._received:
            self.received()

    def received(self) -> None:
        """The caller has the answer. Idempotent."""
        self._received = True
        then, self._then = self._then, None
        if then is not None:
            then()
