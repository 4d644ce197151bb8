"""What callers are told of saving and waking: sentences. Pure."""

import re
from collections.abc import Collection, Sequence

from orchestrator.domain.snapshots import Manifest, SavedName, StoredSnapshot

_MOST_NAMED = 20
_MOST_NOTES = 100  # that wait to be told
_LONGEST_EXCERPT = 160  # characters


def refused_names(names: Sequence[SavedName]) -> Sequence[SavedName]:
    """Those that a snapshot does not hold."""
    return [name for name in names if name.status == "refused"]


def refused_notes(refused: Sequence[SavedName]) -> tuple[str, ...]:
    """A line for each value that is not in the snapshot; of very many, the first."""
    lines = [f"Not saved: {refusal(name)}" for name in refused[:_MOST_NAMED]]
    if len(refused) > _MOST_NAMED:
        lines.append(f"{len(refused) - _MOST_NAMED} more values are not saved; list the variables to see them.")
    return tuple(lines)


def refusal(name: SavedName) -> str:
    """Name, type, size, reason, and where it comes from."""
    size = "" if name.size_bytes is None else f", {name.size_bytes:,} bytes"
    origin = f" It comes from: {name.excerpt}" if name.excerpt else ""
    return f"{name.name} ({name.type}{size}): {name.reason}.{origin}"


def excerpt_of(name: str, number: int, code: str) -> str:
    """Of the cell that bound `name` last: the line that seems to do it, or the first one."""
    lines = [line.strip() for line in code.splitlines() if line.strip() and not line.strip().startswith("#")]
    wanted = next((line for line in lines if re.search(rf"\b{re.escape(name)}\b", line)), lines[0] if lines else "")
    if len(wanted) > _LONGEST_EXCERPT:
        wanted = wanted[: _LONGEST_EXCERPT - 1] + "…"
    return f"execution {number}: {wanted}"


def pairs_note(what: str, pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """One line for (name, why) of many; none where there is none."""
    if not pairs:
        return ()
    named = "; ".join(f"{name} ({why})" for name, why in pairs[:_MOST_NAMED])
    more = f"; and {len(pairs) - _MOST_NAMED} more" if len(pairs) > _MOST_NAMED else ""
    return (f"{what}: {named}{more}.",)


def capped(notes: Sequence[str]) -> tuple[str, ...]:
    """Each once; of very many, which nobody has taken for long, the first."""
    distinct = tuple(dict.fromkeys(notes))
    if len(distinct) <= _MOST_NOTES:
        return distinct
    return (
        *distinct[: _MOST_NOTES - 1],
        "There were more notes than these; list the variables to see what is lacking.",
    )


def skipped_note(wanted: int, woken: StoredSnapshot, skipped: Collection[int]) -> tuple[str, ...]:
    """That an older snapshot had to do."""
    if not skipped:
        return ()
    return (
        (
            f"Snapshot {wanted} is damaged. The session was woken from snapshot {woken.summary.sequence}, "
            f"which holds what was there after execution {woken.manifest.execution}; later changes are lost."
        ),
    )


def files_note(woken: Manifest) -> tuple[str, ...]:
    """That files are older than the namespace, because cells kept coming while they were to be read."""
    behind, last = woken.files_execution, woken.execution
    if behind >= last:
        return ()
    which = f"execution {last}" if behind + 1 == last else f"executions {behind + 1} to {last}"
    return (f"Lost: what {which} did to files in /workspace; they are as they were after execution {behind}.",)


def unreadable_note(head: int, why: str, *, stuck: bool) -> str:
    """That nothing came back; `stuck` where nothing can be saved either."""
    rest = " Nor can the session be saved, until that file is restored or the session deleted." if stuck else ""
    return (
        f"Snapshot {head} of the session cannot be read ({why.rstrip('.')}), nor can any before it: its variables and "
        f"files are not there.{rest}"
    )


def foreign_notes(woken: StoredSnapshot, python: str, environment: str) -> tuple[str, ...]:
    """That the session woke somewhere else than where it was saved."""
    saved = woken.manifest
    if saved.environment in ("", environment):
        return ()
    other = f" with Python {python} instead of {saved.python}" if saved.python and saved.python != python else ""
    return (
        (
            f"The session was saved in another environment; it was woken in the present one{other}. "
            "Packages may have other versions."
        ),
    )


def slow_note(max_age: float, duration: float, expected: float) -> tuple[str, ...]:
    """That snapshots are so dear that work stays unsaved for longer than was asked for."""
    if max_age <= expected:
        return ()
    return (
        (
            f"Saving this session took {duration:.0f} s, so up to {max_age:.0f} s of work may be unsaved at a time "
            f"instead of {expected:.0f} s."
        ),
    )
