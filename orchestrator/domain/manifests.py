"""The agent's manifest, read as what it is: bytes from a sandbox. Pure.

JSON of this form (every list in the namespace's or the walk's order):

    {"version": 1, "sequence": n, "incarnation": n, "execution": n, "environment": text, "python": text,
     "names": [[name, kind, type, size or null, status, reason or null, excerpt or null, digest or null], ...],
     "unlisted_names": n,
     "files": [[path, kind, size, execution, digest or null], ...],
     "unlisted_files": n,
     "namespace": [raw digest, ...], "workspace": [raw digest, ...]}

Kinds and statuses are those of domain/snapshots.py, digests 32 lower-case hexadecimal characters; a section's digests
differ from one another. What restoring needs beyond this lies in the two opaque bodies that come beside it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from orchestrator.domain.claims import clean, count_in, is_optional_count, json_of, list_in, object_of, text_in
from orchestrator.domain.snapshots import (
    FILE_KINDS,
    NAME_KINDS,
    NAME_STATUSES,
    Manifest,
    SavedFile,
    SavedName,
    Section,
)
from orchestrator.domain.wire import ProtocolViolationError

VERSION: Final = 1
MAX_MANIFEST_BYTES: Final = 8 * 1024 * 1024
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
MAX_ITEMS: Final = 1_000_000  # some 100 ms of parsing, so call this off the loop
MAX_NAMES: Final = 100_000
MAX_FILES: Final = 100_000
MAX_PIECES: Final = 200_000  # of a section: 200 GB
MAX_NAME: Final = 200
MAX_PATH: Final = 400
MAX_REASON: Final = 500
MAX_EXCERPT: Final = 400
_MAX_LABEL: Final = 100

_DIGEST = re.compile(r"[0-9a-f]{32}")
Choice = TypeVar("Choice", bound=str)


def read_manifest(raw: bytes, namespace_body: bytes, workspace_body: bytes) -> Manifest:
    """The manifest, every field checked, capped and cleaned. Raises ProtocolViolationError."""
    for body in (namespace_body, workspace_body):
        if len(body) > MAX_BODY_BYTES:
            raise ProtocolViolationError(f"a manifest's body of {len(body)} bytes is over its cap of {MAX_BODY_BYTES}")
    fields = object_of(json_of(raw, limit=MAX_MANIFEST_BYTES, items=MAX_ITEMS), "manifest")
    if fields.get("version") != VERSION:
        raise ProtocolViolationError("a manifest of another version")
    return Manifest(
        sequence=count_in(fields, "sequence"),
        incarnation=count_in(fields, "incarnation"),
        execution=count_in(fields, "execution"),
        environment=text_in(fields, "environment", _MAX_LABEL),
        python=text_in(fields, "python", _MAX_LABEL),
        names=tuple(_name(row) for row in _rows(fields, "names", most=MAX_NAMES, columns=8)),
        unlisted_names=count_in(fields, "unlisted_names"),
        files=tuple(_file(row) for row in _rows(fields, "files", most=MAX_FILES, columns=5)),
        unlisted_files=count_in(fields, "unlisted_files"),
        namespace=Section(namespace_body, _digests(fields, "namespace")),
        workspace=Section(workspace_body, _digests(fields, "workspace")),
    )


def is_digest(value: object) -> bool:
    """Whether `value` is written as digests are."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _rows(fields: Mapping[str, Any], name: str, *, most: int, columns: int) -> Sequence[Sequence[Any]]:
    rows = list_in(fields, name)
    if len(rows) > most:
        raise ProtocolViolationError(f"{name!r} has {len(rows)} rows, over its cap of {most}")
    if not all(isinstance(row, list) and len(row) == columns for row in rows):
        raise ProtocolViolationError(f"{name!r} has a row without {columns} columns")
    return rows


def _name(row: Sequence[Any]) -> SavedName:
    name, kind, type_name, size, status, reason, excerpt, digest = row
    if not is_optional_count(size):
        raise ProtocolViolationError("a name's size is not a count")
    return SavedName(
        name=_text(name, MAX_NAME),
        kind=_choice(kind, NAME_KINDS),
        type=_text(type_name, MAX_NAME),
        size_bytes=size,
        status=_choice(status, NAME_STATUSES),
        reason=None if reason is None else _text(reason, MAX_REASON),
        excerpt=None if excerpt is None else _text(excerpt, MAX_EXCERPT, lines=True),
        digest=_optional_digest(digest),
    )


def _file(row: Sequence[Any]) -> SavedFile:
    path, kind, size, execution, digest = row
    if size is None or execution is None or not (is_optional_count(size) and is_optional_count(execution)):
        raise ProtocolViolationError("a file's size or execution is not a count")
    return SavedFile(
        path=_text(path, MAX_PATH),
        kind=_choice(kind, FILE_KINDS),
        size_bytes=size,
        execution=execution,
        digest=_optional_digest(digest),
    )


def _digests(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    listed = list_in(fields, name)
    if len(listed) > MAX_PIECES:
        raise ProtocolViolationError(f"{name!r} refers to {len(listed)} pieces, over the cap of {MAX_PIECES}")
    if not all(map(is_digest, listed)):
        raise ProtocolViolationError(f"{name!r} holds something that is no digest")
    if len(set(listed)) != len(listed):
        raise ProtocolViolationError(f"{name!r} refers to a piece twice")
    return tuple(listed)


def _text(value: object, limit: int, *, lines: bool = False) -> str:
    if not isinstance(value, str):
        raise ProtocolViolationError("a row of a manifest holds something that should be text")
    return clean(value, limit, lines=lines)


def _choice(value: object, choices: Sequence[Choice]) -> Choice:
    for choice in choices:
        if value == choice:
            return choice
    raise ProtocolViolationError("a row of a manifest holds an unknown kind or status")


def _optional_digest(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not is_digest(value):
        raise ProtocolViolationError("a row of a manifest holds something that should be a digest")
    return value
