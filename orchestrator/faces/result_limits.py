"""How much of a result goes to an MCP client: several cut or drop what is over a megabyte, models read far less."""

import base64
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.domain.model import Display

RESULT_BYTES = 980_000  # of the whole result as JSON; clients were seen to stop at 1 MB
INLINE_IMAGES = 4
INLINE_BYTES = 700_000  # of all images of a result, in base64
MAX_IMAGE_SIDE = 2_000  # pixels; larger ones are refused by model APIs
MAX_OUTPUT_BYTES = 300_000  # of output as JSON, which a result holds twice: in its text and in its fields
VALUE_BYTES = 20_000
TRACEBACK_BYTES = 20_000
MESSAGE_BYTES = 4_000
NOTE_BYTES = 20_000  # a loss names up to 200 variables, and is told once
NOTES_BYTES = 60_000  # of all notes of a result
NAME_CHARACTERS = 200
MIME_CHARACTERS = 60
NAMES_BYTES = 15_000  # of `bound` or `removed` as JSON
LIST_BYTES = 200_000  # of a listing's entries as JSON
IMPORTS_BYTES = 50_000

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_SIDES = struct.Struct(">II")
_PNG_SIDES_AT = 16
_MIN_KEPT = 200  # characters

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Picture:
    """A display's place in a result; `data` is base64 where it goes inline, else `left_out` says why it does not."""

    index: int
    mime: str
    size: int  # bytes
    data: str | None
    left_out: str | None


def clean(text: str) -> str:
    """The text with lone surrogates replaced, which JSON in UTF-8 cannot carry."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def fit(text: str, budget: int) -> str:
    """The text, its middle left out where it takes more than `budget` bytes as JSON."""
    text = clean(text)
    size = json_size(text)
    if size <= budget:
        return text
    keep = max(_MIN_KEPT, len(text) * budget // size)
    while True:
        head, tail = keep * 3 // 4, keep - keep * 3 // 4
        marker = f"\n… [{len(text) - keep} characters left out here] …\n"
        cut = text[:head] + marker + text[len(text) - tail :]
        if keep <= _MIN_KEPT or json_size(cut) <= budget:
            return cut
        keep = max(_MIN_KEPT, keep * 4 // 5)


def short(text: str, limit: int = NAME_CHARACTERS) -> str:
    """A name or type in at most `limit` characters, on one line."""
    text = " ".join(clean(text[: limit + 1]).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def output_budget(pictures: Iterable[Picture], rest: int) -> int:
    """Bytes (as JSON) for one copy of the output in a result with these pictures and `rest` bytes of other things."""
    taken = sum(len(picture.data) for picture in pictures if picture.data is not None)
    return max(0, min(MAX_OUTPUT_BYTES, (RESULT_BYTES - rest - taken) // 2))


def first_that_fit(entries: Sequence[T], texts: Iterable[str], budget: int = LIST_BYTES) -> list[T]:
    """As many entries from the start as fit the budget; `texts` are their JSON, in the same order."""
    kept: list[T] = []
    left = budget
    for entry, text in zip(entries, texts, strict=False):
        left -= len(text.encode())
        if left < 0:
            break
        kept.append(entry)
    return kept


def notes_that_fit(notes: Sequence[str]) -> list[str]:
    """As many notes from the first as fit; that there are more is a note itself."""
    fitting = [fit(note, NOTE_BYTES) for note in notes]
    kept = first_that_fit(fitting, map(json.dumps, fitting), NOTES_BYTES)
    if left_out := len(notes) - len(kept):
        kept.append(f"{left_out} more notes are left out: the result would be too long.")
    return kept


def pictures_of(displays: Sequence[Display]) -> list[Picture]:
    """Which displays go inline: the first few PNG images that clients and models take."""
    pictures: list[Picture] = []
    inline, room = 0, INLINE_BYTES
    for index, display in enumerate(displays, start=1):
        why = _unfit(display)
        encoded_size = (len(display.data) + 2) // 3 * 4
        if why is None and inline == INLINE_IMAGES:
            why = f"a result carries at most {INLINE_IMAGES} images"
        elif why is None and encoded_size > room:
            why = "the images of this result take too much room together; show fewer, or save them smaller"
        data = None
        if why is None:
            inline, room = inline + 1, room - encoded_size
            data = base64.b64encode(display.data).decode("ascii")
        pictures.append(Picture(index, short(display.mime, MIME_CHARACTERS), len(display.data), data, why))
    return pictures


def _unfit(display: Display) -> str | None:
    if display.mime != "image/png":
        return "only PNG images are attached"
    if not display.data.startswith(_PNG_SIGNATURE) or len(display.data) < _PNG_SIDES_AT + _PNG_SIDES.size:
        return "it is not a PNG image"
    width, height = _PNG_SIDES.unpack_from(display.data, _PNG_SIDES_AT)
    if max(width, height) > MAX_IMAGE_SIDE:
        return f"it is {width} x {height} pixels, and at most {MAX_IMAGE_SIDE} a side are allowed; lower the dpi"
    return None


def json_size(text: str) -> int:
    """Bytes that the text takes as JSON in UTF-8."""
    return len(json.dumps(text, ensure_ascii=False).encode())
