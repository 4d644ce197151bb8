"""What differs between two snapshots of one session. Pure.

Equal digests are equal contents: the agent's digests are of a group's bytes, under a seed of the session. Names that
share objects share a group and thus a digest, so a change to one of them shows at each; and a value whose pickle is not
the same twice (a set that was built in another order) shows as changed although it compares equal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.domain.snapshots import SavedFile, SavedName, StoredSnapshot

Item = TypeVar("Item", SavedName, SavedFile)


@dataclass(frozen=True, slots=True)
class Differences:
    """Keys of one kind, sorted. `unknown`: in both, and whether they differ cannot be said from what is stored."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """From the `before` to the `after` snapshot."""

    before: int
    after: int
    names: Differences
    files: Differences


def compare(before: StoredSnapshot, after: StoredSnapshot) -> Comparison:
    """What was added, removed and changed. Names that were refused are not there."""
    comparable = before.summary.seed == after.summary.seed  # else digests of equal contents differ
    names = [
        {name.name: name for name in stored.manifest.names if name.status != "refused"} for stored in (before, after)
    ]
    files = [{file.path: file for file in stored.manifest.files} for stored in (before, after)]
    return Comparison(
        before=before.summary.sequence,
        after=after.summary.sequence,
        names=_differences(*names, comparable=comparable),
        files=_differences(*files, comparable=comparable),
    )


def _differences(before: Mapping[str, Item], after: Mapping[str, Item], *, comparable: bool) -> Differences:
    changed: list[str] = []
    unknown: list[str] = []
    for key in before.keys() & after.keys():
        old, new = before[key], after[key]
        if _traits(old) != _traits(new):
            changed.append(key)
        elif old.digest != new.digest:
            (changed if comparable else unknown).append(key)
    return Differences(
        added=_sorted(after.keys() - before.keys()),
        removed=_sorted(before.keys() - after.keys()),
        changed=_sorted(changed),
        unknown=_sorted(unknown),
    )


def _traits(item: SavedName | SavedFile) -> tuple[object, ...]:
    if isinstance(item, SavedName):
        return item.kind, item.type
    return item.kind, item.size_bytes


def _sorted(keys: Sequence[str] | set[str]) -> tuple[str, ...]:
    return tuple(sorted(keys))
