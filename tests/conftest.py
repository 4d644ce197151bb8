"""What holds over the whole test run."""

import sys
from collections.abc import Sequence
from types import FrameType

import pytest


class UnpickledError(BaseException):
    """The host unpickled something, which it must never do; not an Exception, so that nothing swallows it."""


def _refuse_unpickling(event: str, arguments: Sequence[object]) -> None:
    if event in ("pickle.find_class", "marshal.loads") and _ours():
        raise UnpickledError(f"{event} {arguments!r}")


def _ours() -> bool:
    """Whether code of the host is at work: tools of the tests may cache what they like as they like."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("orchestrator."):
            # Importing a module reads byte code, which is no tenant's.
            return not _importing()
        frame = frame.f_back
    return False


def _importing() -> bool:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tests of a group meet in one process, or none is run: they rely on it, and xdist does not tell."""
    if not getattr(session.config.option, "loadgroup", False):
        return
    for item in session.items:
        if item.get_closest_marker("xdist_group") is not None and "@" not in item.nodeid:
            raise pytest.UsageError(f"pytest-xdist has not put {item.nodeid} into its group")


sys.addaudithook(_refuse_unpickling)
