"""The supervisor's side of a save, fed through a real pipe with what a session could write into it."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.channel import snapshot_frames
from orchestrator.domain.manifests import read_manifest
from orchestrator.domain.wire import FrameDecoder

AGENT = str(Path(__file__).parents[2] / "sandbox-image")


def load(name: str) -> ModuleType:
    """A module of the agent, which is no package of the host's."""
    sys.path.insert(0, AGENT)
    try:
        return importlib.import_module(f"agent.{name}")
    finally:
        sys.path.remove(AGENT)


records, save_pipe, reactor = load("piece_records"), load("save_pipe"), load("reactor")
manifest, save_memory = load("manifest"), load("save_memory")


class Fed:
    """A pipe and what came of it."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.took: list[tuple[bytes, int, bytes]] = []
        self.broke: list[str] = []
        self.pipe: Any = save_pipe.SavePipe(
            reactor.Reactor(),
            7,
            lambda frame: self.frames.append(bytes(frame)),
            lambda *record: self.took.append(record),
            self.broke.append,
        )
        self.pipe.resume()

    def feed(self, data: bytes, *, take: bool = True) -> None:
        """Write all of it, and read as long as anything moves; the host takes each piece at once, or none."""
        os.set_blocking(self.pipe.writing, False)
        while data and self.pipe.open and not self.pipe.waiting_for_host:
            with suppress(BlockingIOError):
                data = data[os.write(self.pipe.writing, data) :]
            self.settle(take=take)

    def settle(self, *, take: bool) -> None:
        """Read what is there."""
        for _ in range(200):
            if take:
                self.pipe.taken(1)
            if self.pipe.open and not self.pipe.waiting_for_host:
                self.pipe._ready(0)

    def close(self) -> None:
        """Both ends."""
        self.pipe.close()
        os.close(self.pipe.writing)

    def pieces(self) -> list[tuple[str, int, str, bytes]]:
        """As the host reads them; it ends a sandbox that sends what it does not take."""
        decoded = [frame for data in self.frames for frame in FrameDecoder().feed(data)]
        assert len(decoded) == len(self.frames)
        pieces = [snapshot_frames.piece(frame) for frame in decoded]
        return [(piece.raw_digest, piece.raw_size, piece.encoding.value, piece.data) for piece in pieces]


@pytest.fixture
def fed() -> Iterator[Fed]:
    with closing(Fed()) as made:
        yield made


def record(kind: bytes, data: bytes = b"", *, flag: int = 0, encoding: int = 0, digest: bytes = bytes(16)) -> bytes:
    return bytes(records.HEADER.pack(kind, encoding, flag, len(data), digest)) + data


def piece(number: int, size: int = 10) -> bytes:
    return record(b"P", bytes([number % 256]) * size, flag=size, digest=number.to_bytes(16))


def test_pieces_become_frames_and_other_records_are_told(fed: Fed) -> None:
    packed = record(b"P", b"packed", flag=1000, encoding=1, digest=b"d" * 16)
    fed.feed(record(b"F", flag=1) + piece(1, 2**20) + packed + record(b"M", b"{}") + piece(2) + record(b"R", b"{}"))
    assert fed.pieces() == [
        ("0" * 31 + "1", 2**20, "raw", b"\1" * 2**20),
        ("64" * 16, 1000, "zstd", b"packed"),
        ("0" * 31 + "2", 10, "raw", b"\2" * 10),
    ]
    assert fed.took == [(b"F", 1, b""), (b"M", 0, b"{}"), (b"R", 0, b"{}")]
    assert fed.broke == []


def test_ninth_piece_waits_until_the_host_has_taken_one(fed: Fed) -> None:
    fed.feed(b"".join(map(piece, range(12))), take=False)
    assert len(fed.frames) == 8
    assert fed.pipe.waiting_for_host
    for count in (9, 0, -1, "1", None):
        fed.pipe.taken(count)
    fed.settle(take=False)
    assert len(fed.frames) == 8, "only what is on its way can be taken"
    fed.pipe.taken(2)
    fed.settle(take=False)
    assert len(fed.frames) == 10
    fed.settle(take=True)
    assert len(fed.pieces()) == 12


def test_piece_that_was_sent_before_is_not_sent_again(fed: Fed) -> None:
    fed.feed(piece(1) + piece(2) + piece(1) + piece(3))
    assert [int(digest, 16) for digest, *_ in fed.pieces()] == [1, 2, 3]


def test_pieces_of_files_that_were_given_up_go_nowhere(fed: Fed) -> None:
    fed.feed(b"".join(map(piece, range(9))), take=False)
    fed.pipe.discarding = True
    fed.pipe.resume()
    fed.feed(piece(10, 2**20) + record(b"F"), take=False)
    assert len(fed.frames) == 8
    assert fed.took == [(b"F", 0, b"")]


@pytest.mark.parametrize(
    "broken",
    [
        record(b"?"),
        record(b"P", b"", flag=0),
        record(b"P", b"abc", flag=4),
        record(b"P", b"abc", flag=2**20 + 1, encoding=1),
        record(b"P", b"abc", flag=3, encoding=2),
        records.HEADER.pack(b"P", 0, 2**20 + 1, 2**20 + 1, bytes(16)),
        records.HEADER.pack(b"M", 0, 0, 2**23 + 1, bytes(16)),
        record(b"F", b"x"),
        record(b"F", flag=2),
        record(b"M", b"{}", encoding=1),
        b"\xff" * 28,
    ],
)
def test_record_that_breaks_a_rule_ends_the_reading(fed: Fed, broken: bytes) -> None:
    fed.feed(piece(1) + broken + piece(2))
    assert fed.broke == ["what saves broke the rules"]
    assert len(fed.pieces()) == 1
    assert not fed.pipe.open


@given(data=st.binary(max_size=400), cut=st.integers(0, 100), before=st.lists(st.integers(0, 3), max_size=4))
def test_whatever_is_written_the_host_gets_sound_pieces_or_none(data: bytes, cut: int, before: list[int]) -> None:
    with closing(Fed()) as fed:
        stream = b"".join(piece(number, 40) for number in before) + data
        fed.feed(stream[:cut])
        fed.feed(stream[cut:])
        assert len(fed.pieces()) >= min(len(set(before)), len(fed.frames))


@given(sizes=st.lists(st.integers(1, 3000), max_size=12), cuts=st.lists(st.integers(0, 20_000), max_size=6))
def test_where_a_stream_is_cut_makes_no_difference(sizes: list[int], cuts: list[int]) -> None:
    stream = b"".join(piece(number, size) + record(b"M", b"m" * size) for number, size in enumerate(sizes))
    with closing(Fed()) as fed:
        ends = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
        for start, end in pairwise(ends):
            fed.feed(stream[start:end])
        assert [size for _, size, _, _ in fed.pieces()] == sizes
        assert [len(data) for _, _, data in fed.took] == sizes


ORDER = {"snapshot": 5, "incarnation": 1, "execution": 9, "environment": "e"}


def test_manifest_is_what_the_host_reads() -> None:
    names = [["x" * 300, "value", "int", 28, "refused", "why " * 200, None, None]]
    files = [["p" * 500, "file", 3, 9, "0" * 32]]
    read = read_manifest(manifest.manifest(ORDER, names, files, ["1" * 32], ["2" * 32]), b"", b"")
    assert (read.sequence, read.execution, read.namespace.pieces, read.workspace.pieces) == (
        5,
        9,
        ("1" * 32,),
        ("2" * 32,),
    )
    assert (read.names[0].status, len(read.files), read.unlisted_names, read.unlisted_files) == ("refused", 1, 0, 0)


@pytest.mark.parametrize("wide", [1, 150])
def test_manifest_of_very_many_rows_counts_what_it_does_not_list(wide: int) -> None:
    names = [[f"{'n' * wide}{index}", "value", "int", 28, "saved", None, None, None] for index in range(120_000)]
    files = [[f"f{index}", "file", 3, 9, "0" * 32] for index in range(50_000)]
    raw = manifest.manifest(ORDER, names, files, ["1" * 32] * 0, [f"{index:032x}" for index in range(20_000)])
    assert len(raw) <= manifest.MAX_MANIFEST
    read = read_manifest(raw, b"", b"")
    assert len(read.names) + read.unlisted_names == 120_000
    assert len(read.files) + read.unlisted_files == 50_000


def test_remarks_are_few_and_short() -> None:
    rows = [("n" * 1000, "\N{SNOWMAN}" * 1000)] * 500
    told = manifest.remarks(rows, rows)
    assert len(told) <= 32 * 1024
    assert b"901 more remarks" in told or told.count(b"[") == 101


def test_only_the_head_and_the_newest_save_are_known() -> None:
    memory = save_memory.SaveMemory()
    memory.saved(1, 7, None, b"a" * 16, b"b" * 16)
    memory.saved(2, 7, 1, b"c" * 16, None)
    assert memory.known(2, 7) == b"c" * 16 + b"b" * 16, "where no files were read those of the head stand"
    assert memory.known(1, 7) == b""
    memory.saved(3, 7, None, b"d" * 16, b"")
    assert memory.known(3, 8) == b"", "under another seed a digest says nothing"


def test_pieces_of_a_restore_are_known() -> None:
    memory = save_memory.SaveMemory()
    for section in ("workspace", "namespace", "namespace"):
        memory.restoring(4, 7, section)
        memory.came(4, 7, section, section[:1].encode() * 16)
    assert memory.known(4, 7) == b"w" * 16 + b"n" * 16


def test_refused_value_is_tried_again_after_some_saves() -> None:
    memory = save_memory.SaveMemory()
    row = ["name x", "timed out", 1, 2]
    tried = []
    for _ in range(10):
        tried.append(not memory.refused())
        memory.note_refused([row])
    assert tried == [True, False, False, False, False] * 2
    memory.note_refused([])
    assert memory.refused() == []
