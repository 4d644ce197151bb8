"""What an agent says of saves and restores becomes records of ours: cut, cleaned, or refused."""

import json

import pytest

from orchestrator.adapters.channel import snapshot_frames
from orchestrator.domain.snapshots import SaveOrder, SnapshotIntent, SnapshotRefusedError
from orchestrator.domain.wire import Frame, ProtocolViolationError

ORDER = SaveOrder(
    SnapshotIntent("k", 7, 3, 20, 41, head=None, replaces=False, seed=1),
    "env",
    None,
    10,
    100,
    compress=False,
    final=True,
    hold=0.5,
    bound=30.0,
    most_bytes=1_000_000,
)
EMPTY = {"names": [], "unlisted_names": 0, "files": [], "unlisted_files": 0, "namespace": [], "workspace": []}
MANIFEST = {"version": 1, "sequence": 7, "incarnation": 3, "execution": 20, "environment": "env", "python": "3.11"}


def save_reply(**fields: object) -> snapshot_frames.SaveReply:
    manifest = json.dumps({**MANIFEST, **EMPTY}).encode()
    header = {"type": "reply", "id": 1, "ok": True, "files": True, "cpu": 0.5, "remarks": [], **fields}
    return snapshot_frames.save_reply(Frame(header, (manifest, b"n", b"w")))


def restore_reply(told: object, **fields: object) -> Frame:
    header = {"type": "reply", "id": 1, "ok": True, "restored": 2, "crashed": None, **fields}
    return Frame(header, (json.dumps(told).encode(),))


def test_remarks_of_a_save_are_cut_and_cleaned() -> None:
    reply = save_reply(remarks=[["x\u202e" * 1_000, "shared\n" * 1_000]] * 1_000)
    assert len(reply.remarks) == snapshot_frames.MAX_REMARKS
    name, text = reply.remarks[0]
    assert name.startswith("x\\u202ex")
    assert len(name) == snapshot_frames.MAX_LOST_NAME
    assert text.startswith("shared\\nshared")


@pytest.mark.parametrize(
    "lie",
    [{"files": 1}, {"cpu": -1}, {"cpu": True}, {"cpu": "1"}, {"remarks": {}}, {"remarks": [["x", 1]]}],
)
def test_forged_reply_to_a_save_is_a_violation(lie: dict[str, object]) -> None:
    with pytest.raises(ProtocolViolationError):
        save_reply(**lie)


def test_report_of_a_save_is_that_of_its_order_or_refused() -> None:
    report = snapshot_frames.save_report(save_reply(files=False), ORDER)
    assert (report.manifest.sequence, report.files_read, report.cpu_seconds) == (7, False, 0.5)
    manifest = json.dumps({**MANIFEST, **EMPTY, "execution": 19}).encode()
    stale = snapshot_frames.SaveReply(
        files_read=True, cpu_seconds=0.0, cpu_since=0.0, remarks=(), parts=(manifest, b"", b"")
    )
    with pytest.raises(SnapshotRefusedError, match="execution 19 instead of 20"):
        snapshot_frames.save_report(stale, ORDER)


def test_losses_of_a_restore_are_cut_and_cleaned_and_their_number_is_told() -> None:
    told = {"lost": [["x\n", "gone\u202e"]] * 10_003, "state_lost": [["cwd", "y" * 10_000]]}
    report = snapshot_frames.restore_report(restore_reply(told))
    assert report.restored == 2
    assert report.lost[0] == ("x\\n", "gone\\u202e")
    assert report.lost[-1] == ("…", "3 more were lost, which are not listed")
    assert len(report.lost) == snapshot_frames.MAX_LOSSES + 1
    assert len(report.state_lost[0][1]) == 500


@pytest.mark.parametrize("told", [[], {}, {"lost": [["x"]], "state_lost": []}, {"lost": [["x", "y"]], "state_lost": 1}])
def test_losses_that_cannot_be_read_are_told_as_such(told: object) -> None:
    report = snapshot_frames.restore_report(restore_reply(told))
    assert (report.restored, [name for name, _ in report.lost]) == (2, ["…"])


def test_group_that_crashed_a_restore_is_named_and_its_reason_cut() -> None:
    crashed = Frame({"type": "reply", "id": 1, "ok": True, "restored": 0, "crashed": [4, "y\n" * 1_000]})
    report = snapshot_frames.restore_report(crashed)
    assert report.crashed is not None
    group, reason = report.crashed
    assert group == 4
    assert reason.startswith("y\\ny")
    assert len(reason) == 500
    assert not report.killed
    assert snapshot_frames.restore_report(Frame({**crashed.header, "killed": True})).killed
