"""What callers are told of a session whose owner had ended: sentences. Pure."""

from orchestrator.domain.model import CellReport
from orchestrator.services.results import output_of

_MOST = 2_000  # characters of an output or a value that nobody waited for
_TAIL = 500  # of them from its end


def alive_note(last: int) -> str:
    """That nothing was lost."""
    held = f", with all that it held after execution {last}" if last else ""
    return f"The orchestrator had ended, and another one has taken over: the session was found alive{held}."


def gone_note(cause: str, stands_at: int | None) -> str:
    """That its sandbox is not there any more."""
    to = (
        "nothing of it was saved"
        if stands_at is None
        else f"it goes on with what was saved after execution {stands_at}"
    )
    return f"The orchestrator had ended, and the session's sandbox did not outlive that ({cause}): {to}."


def never_arrived_note(number: int) -> str:
    """That an execution never began."""
    return f"Execution {number} was cut short by the end of its orchestrator before it began: nothing of it was run."


def unknown_note(number: int) -> str:
    """That nobody can tell."""
    return (
        f"What became of execution {number} is not known: its orchestrator ended before it had the answer, and the "
        "sandbox has it no more. It was run once at most; what it did is there."
    )


def result_note(number: int, report: CellReport) -> str:
    """What it was answered with, for whoever asks next."""
    said = [f"Execution {number} ended after its orchestrator had: {report.outcome}, {report.duration:.3g} s."]
    if report.error_message:
        kind = f"{report.error_type}: " if report.error_type else ""
        said.append(f"Error: {_cut(kind + report.error_message)}.")
    if report.value is not None:
        said.append(f"Value: {_cut(report.value)}.")
    if report.bound:
        said.append(f"It bound {', '.join(report.bound)}.")
    if report.displays:
        said.append(f"What it displayed ({len(report.displays)}) is not kept.")
    output = output_of(report)
    if output:
        said.append(f"Output: {_cut(output)}")
    return " ".join(said)


def outdated_note(*, replaced: bool) -> str:
    """That its agent was an older one."""
    if replaced:
        return "The session's sandbox was one of an earlier version; it was saved, and woke in a new one."
    return (
        "The session's sandbox is one of an earlier version and could not be saved now; it is replaced when it sleeps."
    )


def _cut(text: str) -> str:
    text = text.strip()
    if len(text) <= _MOST:
        return text
    return f"{text[: _MOST - _TAIL]} … {len(text) - _MOST:,} characters left out … {text[-_TAIL:]}"
