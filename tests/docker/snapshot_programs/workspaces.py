"""Workspaces come back with content, modes, times, links and holes; crafted ones reach nothing outside."""

import json
import os
import sys
import time
from typing import Any

sys.path.insert(0, "/opt/agent")
sys.path.insert(0, "/cases")

from agent.snapshot.pieces import PieceWriter  # type: ignore[import-not-found]
from agent.snapshot.workspace_restore import restore_files, wanted_files  # type: ignore[import-not-found]
from agent.snapshot.workspace_scan import GivenUpError, WorkspaceLimits, scan  # type: ignore[import-not-found]
from session import SEED, Pieces, collector  # type: ignore[import-not-found]

OPEN = os.O_RDONLY | os.O_DIRECTORY


def take(folder: str, pieces: Pieces, **more: Any) -> Any:
    known = frozenset(bytes.fromhex(digest) for digest in pieces)
    root = os.open(folder, OPEN)
    try:
        return scan(root, PieceWriter(collector(pieces), SEED, known, compress=True), 7, **more)
    finally:
        os.close(root)


def give(folder: str, body: bytes, pieces: Pieces, **more: Any) -> Any:
    os.makedirs(folder)
    root = os.open(folder, OPEN)
    asked: list[str] = []

    def fetch(digest: str, _size: int, target: memoryview) -> None:
        asked.append(digest)
        target[:] = pieces[digest]

    try:
        report = restore_files(root, body, fetch, SEED, **more)
    finally:
        os.close(root)
    if not report.lost:
        assert asked == wanted_files(body), "pieces were not asked for in their order"
    return report


def write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def everything_comes_back() -> None:
    a = "/workspace/a"
    write(f"{a}/deep/er/small.txt", b"text")
    write(f"{a}/deep/big.bin", os.urandom(3_000_000))
    write(f"{a}/empty", b"")
    for index in range(300):
        write(f"{a}/many/{index}", b"%d" % index)
    with open(f"{a}/sparse", "wb") as file:
        file.write(b"begin")
        file.seek(50_000_000)
        file.write(b"end")
        file.truncate(60_000_000)
    os.symlink("deep/er/small.txt", f"{a}/link")
    os.symlink("../deep", f"{a}/many/up")
    os.symlink("nowhere", f"{a}/dangling")
    write(os.fsdecode(b"/workspace/a/\xff\xfe name\n"), b"odd")
    os.chmod(f"{a}/empty", 0o641)
    os.utime(f"{a}/deep/er", ns=(1, 1_600_000_000_123_456_789))
    os.chmod(f"{a}/deep/er", 0o500)
    pieces: Pieces = {}
    began = time.monotonic()
    taken = take(a, pieces)
    assert time.monotonic() - began < 5
    assert not taken.refused, taken.refused
    assert sum(map(len, pieces.values())) < 4_000_000, "holes were stored"
    report = give("/workspace/b", taken.body, pieces)
    assert not report.lost, report.lost
    b = "/workspace/b"
    assert os.stat(f"{b}/sparse").st_blocks < 1_000
    assert os.stat(f"{b}/sparse").st_size == 60_000_000
    assert os.stat(f"{b}/empty").st_mode & 0o777 == 0o641
    assert os.stat(f"{b}/deep/er").st_mtime_ns == 1_600_000_000_123_456_789
    assert os.stat(f"{b}/deep/er").st_mode & 0o777 == 0o500
    assert os.readlink(f"{b}/link") == "deep/er/small.txt"
    assert os.path.samefile(f"{b}/many/up", f"{b}/deep")
    again = take(b, {})
    assert [row[:3] + row[4:] for row in again.files] == [row[:3] + row[4:] for row in taken.files]
    assert json.loads(again.body)["files"] == json.loads(taken.body)["files"], "another snapshot of the same files"
    before = set(pieces)
    write(f"{a}/many/7", b"changed")
    changed = take(a, pieces)
    assert changed.new_bytes < 10_000
    assert len(set(pieces) - before) == 1


def what_leads_outside_is_refused() -> None:
    folder = "/workspace/c"
    os.makedirs(folder)
    os.symlink("/etc/passwd", f"{folder}/absolute")
    os.symlink("../../etc", f"{folder}/relative")
    os.mkfifo(f"{folder}/pipe")
    write(f"{folder}/unreadable", b"x")
    os.chmod(f"{folder}/unreadable", 0)
    taken = take(folder, {})
    assert {path for path, _ in taken.refused} == {"absolute", "relative", "pipe", "unreadable"}
    assert taken.files == []
    limited = take("/workspace/a", {}, limits=WorkspaceLimits(files=5))
    assert len(limited.files) == 5
    assert limited.refused
    small = take("/workspace/a", {}, limits=WorkspaceLimits(bytes_read=100_000))
    assert "deep/big.bin" in {path for path, _ in small.refused}


def crafted_bodies_reach_nothing() -> None:
    outside = "/workspace/outside"
    os.makedirs(outside)
    pieces: Pieces = {}
    write("/workspace/d/f", b"payload")
    body = json.loads(take("/workspace/d", pieces).body)
    (content,) = body["files"]
    link = {"path": "way", "kind": "link", "mode": 0o777, "time": 0, "target": outside}
    names = [
        "../outside/f",
        "/workspace/outside/f",
        "a/../../outside/f",
        "way/f",
        ".",
        "..",
        "",
        "a//b",
        "x\0y",
        "n" * 300,
    ]
    entries = [{**link, "target": "../outside"}, *({**content, "path": name} for name in names)]
    entries.append({**content, "path": "huge", "size": 1 << 60})
    entries.append({**content, "path": "behind", "packed": [[1 << 50, [0, 0, 7]]]})
    entries.append({**content, "path": "beyond", "packed": [[0, [0, 3, 7]]]})
    report = give("/workspace/e", json.dumps({**body, "files": entries}).encode(), pieces)
    assert len(report.lost) == len(entries), report.lost
    assert os.listdir(outside) == []
    assert os.listdir("/workspace/e") == [], os.listdir("/workspace/e")
    # A link inside is made last, and a directory of its name is not entered through it.
    os.makedirs("/workspace/g/real")
    inside = {**link, "target": "real"}
    real = {"path": "real", "kind": "directory", "mode": 0o700, "time": 0}
    entries = [inside, real, {**content, "path": "way/f"}]
    report = give("/workspace/h", json.dumps({**body, "files": entries}).encode(), pieces)
    assert [path for path, _ in report.lost] == ["way/f"]
    damaged = {digest: bytes(len(data)) for digest, data in pieces.items()}
    report = give("/workspace/i", json.dumps(body).encode(), damaged)
    assert [path for path, _ in report.lost] == ["f"]
    report = give("/workspace/j", json.dumps(body).encode(), pieces, limits=WorkspaceLimits(bytes_read=3))
    assert [path for path, _ in report.lost] == ["f"]


def a_waiting_cell_ends_the_pass() -> None:
    asked: list[int] = []

    def give_up() -> bool:
        asked.append(1)
        return len(asked) > 3

    try:
        take("/workspace/a", {}, give_up=give_up)
    except GivenUpError:
        assert len(asked) == 4
        return
    raise AssertionError("the pass went on")


if __name__ == "__main__":
    everything_comes_back()
    what_leads_outside_is_refused()
    crafted_bodies_reach_nothing()
    a_waiting_cell_ends_the_pass()
    print("no fault")
