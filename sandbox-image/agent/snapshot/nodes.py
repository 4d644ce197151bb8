"""What a snapshot is made of: nodes (a variable, a function, a class) and groups of nodes that are stored together."""

from dataclasses import dataclass, field
from typing import Any

from agent import pristine
from agent.snapshot.catalog import Slot, module_of, qualified_name_of
from agent.snapshot.dump import Dump

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_OF_A_MODULE = frozenset({"__builtins__", "__loader__", "__spec__", "__name__", "__doc__", "__package__"})


_CONTAINING = frozenset({"builtins", "collections", "numpy", "pandas"})


@dataclass(frozen=True)
class Limits:
    """In bytes."""

    variable: int = 10 * 1000 * 1000
    session: int = 100 * 1000 * 1000


@dataclass(eq=False)
class Node:
    """A variable, or a function or class of the session."""

    label: str  # what announcements and refusals call it
    root: Any
    name: str | None = None  # of the variable
    slot: Slot | None = None
    state: str | None = None  # the part of the process state that it is
    dump: Dump | None = None
    reached: set[int] = field(default_factory=set)
    refusal: str | None = None
    size: int | None = None  # bytes, alone


@dataclass(eq=False)
class Group:
    """Nodes that are stored as one pickle: code first, then variables in the namespace's order."""

    nodes: list[Node]
    needs: list["Group"] = field(default_factory=list)
    dump: Dump | None = None
    size: int = 0  # bytes, in the pickle and beside it

    @property
    def code(self) -> list[Node]:
        """Its functions and classes."""
        return [node for node in self.nodes if node.slot is not None]


def is_saved(name: Any, value: Any) -> bool:
    """Whether an entry of the namespace is the session's, and not what every module has."""
    if type(name) is not str:
        return True
    if name in _OF_A_MODULE:
        usual = {"__name__": "__main__", "__doc__": None, "__package__": None}
        return name in usual and not (value is None or value == usual[name])
    return True


def too_large(limit: int, size: int | None = None) -> str:
    """Why a variable over its limit is refused; without a size where it was given up on the way."""
    if size is None:
        return f"too large: more than the limit of {limit:,} bytes"
    return f"too large: {size:,} bytes, over the limit of {limit:,}"


def is_telling(kind: type) -> bool:
    """Whether one value of this type says something of others; a container's type says nothing of what is in it."""
    home = module_of(kind)
    return type(home) is str and home.partition(".")[0] not in _CONTAINING


def type_name(value: Any) -> str:
    """Of a value, whatever its metaclass says."""
    return str(qualified_name_of(type(value)))
