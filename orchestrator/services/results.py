"""From what an agent reports to what a caller is told: sentences, and a next step for each failure. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.domain.hardening import MIB, SandboxProfile
from orchestrator.domain.model import CellError, CellOrder, CellReport, ExecutionResult, Loss, ResumedFrom, Variable

_MOST_LARGEST = 5
_REBUILD = "Define again what was lost and is needed, then go on in the same session."


@dataclass(frozen=True, slots=True)
class Told:
    """What a result says beside what the agent reports."""

    session_id: str | None  # None for a stateless call
    loss: Loss | None  # of earlier executions, told here
    profile: SandboxProfile
    saved_through: int | None = None  # the last execution of which the session's snapshot holds all
    resumed_from: ResumedFrom | None = None  # where it stands, if the call has cost its worker or its sandbox

    @property
    def standing(self) -> str:
        """Where the session stands after its worker was killed."""
        if self.session_id is None or self.resumed_from is None:
            return "Nothing of it is kept."
        return f"{_where(self.resumed_from)}; files in /workspace stay, with what the cell wrote."


def _where(stands: ResumedFrom) -> str:
    if stands.execution is None:
        return "The session's namespace is empty now"
    if stands.execution == 0:
        return "The session goes on as it began"
    if stands.rung == "savepoint":
        return f"The session goes on as it was after execution {stands.execution}"
    return f"The session goes on with what was saved after execution {stands.execution}"


def result_of(report: CellReport, order: CellOrder, told: Told) -> ExecutionResult:
    """The answer to a call whose cell has ended, well or not."""
    notes = list(report.notes)
    if told.loss is not None:
        notes.insert(0, loss_note(told.loss))
    return ExecutionResult(
        status="ok" if report.outcome == "ok" else "error",
        output=output_of(report),
        truncated=report.output_left_out > 0,
        output_bytes=report.output_bytes,
        value=report.value,
        displays=report.displays,
        error=_error(report, order, told),
        execution=None if told.session_id is None else order.execution,
        duration_ms=round(report.duration * 1000, 3),
        session_id=told.session_id,
        bound=report.bound,
        removed=report.removed,
        saved_through=told.saved_through,
        resumed_from=told.resumed_from,
        memory_peak=report.memory_peak,
        notes=tuple(notes),
        cpu=report.cpu,
    )


def output_of(report: CellReport) -> str:
    """What a cell wrote, with what was left out of it counted."""
    if not report.output_left_out:
        return report.output_head + report.output_tail
    gap = f"\n… {report.output_left_out:,} of {report.output_bytes:,} bytes left out …\n"
    return report.output_head + gap + report.output_tail


def why_killed(report: CellReport) -> str:
    """Why a cell's process was ended, in a clause."""
    reasons = {
        "timeout": "a cell outran its time limit and had to be killed",
        "interrupted": "a cell was interrupted and had to be killed",
        "oom": "a cell reached the memory limit",
    }
    return reasons.get(report.outcome, f"a cell ended its process ({report.error_message or report.outcome})")


def lost_result(
    reason: str, order: CellOrder, told: Told, duration: float, *, for_memory: bool = False
) -> ExecutionResult:
    """The answer to a call whose sandbox went away under its cell, `for_memory` where that did not suffice.

    `duration` in seconds.
    """
    how = f"The sandbox was lost while the cell ran: {reason}"
    again = (
        f"Call again: a new sandbox will be started{_with_what(told)}."
        if told.session_id is not None
        else "Call again."
    )
    if for_memory:
        limit = told.profile.memory // MIB
        how = f"The cell needed more than the sandbox's {limit} MiB of memory, which ended the whole sandbox: {reason}"
        again = f"Work on smaller pieces. {again}"
    error = CellError(
        code="oom" if for_memory else "sandbox_lost",
        type=None,
        message=f"{how}. What the cell did is unknown.",
        traceback=None,
        hint=again,
    )
    return _without_report(error, order, told, duration)


def not_run_result(order: CellOrder, told: Told) -> ExecutionResult:
    """The answer to a call that was interrupted before its cell was sent."""
    error = CellError(
        code="interrupted",
        type=None,
        message="The cell was interrupted before it began, while its sandbox was being started. Nothing was run.",
        traceback=None,
        hint="Call again.",
    )
    return _without_report(error, order, told, 0.0)


def _without_report(error: CellError, order: CellOrder, told: Told, duration: float) -> ExecutionResult:
    return ExecutionResult(
        status="error",
        output="",
        truncated=False,
        output_bytes=0,
        value=None,
        displays=(),
        error=error,
        execution=None if told.session_id is None else order.execution,
        duration_ms=round(duration * 1000, 3),
        session_id=told.session_id,
        bound=(),
        removed=(),
        saved_through=told.saved_through,
        resumed_from=told.resumed_from,
        memory_peak=0,
        notes=() if told.loss is None else (loss_note(told.loss),),
    )


def _with_what(told: Told) -> str:
    if told.resumed_from is None or told.resumed_from.execution is None:
        return " with an empty namespace"
    return f" with what was saved after execution {told.resumed_from.execution}"


def loss_note(loss: Loss) -> str:
    """One sentence for a namespace that is gone."""
    which = f"execution {loss.first}" if loss.first == loss.last else f"executions {loss.first} to {loss.last}"
    names = ""
    if loss.names:
        more = f" and {loss.unlisted} more" if loss.unlisted else ""
        names = f" They had left: {', '.join(loss.names)}{more}."
    return f"Lost: the effects of {which}, because {loss.cause}.{names}"


def largest_note(variables: Sequence[Variable]) -> tuple[str, ...]:
    """Which variables take most memory, where that is known and much."""
    sized = [variable for variable in variables if variable.size_bytes is not None and variable.size_bytes >= MIB]
    if not sized:
        return ()
    largest = sorted(sized, key=lambda variable: -(variable.size_bytes or 0))[:_MOST_LARGEST]
    named = ", ".join(f"{one.name} ({one.type}, {(one.size_bytes or 0) / MIB:,.0f} MiB)" for one in largest)
    return (f"Largest variables: {named}.",)


def _error(report: CellReport, order: CellOrder, told: Told) -> CellError | None:
    if report.outcome == "ok":
        return None
    message, hint = _explanation(report, order, told)
    return CellError(
        code=report.outcome,
        type=report.error_type,
        message=message,
        traceback=report.traceback,
        hint=hint,
    )


def _explanation(report: CellReport, order: CellOrder, told: Told) -> tuple[str, str | None]:
    profile = told.profile
    kept = "The namespace is kept, with what the cell had assigned." if report.namespace_kept else told.standing
    cause = report.error_message or "no reason is known"
    match report.outcome:
        case "timeout":
            how = "was interrupted" if report.namespace_kept else "had to be killed, since it did not react to SIGINT"
            message = f"The cell reached its time limit of {order.time_limit:g} s and {how}. {kept}"
            return message, "Do less in one call, or give a larger `timeout` (seconds)."
        case "interrupted":
            how = "was interrupted" if report.namespace_kept else "was stopped and its process killed"
            return f"The cell {how}. {kept}", None if report.namespace_kept else _REBUILD
        case "oom":
            memory = f"{profile.memory // MIB} MiB"
            hint = f"Work on smaller pieces or delete what is not needed. {_REBUILD}"
            return f"The cell needed more than the sandbox's {memory} of memory and was killed. {kept}", hint
        case "crashed":
            return f"The cell's process died: {cause}. {kept}", _REBUILD
        case "disk_full":
            size = f"{profile.workspace // MIB} MiB in /workspace, {profile.tmp // MIB} MiB in /tmp"
            return f"{cause} (the sandbox has {size})", "Remove files that are not needed, or write less."
        case _:
            return report.error_message or report.error_type or report.outcome, None
