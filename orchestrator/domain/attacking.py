"""Which hostile cells an attack runs on this kernel, and what is made of their answers. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.domain.examination import Attacked
from orchestrator.domain.hostile_cells import CELLS, TRIALS, Cell, Trial
from orchestrator.domain.model import CellReport

AFTERWARDS = ("6 * 7", "42")  # what a sandbox has to answer after each trial


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run, in its order, and what cannot be told on this kernel."""

    cells: tuple[Cell, ...]
    trials: tuple[Trial, ...]
    left_out: tuple[Attacked, ...]


def plan_attack(*, machine: str, landlock: int) -> Plan:
    """`landlock` is the version of the kernel's that the worker is locked in with; 0: none."""
    fit = [cell for cell in CELLS if cell.machine in (None, machine)]
    left_out = [
        Attacked(cell.outcome, "not on this kernel", f"takes Landlock {cell.landlock}, and there is {landlock}")
        for cell in fit
        if cell.landlock > landlock
    ]
    return Plan(tuple(cell for cell in fit if cell.landlock <= landlock), TRIALS, tuple(left_out))


def judged_cell(cell: Cell, report: CellReport) -> Attacked:
    """Only the exact answer is one that held: a cell that dies of a NameError proves nothing."""
    seen = report.value if report.outcome == "ok" and report.value is not None else report.outcome
    return Attacked(cell.outcome, "held" if seen == repr(cell.answer) else "got through", seen[:200])


def judged_trial(trial: Trial, report: CellReport, afterwards: CellReport) -> Attacked:
    """It must end as it may, and the sandbox must answer afterwards."""
    faults = list(_faults(trial, report, afterwards))
    return Attacked(trial.outcome, "got through" if faults else "held", "; ".join(faults) or report.outcome)


def _faults(trial: Trial, report: CellReport, afterwards: CellReport) -> Iterator[str]:
    if report.outcome not in trial.ends:
        yield f"it ended as {report.outcome}"
    if (afterwards.outcome, afterwards.value) != ("ok", AFTERWARDS[1]):
        yield f"the next cell ended as {afterwards.outcome}"
