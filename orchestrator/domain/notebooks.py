"""A session's cells as a notebook: nbformat 4.5, which Jupyter opens. Pure; it runs nothing.

Facts: https://nbformat.readthedocs.io/en/latest/format_description.html. Outputs are what the answers showed.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any, Final

from orchestrator.domain.kept_results import result_of_text
from orchestrator.domain.model import CellText, Display, ExecutionResult

_IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


def notebook(cells: Sequence[CellText], python: str, session_id: str) -> str:
    """The notebook's text; `python` such as 3.11, of the interpreter that ran the cells."""
    body = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python", "version": _sound(python)},
            "title": _sound(session_id),
        },
        "cells": [_cell(cell) for cell in cells],
    }
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


def _cell(cell: CellText) -> dict[str, Any]:
    answer = result_of_text(cell, "")
    return {
        "cell_type": "code",
        "id": f"cell-{cell.number}",
        "execution_count": cell.number,
        "metadata": {},
        "source": _lines(cell.code),
        "outputs": [*_stream(cell), *([] if answer is None else _shown(answer, cell.number))],
    }


def _stream(cell: CellText) -> list[dict[str, Any]]:
    return [{"output_type": "stream", "name": "stdout", "text": _lines(cell.output)}] if cell.output else []


def _shown(answer: ExecutionResult, number: int) -> list[dict[str, Any]]:
    shown = [_display(display) for display in answer.displays]
    if answer.value is not None:
        data = {"text/plain": _lines(answer.value)}
        shown.append({"output_type": "execute_result", "execution_count": number, "data": data, "metadata": {}})
    if answer.error is not None:
        error = answer.error
        shown.append(
            {
                "output_type": "error",
                "ename": _sound(error.type or error.code),
                "evalue": _sound(error.message),
                "traceback": _sound(error.traceback or error.message).split("\n"),
            }
        )
    return shown


def _display(display: Display) -> dict[str, Any]:
    if display.mime in _IMAGES:
        data: dict[str, Any] = {display.mime: base64.b64encode(display.data).decode("ascii")}
    else:
        # Not as what it claims to be: HTML and SVG would run in whoever opens the notebook.
        data = {"text/plain": [f"({len(display.data):,} bytes of {_sound(display.mime)})"]}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def _lines(text: str) -> list[str]:
    # By line feeds alone: a form feed or U+2028 within a line ends none in Python's source.
    parts = _sound(text).split("\n")
    lines = [f"{part}\n" for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines


def _sound(text: str) -> str:
    """Without lone surrogates, which no UTF-8 file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
