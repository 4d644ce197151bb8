"""Puts a workspace's files back. What it reads was said by a sandbox: no name, link or size in it is believed.

Directories are opened one component at a time beside their parent's descriptor, never through a link; files are made
new or not at all; links come last, so nothing is ever written through one.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from agent import plain_json, pristine
from agent.snapshot.pieces import PIECE, DamagedError, Fetch, PieceReader
from agent.snapshot.workspace_scan import VERSION, WorkspaceLimits, stays_inside

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST_NAME = 255  # bytes, of Linux
_LARGEST = 1 << 40  # bytes that a file may claim to have, holes and all


@dataclass
class RestoredFiles:
    """What came back, and what did not."""

    files: int = 0
    lost: list[tuple[str, str]] = field(default_factory=list)  # (path, why)


class WorkspaceBodyError(ValueError):
    """This is no body of a workspace that this agent knows."""


def wanted_files(body: bytes) -> list[str]:
    """The digests of a body's pieces, each once, in the order in which `restore_files` asks for them."""
    return [digest for digest, _ in _read(body)["pieces"]]


def restore_files(
    root: int,
    body: bytes,
    fetch: Fetch,
    seed: int,
    *,
    limits: WorkspaceLimits | None = None,
    announce: Callable[[str], None] = lambda _path: None,
) -> RestoredFiles:
    """Fill the directory `root`. Raises WorkspaceBodyError."""
    return _Restore(root, _read(body), fetch, seed, limits=limits or WorkspaceLimits(), announce=announce).run()


class _Restore:
    def __init__(
        self,
        root: int,
        body: dict[str, Any],
        fetch: Fetch,
        seed: int,
        *,
        limits: WorkspaceLimits,
        announce: Callable[[str], None],
    ) -> None:
        self._root = root
        self._body = body
        self._limits = limits
        self._announce = announce
        self._reader = PieceReader(body["pieces"], _uses(body), fetch, seed)
        self._pack: tuple[int, Any] = (-1, b"")
        self._written = 0
        self._result = RestoredFiles()

    def run(self) -> RestoredFiles:
        self._result.lost += [(str(path), str(why)[:300]) for path, why in self._body.get("not_saved", ())]
        entries = self._body["files"][: self._limits.files]
        for kinds in (("directory", "file"), ("link",)):
            for entry in entries:
                if entry["kind"] in kinds:
                    self._one(entry, self._make)
        # Modes and times of directories last, the deepest first: what is made in one changes both.
        for entry in sorted(entries, key=lambda entry: -str(entry["path"]).count("/")):
            if entry["kind"] == "directory":
                self._one(entry, self._finish_directory)
        return self._result

    def _one(self, entry: dict[str, Any], act: Callable[[dict[str, Any], int, str], None]) -> None:
        path = str(entry["path"])
        self._announce(path)
        try:
            *parents, name = _components(path)
            directory = self._open(parents)
            try:
                act(entry, directory, name)
            finally:
                os.close(directory)
        except OSError as error:
            self._result.lost.append((path, os.strerror(error.errno or 0)))
        except (DamagedError, ValueError, TypeError, KeyError, IndexError) as error:
            self._result.lost.append((path, str(error)[:300]))

    def _open(self, parents: list[str]) -> int:
        at = os.dup(self._root)
        for name in parents:
            try:
                below = os.open(name, _DIRECTORY, dir_fd=at)
            finally:
                os.close(at)
            at = below
        return at

    def _make(self, entry: dict[str, Any], directory: int, name: str) -> None:
        if entry["kind"] == "directory":
            os.mkdir(name, 0o700, dir_fd=directory)
        elif entry["kind"] == "link":
            target = str(entry["target"])
            if not stays_inside(str(entry["path"]), target):
                raise ValueError("a link that leads out of the workspace")
            os.symlink(target, name, dir_fd=directory)
            os.utime(name, ns=(int(entry["time"]),) * 2, dir_fd=directory, follow_symlinks=False)
        else:
            self._file(entry, directory, name)
        self._result.files += 1

    def _file(self, entry: dict[str, Any], directory: int, name: str) -> None:
        size = int(entry["size"])
        if not 0 <= size <= _LARGEST:
            raise ValueError("a size that no file has")
        file = os.open(name, _NEW, 0o600, dir_fd=directory)
        try:
            for start, data in self._contents(entry):
                self._write(file, data, start, size)
            os.ftruncate(file, size)
            os.fchmod(file, int(entry["mode"]) & 0o777)
            os.utime(file, ns=(int(entry["time"]),) * 2)
        except BaseException:
            os.unlink(name, dir_fd=directory)
            raise
        finally:
            os.close(file)

    def _contents(self, entry: dict[str, Any]) -> Iterator[tuple[int, Any]]:
        for start, (number, offset, size) in entry.get("packed", ()):
            if self._pack[0] != number:
                self._pack = (number, self._reader.read(self._body["packs"][number]))
            if offset < 0 or size < 0 or offset + size > len(self._pack[1]):
                raise DamagedError("a file lies outside its pack")
            yield int(start), memoryview(self._pack[1])[offset : offset + size]
        buffer = bytearray(PIECE)
        for start, _, indexes in entry.get("runs", ()):
            at = int(start)
            for index in indexes:
                size = self._body["pieces"][index][1]
                piece = memoryview(buffer)[:size]
                self._reader.read_into([index], piece)
                yield at, piece
                at += size

    def _write(self, file: int, data: Any, start: int, size: int) -> None:
        self._written += len(data)
        if self._written > self._limits.bytes_read:
            raise ValueError(f"more than {self._limits.bytes_read:,} bytes in all")
        if start < 0 or start + len(data) > size:
            raise ValueError("a file's data lies outside its size")
        while data:
            written = os.pwrite(file, data, start)
            data, start = data[written:], start + written

    def _finish_directory(self, entry: dict[str, Any], directory: int, name: str) -> None:
        made = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            os.utime(made, ns=(int(entry["time"]),) * 2)
            os.fchmod(made, int(entry["mode"]) & 0o777)
        finally:
            os.close(made)


def _components(path: str) -> list[str]:
    names = path.split("/")
    for name in names:
        if name in ("", ".", "..") or "\0" in name or len(os.fsencode(name)) > _LONGEST_NAME:
            raise ValueError("a path that leads elsewhere")
    return names


def _uses(body: dict[str, Any]) -> Iterator[int]:
    for pack in body["packs"]:
        yield from pack
    for entry in body["files"]:
        for _, _, indexes in entry.get("runs", ()):
            yield from indexes


def _read(body: bytes) -> dict[str, Any]:
    try:
        fields = plain_json.read(body)
        if fields["version"] != VERSION or not all(
            isinstance(fields[key], list) for key in ("files", "packs", "pieces")
        ):
            raise WorkspaceBodyError("a workspace's body of another version")
        for digest, size in fields["pieces"]:
            if not isinstance(digest, str) or not isinstance(size, int) or not 0 < size <= PIECE:
                raise WorkspaceBodyError("a workspace's body with a piece that is none")
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceBodyError("a workspace's body that is not understood") from error
    return fields  # type: ignore[no-any-return]
