"""What differs between two snapshots."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.comparison import compare
from orchestrator.domain.snapshots import Manifest, NameStatus, SavedFile, SavedName, SnapshotSummary, StoredSnapshot

SUMMARY = SnapshotSummary(1, 1, 1, "e", "3.11", datetime(2030, 1, 1, tzinfo=UTC), 0, 0, 0, 0, 0, seed=7)


def name(label: str, content: int, status: NameStatus = "saved") -> SavedName:
    return SavedName(label, "value", "int", 28, status, None, None, f"{content:032x}")


def file(path: str, content: int) -> SavedFile:
    return SavedFile(path, "file", 10, 1, f"{content:032x}")


def stored(*names: SavedName, files: tuple[SavedFile, ...] = (), sequence: int = 1, seed: int = 7) -> StoredSnapshot:
    manifest = Manifest(sequence, 1, 1, "e", "3.11", names=names, files=files)
    return StoredSnapshot(replace(SUMMARY, sequence=sequence, seed=seed), manifest, ())


def test_added_removed_and_changed_names_and_files_are_named() -> None:
    before = stored(name("a", 1), name("b", 1), name("c", 1), files=(file("x", 1), file("y", 1)))
    after = stored(name("b", 2), name("c", 1), name("d", 1), files=(file("x", 2), file("z", 1)), sequence=2)

    found = compare(before, after)

    assert (found.before, found.after) == (1, 2)
    assert (found.names.added, found.names.removed, found.names.changed) == (("d",), ("a",), ("b",))
    assert (found.files.added, found.files.removed, found.files.changed) == (("z",), ("y",), ("x",))


def test_a_name_that_was_refused_is_not_there() -> None:
    found = compare(stored(name("a", 1, "refused")), stored(name("a", 1)))
    assert found.names.added == ("a",)


def test_another_type_is_a_change_whatever_the_digests_say() -> None:
    found = compare(stored(name("a", 1)), stored(replace(name("a", 1), type="str")))
    assert found.names.changed == ("a",)


def test_digests_under_different_seeds_say_nothing() -> None:
    found = compare(stored(name("a", 1)), stored(name("a", 2), seed=8))
    assert (found.names.changed, found.names.unknown) == ((), ("a",))


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3)),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3)),
)
def test_every_name_that_differs_is_in_exactly_one_list(before: dict[str, int], after: dict[str, int]) -> None:
    found = compare(
        stored(*(name(label, content) for label, content in before.items())),
        stored(*(name(label, content) for label, content in after.items())),
    ).names

    listed = [*found.added, *found.removed, *found.changed]
    assert sorted(listed) == sorted({label for label in {*before, *after} if before.get(label) != after.get(label)})
    assert not found.unknown
