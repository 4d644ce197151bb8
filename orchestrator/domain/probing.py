"""How a sandbox is asked about itself, and how what comes back is judged; `probes.py` is the table.

Pure: `cell` is the code that asks, to be run in a fresh sandbox, and `judged` compares what it printed, and what the
engine says of the container, with the spec. What could not be found out is unknown, which counts as not enforced.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from orchestrator.domain.hardening import Isolation, SandboxProfile

Verdict = Literal["enforced", "not enforced", "unknown"]

_MIB = 1024 * 1024
_MOST_MEMORY = 256 * _MIB
_MOST_PROCESSES = 256
_SHOWN = 200  # characters of an answer
# Above the lines of the table: what they have in common. All is Python's own, and nothing is left changed.
_PRELUDE = """
import _thread, ctypes, errno, json, mmap, os, re, resource, signal, socket
_libc = ctypes.CDLL(None, use_errno=True)
def tried(act, *arguments):
    try: act(*arguments)
    except OSError as error: return errno.errorcode[error.errno]
    return 'done'
def called(result):
    return 'done' if result >= 0 else errno.errorcode[ctypes.get_errno()]
def in_child(act):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try: os.write(writing, json.dumps(act()).encode())
        finally: os._exit(0)
    os.close(writing)
    said = os.fdopen(reading, 'rb').read()
    status = os.waitpid(child, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else json.loads(said)
def words(path, line=''):
    with open(path, encoding='ascii', errors='replace') as file:
        return [word for one in file if one.startswith(line) for word in one[len(line):].split()]
def status(name):
    return words('/proc/self/status', name + ':')[0]
def cgroup(path):
    try: return words('/sys/fs/cgroup/' + path)
    except OSError: return None
def connected():
    with socket.socket() as probe:
        probe.settimeout(2)
        return tried(probe.connect, ('192.0.2.1', 80))
def named_sockets():
    with open('/proc/net/unix', encoding='utf-8', errors='replace') as file:
        lines = [line.split() for line in file]
    names = [line[7] for line in lines[1:] if len(line) > 7]
    # The kernel counts the host's end of the channel as ours.
    return [name for name in names if not re.fullmatch('[0-9a-f]{32}', os.path.basename(name))][:5]
def filled(size):
    # Private: of a process that was killed and is long in ending, which an emulated or busy processor makes it, the
    # kernel takes that back after two seconds. Shared memory it leaves, and kills the next one, which is who asks.
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for start in range(0, size, 4096): block[start] = 1
    return 'filled'
def threads(most):
    # What counts processes counts threads, and they take less of the memory that others need.
    _thread.stack_size(65536)
    held, begun = _thread.allocate_lock(), 0
    held.acquire()
    try:
        while begun < most:
            _thread.start_new_thread(held.acquire, ())
            begun += 1
    except RuntimeError: pass
    return begun
def size_of(path):
    about = os.statvfs(path)
    return [about.f_blocks * about.f_frsize, about.f_files, about.f_flag]
def limit(name):
    return resource.getrlimit(getattr(resource, 'RLIMIT_' + name))
def tells(path):
    try: return bool(os.listdir(path))
    except OSError: pass
    try:
        with open(path, 'rb') as file: return bool(file.read(1))
    except OSError: return False
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the spec of the sandbox was made from."""

    profile: SandboxProfile
    isolation: Isolation


@dataclass(frozen=True, slots=True)
class Probe:
    """`ask` is one expression, run in the sandbox, whose value goes through JSON; or a path in the engine's answer."""

    name: str
    protection: str  # what holds where it is enforced
    remedy: str  # what to do where it is not
    ask: Callable[[Wanted], str] | tuple[str, ...]
    holds: Callable[[Any, Wanted], bool]
    required: bool = True  # whether nothing is served without it


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report."""

    name: str
    verdict: Verdict
    protection: str
    answer: str  # what came back, shortened
    remedy: str | None  # None where it is enforced
    required: bool = True

    @property
    def sentence(self) -> str:
        """What it says, without the full stop."""
        return f"{self.name} ({self.protection}) is {self.verdict}: seen was {self.answer}"


def probing_profile(profile: SandboxProfile) -> SandboxProfile:
    """The limits of the sandbox that is asked: those of every other, but no larger than what can be tried in a moment.

    That the number in a spec becomes a limit that holds is what is to be shown, and filling gigabytes would show no
    more.
    """
    return replace(
        profile,
        memory=min(profile.memory, _MOST_MEMORY),
        pids=min(profile.pids, _MOST_PROCESSES),
        lease=min(profile.lease, 60),
    )


def cell(probes: Sequence[Probe], wanted: Wanted) -> str:
    """Code that asks everything in a sandbox and prints the answers as one line of JSON, each by its probe's name."""
    asked = [(probe.name, probe.ask(wanted)) for probe in probes if callable(probe.ask)]
    lines = [f"    {name!r}: lambda: {ask},\n" for name, ask in asked]
    return (
        f"{_PRELUDE}_answers = {{}}\n_asked = {{\n{''.join(lines)}}}\n"
        "for _name, _ask in _asked.items():\n"
        "    try: _answers[_name] = _ask()\n"
        "    except Exception as error: pass  # what cannot be asked is unknown\n"
        "print(json.dumps(_answers))\n"
    )


def judged(
    probes: Sequence[Probe], wanted: Wanted, *, printed: str, inspected: Mapping[str, Any]
) -> tuple[Finding, ...]:
    """A finding for each probe, from what the cell printed and what the engine says of its container."""
    try:
        answers = json.loads(printed)
    except (ValueError, RecursionError):
        answers = {}
    return tuple(_finding(probe, answers, inspected, wanted) for probe in probes)


def _finding(probe: Probe, answers: object, inspected: Mapping[str, Any], wanted: Wanted) -> Finding:
    answer: object = None
    verdict: Verdict = "unknown"
    try:
        answer = _answer(probe, answers, inspected)
        shown = json.dumps(answer)
        verdict = "enforced" if probe.holds(answer, wanted) else "not enforced"
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        shown = "no answer" if answer is None else str(answer)
    remedy = None if verdict == "enforced" else probe.remedy
    return Finding(probe.name, verdict, probe.protection, shown[:_SHOWN], remedy, probe.required)


def _answer(probe: Probe, answers: Any, inspected: Mapping[str, Any]) -> object:  # noqa: ANN401 - whatever came back
    if callable(probe.ask):
        return answers[probe.name]
    found: Any = inspected
    for name in probe.ask:
        found = found[name]
    return found
