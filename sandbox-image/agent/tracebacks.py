"""Tracebacks that show the user's lines and nothing of ours."""

import os
import traceback
from collections.abc import Iterable
from types import TracebackType

from agent import pristine

# A cell may empty or replace builtins; this module's own functions keep what they were born with.
__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_MAX_MESSAGE = 4_000  # characters
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def message_of(error: BaseException) -> str:
    """Its text, whatever its own `__str__` does."""
    try:
        text = str(error)
    except Exception as failure:
        return f"<its __str__ raised {type(failure).__name__}>"
    return str.__str__(text)[:_MAX_MESSAGE]


def format_traceback(error: BaseException) -> str:
    """As Python shows it, from the user's first line on."""
    trace = error.__traceback__
    while trace is not None and _ours(trace):
        trace = trace.tb_next
    try:
        formatted = traceback.TracebackException(type(error), error, trace, compact=True)
        _strip(formatted)
        return "".join(formatted.format())
    except Exception as failure:
        return f"<the traceback could not be formatted: {type(failure).__name__}>\n"


def _ours(trace: TracebackType) -> bool:
    return trace.tb_frame.f_code.co_filename.startswith(_HERE)


def _strip(formatted: traceback.TracebackException) -> None:
    """Take our frames, and asyncio's below them, out of chained exceptions as well."""
    pending: list[traceback.TracebackException] = [formatted]
    while pending:
        one = pending.pop()
        frames: Iterable[traceback.FrameSummary] = one.stack
        kept = [frame for frame in frames if not frame.filename.startswith(_HERE)]
        first = next((i for i, frame in enumerate(kept) if frame.filename.startswith("<cell ")), None)
        if first is None and any(frame.filename.endswith("asyncio/runners.py") for frame in kept):
            first = len(kept)  # only how asyncio ended the cell
        one.stack = traceback.StackSummary.from_list(kept[first or 0 :])
        pending += [link for link in (one.__cause__, one.__context__) if link is not None]
        pending += one.exceptions or []  # of a group
