"""What a save says of itself, for the host: the manifest's JSON and the remarks, cut to what goes into a frame. Pure.

The form is that of orchestrator/domain/manifests.py, which reads it.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from agent import plain_json, pristine

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

MAX_MANIFEST = 4 * 1024 * 1024  # bytes; digests can't be left out, so these may take it further
MAX_ROWS = 100_000  # of names, and of files
_MAX_NAME = 200
_MAX_PATH = 400
_MAX_REASON = 500
MAX_REMARKS = 100
_MAX_REMARK = 200  # characters of a remark's name and of its text

Row = list[Any]


def manifest(
    order: dict[str, Any],
    names: Sequence[Row],
    files: Sequence[Row],
    namespace: Sequence[str],
    workspace: Sequence[str],
) -> bytes:
    """The JSON. Rows that do not fit are counted: names come first, then files."""
    room = MAX_MANIFEST - 35 * (len(namespace) + len(workspace)) - 1024
    listed_names, room = _fitting((_name(row) for row in names), room)
    listed_files, _ = _fitting((_file(row) for row in files), room)
    fields = {
        "version": 1,
        **{name: order[name] for name in ("incarnation", "execution", "environment")},
        "sequence": order["snapshot"],
        "python": ".".join(map(str, sys.version_info[:2])),
        "names": listed_names,
        "unlisted_names": len(names) - len(listed_names),
        "files": listed_files,
        "unlisted_files": len(files) - len(listed_files),
        "namespace": list(namespace),
        "workspace": list(workspace),
    }
    return plain_json.write(fields)


def _fitting(rows: Iterable[Row], room: int) -> tuple[list[Row], int]:
    fitting: list[Row] = []
    for row in rows:
        room -= len(plain_json.write(row)) + 1
        if room < 0 or len(fitting) == MAX_ROWS:
            break
        fitting.append(row)
    return fitting, max(room, 0)


def _name(row: Row) -> Row:
    name, kind, type_name, size, status, reason, excerpt, digest = row
    reason = None if reason is None else reason[:_MAX_REASON]
    return [name[:_MAX_NAME], kind, type_name[:_MAX_NAME], size, status, reason, excerpt, digest]


def _file(row: Row) -> Row:
    return [row[0][:_MAX_PATH], *row[1:]]


def remarks(*lists: Iterable[tuple[str, str]]) -> bytes:
    """JSON of [[name, text], …], where the last one counts those that are left out."""
    rows = [[name[:_MAX_REMARK], text[:_MAX_REMARK]] for rows in lists for name, text in rows]
    if len(rows) > MAX_REMARKS:
        left_out = len(rows) - MAX_REMARKS + 1
        rows[MAX_REMARKS - 1 :] = [["…", f"{left_out} more remarks are not listed"]]
    while len(encoded := plain_json.write(rows)) > 32 * 1024:
        rows = [[name[: len(name) // 2], text[: len(text) // 2]] for name, text in rows]
    return encoded
