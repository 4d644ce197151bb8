"""Reads a workspace into pieces: regular files, directories, and links that stay inside. Run while no cell runs.

Everything is read each time, at the speed of memory: a tmpfs does not move a file's times when it is written through a
mapping, so times can't tell that a file is unchanged. What is unchanged is not sent, since its pieces are known. Every
name is opened beside its directory's descriptor and never through a link, so nothing outside can be reached.
Hard links come back as files of their own.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent import plain_json, pristine
from agent.snapshot.packs import PACK, PackWriter
from agent.snapshot.pieces import PIECE, PieceWriter

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

VERSION = 1
_DEEPEST = 100  # directories in each other
_MOST_NOT_SAVED = 100  # that a wake names
_MOST_COUNTED = 10_000  # files outside the workspace
_OWN_CACHE = ".matplotlib"
_READS = 3  # of a file that moves while it is read
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

FileRow = list[Any]  # path, kind, size, execution, digest


@dataclass(frozen=True)
class WorkspaceLimits:
    """What one pass takes in at most; the sandbox's own limits are meant to be lower."""

    files: int = 100_000
    bytes_read: int = 4 * 1000 * 1000 * 1000


class GivenUpError(Exception):
    """The pass ended early; nothing of it counts."""


@dataclass
class Scanned:
    """What a pass made, beside the pieces that it emitted."""

    files: list[FileRow] = field(default_factory=list)
    pieces: list[str] = field(
        default_factory=list
    )  # raw digests, each once, in the order in which a restore wants them
    body: bytes = b""
    refused: list[tuple[str, str]] = field(default_factory=list)  # (path, why)
    remarks: list[tuple[str, str]] = field(default_factory=list)
    new_bytes: int = 0


def scan(
    root: int,
    pieces: PieceWriter,
    execution: int,
    *,
    limits: WorkspaceLimits | None = None,
    give_up: Callable[[], bool] = lambda: False,
    outside: Sequence[str] = (),
) -> Scanned:
    """Read everything below the directory `root`; its path inside the sandbox is /workspace.

    `give_up` is asked between pieces, so that a waiting cell is not held. Of the directories `outside` it is said how
    much lies there and is not saved. Raises GivenUpError.
    """
    walk = _Scan(pieces, execution, limits or WorkspaceLimits(), give_up)
    walk.result.refused += [(path, text) for path in outside if (text := _not_saved_in(path))]
    walk.run(root)
    return walk.result


class _Scan:
    def __init__(
        self, pieces: PieceWriter, execution: int, limits: WorkspaceLimits, give_up: Callable[[], bool]
    ) -> None:
        self._pieces = pieces
        self._packs = PackWriter(pieces)
        self._execution = execution
        self._limits = limits
        self._give_up = give_up
        self._entries: list[dict[str, Any]] = []
        self._read_bytes = 0
        self.result = Scanned()

    def run(self, root: int) -> None:
        self._directory(root, "", 0)
        self._packs.close()
        body = {
            "version": VERSION,
            "files": self._entries,
            "packs": self._packs.packs,
            "pieces": self._pieces.table,
            "not_saved": self.result.refused[:_MOST_NOT_SAVED],
        }
        self.result.body = plain_json.write(body)
        self.result.pieces = [digest for digest, _ in self._pieces.table]
        self.result.new_bytes = self._pieces.new_bytes

    def _directory(self, directory: int, prefix: str, depth: int) -> None:
        for name in sorted(os.listdir(directory)):
            path = prefix + name
            if len(self._entries) >= self._limits.files:
                self.result.refused.append((path, f"more than {self._limits.files:,} files"))
                return
            try:
                self._one(directory, name, path, depth)
            except OSError as error:
                self.result.refused.append((path, os.strerror(error.errno or 0)))

    def _one(self, directory: int, name: str, path: str, depth: int) -> None:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            self._link(directory, name, path, found)
        elif stat.S_ISDIR(found.st_mode):
            if depth >= _DEEPEST:
                self.result.refused.append((path, f"more than {_DEEPEST} directories deep"))
                return
            child = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=directory)
            try:
                self._add(path, "directory", os.fstat(child), {})
                self._directory(child, path + "/", depth + 1)
            finally:
                os.close(child)
        elif stat.S_ISREG(found.st_mode):
            self._file(directory, name, path)
        else:
            self.result.refused.append((path, "neither file, directory nor link"))

    def _link(self, directory: int, name: str, path: str, found: os.stat_result) -> None:
        target = os.readlink(name, dir_fd=directory)
        if not stays_inside(path, target):
            self.result.refused.append((path, "a link that leads out of the workspace"))
            return
        self._add(path, "link", found, {"target": target}, self._pieces.digest(os.fsencode(target)))

    def _file(self, directory: int, name: str, path: str) -> None:
        file = os.open(name, _OPEN, dir_fd=directory)
        try:
            before = os.fstat(file)
            if not stat.S_ISREG(before.st_mode):
                self.result.refused.append((path, "neither file, directory nor link"))
                return
            for _ in range(_READS):
                if self._read_bytes + before.st_blocks * 512 > self._limits.bytes_read:
                    self.result.refused.append((path, f"more than {self._limits.bytes_read:,} bytes in all"))
                    return
                content = self._read(file, before)
                after = os.fstat(file)
                if _moved(before, after):
                    before = after
                    continue
                break
            else:
                self.result.remarks.append((path, "it was written while it was read"))
            self._store(path, after, content)
        finally:
            os.close(file)

    def _read(self, file: int, found: os.stat_result) -> list[Any]:
        """Its runs of data: (offset, bytes) of a small file, (offset, indexes of pieces) of another."""
        runs: list[Any] = []
        small = found.st_size < PACK
        for start, end in _data_in(file, found.st_size):
            content: Any = bytearray() if small else []
            at = start
            while at < end:
                if self._give_up():
                    raise GivenUpError
                data = os.pread(file, min(PIECE, end - at), at)
                if not data:
                    break
                content += data if small else self._cut(data)
                at += len(data)
                self._read_bytes += len(data)
            runs.append((start, at - start, content))
        return runs

    def _cut(self, data: bytes) -> list[int]:
        self._packs.close()  # so that pieces come in the order in which a restore wants them
        return self._pieces.write(data)

    def _store(self, path: str, found: os.stat_result, runs: list[Any]) -> None:
        fields: dict[str, Any] = {"size": found.st_size}
        if found.st_size < PACK:
            fields["packed"] = [[start, self._packs.add([data], size)] for start, size, data in runs if size]
            digest = self._pieces.digest(*(part for start, _, data in runs for part in (b"%d:" % start, data)))
        else:
            fields["runs"] = [[start, size, indexes] for start, size, indexes in runs]
            table = self._pieces.table
            named = (b"%d:" % start + table[index][0].encode() for start, _, indexes in runs for index in indexes)
            digest = self._pieces.digest(*named)
        self._add(path, "file", found, fields, digest)
        self._packs.added(path)

    def _add(
        self, path: str, kind: str, found: os.stat_result, fields: dict[str, Any], digest: str | None = None
    ) -> None:
        mode = stat.S_IMODE(found.st_mode) & 0o777
        self._entries.append({"path": path, "kind": kind, "mode": mode, "time": found.st_mtime_ns, **fields})
        self.result.files.append([path, kind, found.st_size if kind == "file" else 0, self._execution, digest])


def _not_saved_in(directory: str) -> str:
    """Links are not followed; our own cache for matplotlib does not count."""
    count, pending = 0, [directory]
    while pending and count < _MOST_COUNTED:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending += () if entry.name == _OWN_CACHE else (entry.path,)
                    else:
                        count += 1
        except OSError:
            continue  # what may not be read is not the session's
    if not count:
        return ""
    more = " or more" if count >= _MOST_COUNTED else ""
    return f"{count:,}{more} {'file' if count == 1 else 'files'} there, and nothing there is saved"


def _moved(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_ctime_ns) != (after.st_size, after.st_ctime_ns)


def _data_in(file: int, size: int) -> Iterator[tuple[int, int]]:
    """The runs of a file that are not holes."""
    at = 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
            end = os.lseek(file, start, os.SEEK_HOLE)
        except OSError:
            return  # a hole up to the end
        yield start, min(end, size)
        at = end


def stays_inside(path: str, target: str) -> bool:
    """Whether a link at `path`, below /workspace, leads to something below /workspace, by the text of its target."""
    if "\0" in target or not target:
        return False
    if target.startswith("/"):
        return os.path.normpath(target).startswith("/workspace/") and ".." not in target.split("/")
    depth = path.count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            return False
    return True
