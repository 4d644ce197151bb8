"""What a cell leaves to look at: matplotlib's figures, as PNG."""

import io
import sys
from dataclasses import dataclass

from agent import pristine

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_MAX_FIGURES = 20
_MAX_BYTES = 6 * 1024 * 1024  # all displays of a cell; a frame takes 8 MiB


@dataclass
class Display:
    """One picture."""

    mime: str
    data: bytes


def collect_figures() -> tuple[list[Display], list[str]]:
    """Every open figure as PNG, then closed, as notebooks do; and notes on what was left out."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return [], []
    numbers = pyplot.get_fignums()
    if not numbers:
        return [], []
    displays: list[Display] = []
    notes = []
    try:
        for number in numbers[:_MAX_FIGURES]:
            picture = io.BytesIO()
            pyplot.figure(number).savefig(picture, format="png", bbox_inches="tight")
            if sum(len(display.data) for display in displays) + picture.tell() > _MAX_BYTES:
                notes.append(
                    f"Figure {number} is left out: the figures of a cell may have {_MAX_BYTES:,} bytes together."
                )
                continue
            displays.append(Display("image/png", picture.getvalue()))
    finally:
        pyplot.close("all")
    if len(numbers) > _MAX_FIGURES:
        notes.append(f"{len(numbers) - _MAX_FIGURES} of {len(numbers)} figures are left out.")
    return displays, notes


def drop_figures() -> list[str]:
    """Close every open figure undrawn, and say so."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    numbers = pyplot.get_fignums() if pyplot is not None else []
    if pyplot is None or not numbers:
        return []
    pyplot.close("all")
    return [f"{len(numbers)} figures were closed undrawn, since the cell was stopped."]
