"""Files that were set aside are kept for a month of time that counts."""

from orchestrator.domain.asides import KEPT, Asides, DropAside


def test_what_is_seen_for_the_first_time_has_a_month() -> None:
    first = Asides.of(None).next(1_000.0, ["a"])
    later = Asides.of(first.text).next(1_000.0 + KEPT - 1, ["a", "b"])

    assert later.due(1_000.0 + KEPT - 1) == []
    assert later.due(1_000.0 + KEPT) == [DropAside("a", "set aside for 30 days")]


def test_what_is_gone_is_forgotten_and_begins_anew_when_it_comes_back() -> None:
    first = Asides.of(None).next(0.0, ["a"])

    assert first.next(KEPT, []).next(KEPT, ["a"]).due(KEPT) == []


def test_records_from_a_backup_keep_it_for_longer_and_not_for_ever() -> None:
    later = Asides.of('{"a": 9000000.0}').next(50.0, ["a"])

    assert later.due(50.0 + KEPT - 1) == []
    assert later.due(50.0 + KEPT) != []
