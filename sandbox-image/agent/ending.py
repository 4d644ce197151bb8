"""How a cell ended, in the supervisor's words; and a worker that has, until it is known what stands in its place."""

from typing import Any, NamedTuple

from agent.cell import Cell


class Ending(NamedTuple):
    """A worker that has ended, until another one stands in its place."""

    cell: Cell | None  # that ran in it
    cause: str
    verdict: str  # the cell's
    lost: bool  # whether something was in it
    lines: bytes
    peak: int
    oom: bool


def verdict_of(outcome: str, variables: int, peak: int) -> dict[str, Any]:
    """The supervisor's word on a cell whose worker lives on."""
    return {
        "outcome": outcome,
        "namespace_kept": True,
        "cause": None,
        "variables": variables,
        "resumed": None,
        "memory_peak": peak,
    }
