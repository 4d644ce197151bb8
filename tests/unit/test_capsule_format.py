"""What is written is what is read, in whatever cut; and nothing else is read."""

import json
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.domain.capsule_reading import CapsuleReader, CapsuleRefusedError
from orchestrator.domain.capsules import HEAD, MAGIC, MOST, End
from orchestrator.domain.kept_results import sound_rest
from orchestrator.domain.model import CellText
from orchestrator.domain.snapshots import MAX_PIECE_BYTES, Manifest
from orchestrator.domain.wire import ProtocolViolationError
from tests.unit import capsules
from tests.unit.capsules import CELLS, HEADER, LEDGER, MANIFEST, PIECES, REST, piece, read, records_of, resealed, whole

CAPSULE = whole()
RECORDS = records_of(CAPSULE)


@settings(deadline=None)
@given(st.integers(1, len(CAPSULE)))
def test_what_was_written_is_read_in_whatever_cut(step: int) -> None:
    header, manifest, *rest = read(CAPSULE, step)
    assert header == HEADER
    assert isinstance(manifest, Manifest)
    assert replace(manifest, files_execution=0) == MANIFEST
    assert rest[:-1] == [*PIECES, LEDGER, *CELLS]
    assert isinstance(rest[-1], End)
    capsules.KEY.public_key().verify(rest[-1].signature, rest[-1].message)


@settings(deadline=None)
@given(st.text(), st.text(), st.integers(0, 2**53))
def test_every_text_of_a_cell_comes_back(code: str, output: str, size: int) -> None:
    cell = CellText(1, code, output, size)
    assert cell in read(whole(cells=[cell]))


@settings(deadline=None)
@given(st.integers(0, len(CAPSULE) - 1))
def test_what_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(CapsuleRefusedError):
        read(CAPSULE[:length])


@settings(deadline=None)
@given(st.integers(0, len(CAPSULE) - 65), st.integers(1, 255))
def test_a_changed_byte_is_refused_before_the_signature_is_looked_at(place: int, change: int) -> None:
    altered = bytearray(CAPSULE)
    altered[place] ^= change
    with pytest.raises(CapsuleRefusedError):
        read(bytes(altered))


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=20))
def test_what_follows_the_end_is_refused(more: bytes) -> None:
    with pytest.raises(CapsuleRefusedError):
        read(CAPSULE + more)


@settings(deadline=None)
@given(st.lists(st.integers(0, len(RECORDS) - 2), max_size=2 * len(RECORDS)))
def test_records_that_are_missing_doubled_or_in_another_order_are_refused_though_signed(order: list[int]) -> None:
    cells = len(RECORDS) - 1 - len(CELLS)
    before = [place for place in order if place < cells]
    if before == list(range(cells)) and order[: len(before)] == before and order[cells:] == sorted(set(order[cells:])):
        read(resealed([*(RECORDS[place] for place in order), RECORDS[-1]]))  # fewer cells are no fault
        return
    with pytest.raises(CapsuleRefusedError):
        read(resealed([*(RECORDS[place] for place in order), RECORDS[-1]]))


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(RECORDS) - 2))
def test_a_record_of_anything_is_read_or_refused_and_never_fails_otherwise(body: bytes, place: int) -> None:
    records = [*RECORDS]
    records[place] = HEAD.pack(records[place][:1], len(body)) + body
    try:
        read(resealed(records))
    except CapsuleRefusedError:
        return
    assert place not in (0, 1), "a header or a manifest of anything"


@pytest.mark.parametrize("kind", sorted(MOST))
def test_a_length_over_its_cap_is_refused_before_its_bytes_are_there(kind: bytes) -> None:
    before = b"".join(RECORDS[: [record[:1] for record in RECORDS].index(kind)])
    reader = CapsuleReader(most_bytes=capsules.MOST)
    tracemalloc.start()
    try:
        with pytest.raises(CapsuleRefusedError):
            reader.feed(MAGIC + before + HEAD.pack(kind, 2**32 - 1))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_more_bytes_than_allowed_are_refused() -> None:
    with pytest.raises(CapsuleRefusedError):
        read(CAPSULE, most=len(CAPSULE) - 1)
    read(CAPSULE, most=len(CAPSULE))


def test_a_piece_that_lies_about_its_digest_size_or_place_is_refused() -> None:
    lie = bytearray(RECORDS[4])
    lie[-1] ^= 1
    with pytest.raises(CapsuleRefusedError, match="not what its digest says"):
        read(resealed([*RECORDS[:4], bytes(lie), *RECORDS[5:]]))
    with pytest.raises(CapsuleRefusedError, match="over its cap"):
        read(whole(pieces=[replace(PIECES[0], raw_size=MAX_PIECE_BYTES + 1), *PIECES[1:]]))
    with pytest.raises(CapsuleRefusedError, match="stands where"):
        read(whole(pieces=[piece(b"something else"), *PIECES[1:]]))


@pytest.mark.parametrize("wrong", [{"environment": "../" * 20}, {"execution": 1}])
def test_a_manifest_that_does_not_fit_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(CapsuleRefusedError):
        read(whole(manifest=replace(MANIFEST, **wrong)))


def test_cells_and_executions_that_the_session_never_had_are_refused() -> None:
    with pytest.raises(CapsuleRefusedError):
        read(whole(cells=[CellText(3, "", "", 0)]))
    with pytest.raises(CapsuleRefusedError):
        read(whole(cells=CELLS[::-1]))
    with pytest.raises(CapsuleRefusedError):
        read(whole(ledger=LEDGER[::-1]))
    with pytest.raises(CapsuleRefusedError):
        read(whole(ledger=[replace(LEDGER[0], outcome=None)]))


def test_more_cells_than_an_installation_keeps_are_refused() -> None:
    many = [CellText(number, "", "", 0) for number in range(1, 202)]
    with pytest.raises(CapsuleRefusedError, match="more cells"):
        read(whole(header=replace(HEADER, executions=201), manifest=replace(MANIFEST, execution=201), cells=many))


@pytest.mark.parametrize(
    ("found", "put"),
    [
        ('"ok"', '"fine"'),
        ('"image/png"', '"image/png\\"><script>"'),
        ('"89"', '"x"'),
        ('"error":null', '"error":[1,2]'),
        ('"memory_peak":5', '"memory_peak":-1'),
        ('"bound":["x"]', '"bound":[7]'),
        ('"duration_ms":1.5', '"duration_ms":"1"'),
        ('"resumed_from":null', '"resumed_from":["moon",1]'),
        ("{", "["),
    ],
)
def test_an_answer_that_no_installation_has_written_is_refused(found: str, put: str) -> None:
    assert sound_rest(REST)
    assert found in REST
    with pytest.raises(ProtocolViolationError):
        sound_rest(REST.replace(found, put, 1))


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_an_answer_of_anything_is_refused_in_our_own_words(anything: object) -> None:

    for field in json.loads(REST):
        try:
            sound_rest(json.dumps({**json.loads(REST), field: anything}))
        except ProtocolViolationError:
            continue
