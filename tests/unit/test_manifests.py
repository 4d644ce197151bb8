"""The manifest reader against what a hostile agent could write."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import manifests
from orchestrator.domain.manifests import read_manifest
from orchestrator.domain.snapshots import Manifest, SavedFile, SavedName, Section
from orchestrator.domain.wire import ProtocolViolationError

A, B = "a" * 32, "b" * 32


def fields(**changes: object) -> dict[str, Any]:
    good: dict[str, Any] = {
        "version": 1,
        "sequence": 3,
        "incarnation": 2,
        "execution": 7,
        "environment": "digest",
        "python": "3.11",
        "names": [
            ["x", "value", "int", 28, "saved", None, None, A],
            ["gen", "value", "generator", None, "refused", "a running generator", "gen = g()\nnext(gen)", None],
        ],
        "unlisted_names": 0,
        "files": [["data/a.csv", "file", 12, 6, B], ["link", "link", 0, 7, None]],
        "unlisted_files": 1,
        "namespace": [A],
        "workspace": [B, A],
    }
    return {**good, **changes}


def read(value: object, namespace: bytes = b"n", workspace: bytes = b"w") -> Manifest:
    return read_manifest(json.dumps(value).encode(), namespace, workspace)


def test_a_good_manifest_is_read_whole() -> None:
    assert read(fields()) == Manifest(
        sequence=3,
        incarnation=2,
        execution=7,
        environment="digest",
        python="3.11",
        names=(
            SavedName("x", "value", "int", 28, "saved", None, None, A),
            SavedName(
                "gen", "value", "generator", None, "refused", "a running generator", "gen = g()\nnext(gen)", None
            ),
        ),
        files=(SavedFile("data/a.csv", "file", 12, 6, B), SavedFile("link", "link", 0, 7, None)),
        unlisted_files=1,
        namespace=Section(b"n", (A,)),
        workspace=Section(b"w", (B, A)),
    )


NAME = ["x", "value", "int", 28, "saved", None, None, A]
FILE = ["f", "file", 1, 1, None]


def name_with(column: int, value: object) -> list[list[object]]:
    return [[*NAME[:column], value, *NAME[column + 1 :]]]


def file_with(column: int, value: object) -> list[list[object]]:
    return [[*FILE[:column], value, *FILE[column + 1 :]]]


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": None},
        {"sequence": -1},
        {"sequence": True},
        {"incarnation": "1"},
        {"execution": 2**60},
        {"environment": 5},
        {"python": None},
        {"names": {}},
        {"names": [NAME[:-1]]},
        {"names": [[*NAME, 1]]},
        {"names": ["xvalueint"]},
        {"names": name_with(0, 5)},
        {"names": name_with(1, "gadget")},
        {"names": name_with(1, None)},
        {"names": name_with(2, ["int"])},
        {"names": name_with(3, -1)},
        {"names": name_with(3, 1.5)},
        {"names": name_with(4, "perhaps")},
        {"names": name_with(5, 1)},
        {"names": name_with(6, {})},
        {"names": name_with(7, "A" * 32)},
        {"names": name_with(7, "a" * 31)},
        {"names": name_with(7, "a" * 32 + "\n")},
        {"unlisted_names": None},
        {"files": [FILE[:-1]]},
        {"files": file_with(1, "device")},
        {"files": file_with(2, None)},
        {"files": file_with(3, None)},
        {"files": file_with(4, 4)},
        {"unlisted_files": -1},
        {"namespace": [A, A]},
        {"namespace": [5]},
        {"namespace": A},
        {"workspace": ["../" + "a" * 29]},
    ],
)
def test_a_field_of_another_shape_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ProtocolViolationError):
        read(fields(**changes))


@pytest.mark.parametrize("missing", sorted(fields()))
def test_a_missing_field_is_refused(missing: str) -> None:
    whole = fields()
    del whole[missing]
    with pytest.raises(ProtocolViolationError):
        read(whole)


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{", b"\xff", b'{"version":NaN}', b"[" * 100_000])
def test_what_is_no_manifest_at_all_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolViolationError):
        read_manifest(raw, b"", b"")


def test_everything_is_capped_before_it_is_looked_at() -> None:
    with pytest.raises(ProtocolViolationError, match="body"):
        read(fields(), namespace=bytes(manifests.MAX_BODY_BYTES + 1))
    with pytest.raises(ProtocolViolationError, match="body"):
        read(fields(), workspace=bytes(manifests.MAX_BODY_BYTES + 1))
    with pytest.raises(ProtocolViolationError, match="cap"):
        read_manifest(b" " * (manifests.MAX_MANIFEST_BYTES + 1), b"", b"")
    with pytest.raises(ProtocolViolationError, match="items"):
        read_manifest(b"[" + b"0," * manifests.MAX_ITEMS + b"0]", b"", b"")


@pytest.mark.parametrize("cap", ["MAX_NAMES", "MAX_FILES", "MAX_PIECES"])
def test_lists_are_capped_in_their_length(cap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fields(names=[NAME, NAME]) if cap == "MAX_NAMES" else fields()
    monkeypatch.setattr(manifests, cap, 1)

    with pytest.raises(ProtocolViolationError, match="cap"):
        read(whole)


def test_texts_that_could_disguise_themselves_are_cleaned_and_cut() -> None:
    hostile = "pay\u202eload\x1b[2J\ud800" + "x" * 1000
    read_names = read(fields(names=[[hostile, "value", hostile, 1, "refused", hostile, hostile, None]])).names
    (path,) = (found.path for found in read(fields(files=[[hostile, "file", 1, 1, None]])).files)

    for text, cap in (
        (read_names[0].name, manifests.MAX_NAME),
        (read_names[0].type, manifests.MAX_NAME),
        (str(read_names[0].reason), manifests.MAX_REASON),
        (str(read_names[0].excerpt), manifests.MAX_EXCERPT),
        (path, manifests.MAX_PATH),
    ):
        assert text.startswith("pay\\u202eload\\x1b[2J\\ud800")
        assert len(text) <= cap


def test_only_an_excerpt_keeps_its_lines() -> None:
    (found,) = read(fields(names=[["a\nb", "value", "t", 1, "refused", "a\nb", "a\nb", None]])).names

    assert (found.name, found.reason, found.excerpt) == ("a\\nb", "a\\nb", "a\nb")


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([A, "value", "saved"]),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(st.sampled_from(sorted(fields())), _JSON)
def test_whatever_stands_in_a_field_is_read_or_refused(field: str, value: object) -> None:
    try:
        found = read(fields(**{field: value}))
    except ProtocolViolationError:
        return
    assert isinstance(found, Manifest)


@given(st.binary(max_size=200))
def test_whatever_bytes_come_are_read_or_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolViolationError):
        read_manifest(raw, b"", b"")
