"""Names of a namespace: which of them a cell's code binds, and which count as variables."""

import sys
from collections.abc import Iterator
from opcode import EXTENDED_ARG, opmap
from types import CodeType, ModuleType

from agent import pristine

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_STORES = frozenset({opmap["STORE_NAME"], opmap["STORE_GLOBAL"]})
# Scopes whose walrus assignments bind the names around them.
_COMPREHENSIONS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})


def countable(name: str) -> bool:
    """Whether a name can be a variable: not one that begins with an underscore."""
    return not name.startswith("_")


def is_module(value: object) -> bool:
    """By its real type: a hostile `__class__` is not asked."""
    return issubclass(type(value), ModuleType)


def stored_by(code: CodeType, last_line: int = sys.maxsize) -> Iterator[str]:
    """The global names that the instructions of a cell up to `last_line` bind, in their order; some come twice.

    By the byte code, which knows every way of binding a name; functions' bodies are left out.
    """
    raw = code.co_code  # made anew each time it is asked for
    for start, end, line in code.co_lines():
        if line is None or line <= last_line:
            yield from (code.co_names[index] for index in _stores(raw[start:end]))
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and constant.co_name in _COMPREHENSIONS:
            yield from stored_by(constant, last_line)


def _stores(raw: bytes) -> Iterator[int]:
    # Two bytes each: an operation and its argument, of which EXTENDED_ARG brings the upper bytes.
    upper = 0
    for operation, low in zip(raw[::2], raw[1::2], strict=True):
        argument = low | upper
        upper = argument << 8 if operation == EXTENDED_ARG else 0
        if operation in _STORES:
            yield argument
