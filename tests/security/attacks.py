"""What a hostile cell is, beyond one expression: code, and exactly how it ends."""

from dataclasses import dataclass

from orchestrator.domain.model import ExecutionResult

_MOST = 80  # characters of a value
_DIED = "The cell's process died: "


@dataclass(frozen=True, slots=True)
class Attack:
    """`answer` is what `ending` says of the cell: exact; where there are several, who is quicker decides."""

    outcome: str
    code: str
    answer: str | tuple[str, ...]
    limit: float = 30.0  # seconds: what ends by itself is not hurried by a busy machine
    costs_next: bool = False  # the worker may end only when the next cell has begun
    output_bytes: int | None = None  # exactly, where the cell ends by itself


def ending(result: ExecutionResult) -> str:
    """How a cell ended: its value, or its failure, and whether the namespace was kept."""
    error = result.error
    if error is None:
        return str(result.value)[:_MOST]
    if error.code == "exception":
        return f"exception {error.type}"
    if error.code == "crashed":
        return f"crashed: {error.message.removeprefix(_DIED).partition('. ')[0]}"
    return f"{error.code}, {'kept' if 'namespace is kept' in error.message else 'killed'}"
