"""A block that tells how it ended."""

from collections.abc import Callable
from types import TracebackType


class Observed:
    """Calls `ended` with what the block raised, or None."""

    def __init__(self, ended: Callable[[BaseException | None], None] | None = None) -> None:
        self._ended = ended

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, _kind: type[BaseException] | None, failure: BaseException | None, _where: TracebackType | None
    ) -> None:
        """Tell."""
        if self._ended is not None:
            self._ended(failure)
