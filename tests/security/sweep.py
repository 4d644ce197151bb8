"""Every system call, tried in a sandbox: a cell on top of prelude.py, and what its answers mean."""

import ast

from tests.docker.saved_sandbox import SavedSandbox

# In a fork each, twice: with arguments that fit nothing, and with zeros. What blocks is ended by the alarm, and open.
SWEEP = """
NOT_TRIED = {'vfork', 'rt_sigreturn'}  # would return into a frame that is gone
def swept(number, value):
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    return call(number, *[value] * 6)
{name: [in_child(swept, number, value) for value in (-1, 0)]
 for name, number in NUMBERS[platform.machine()].items() if name not in NOT_TRIED}
"""
REFUSED = frozenset({"EPERM", "ENOSYS"})

Answers = dict[str, list[str]]


async def swept(sandbox: SavedSandbox) -> Answers:
    """Two answers for each call."""
    report = await sandbox.run(SWEEP, limit=300.0)
    assert report.outcome == "ok", report.traceback
    answers: Answers = ast.literal_eval(report.value or "{}")
    assert len(answers) > 250
    return answers


def reached(answers: Answers) -> set[str]:
    """The calls of which at least one got into the kernel, by its answer."""
    return {name for name, given in answers.items() if set(given) - REFUSED}
