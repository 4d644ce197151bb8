"""Whether the records and a session's file say the same. Pure."""

from collections.abc import Iterator

from orchestrator.domain.model import Session
from orchestrator.domain.snapshots import SavedListing, SnapshotRecord, StoredSnapshot


def disagreements(
    session: Session, record: SnapshotRecord, listing: SavedListing | None, head: StoredSnapshot | None
) -> Iterator[str]:
    """A sentence for each; all of one moment. `head` is None where there is none, or it can't be read."""
    yield from _within_the_records(session, record)
    if record.head is None:
        if listing is not None:
            yield "The records list the names of a head, and name no head."
    elif listing is None:
        yield f"The records list no names of the head, snapshot {record.head}."
    if head is None:
        return
    yield from _of_the_head(session, record, head)
    if listing is not None:
        yield from _of_the_listing(listing, head)


def _within_the_records(session: Session, record: SnapshotRecord) -> Iterator[str]:
    head, intended = record.head or 0, record.intended
    if head > record.sequence:
        yield f"The head, snapshot {head}, is newer than any that was intended, the last being {record.sequence}."
    if record.since > record.sequence:
        yield f"Nothing before snapshot {record.since} may come back, and the last intended is {record.sequence}."
    if record.head_activity > session.activity:
        yield f"The head covers activity {record.head_activity}, and the session's is {session.activity}."
    if record.head_execution > session.executions:
        yield f"The head holds execution {record.head_execution}, and the session's last is {session.executions}."
    if intended is None:
        return
    if not head < intended.sequence <= record.sequence:
        yield f"The intended snapshot, {intended.sequence}, is not between the head, {head}, and {record.sequence}."
    if intended.incarnation > session.incarnation or intended.activity > session.activity:
        yield f"The intended snapshot, {intended.sequence}, is of a later moment than the session's."
    if intended.activity < record.head_activity:
        yield f"The intended snapshot, {intended.sequence}, is of an earlier moment than the head."


def _of_the_head(session: Session, record: SnapshotRecord, head: StoredSnapshot) -> Iterator[str]:
    summary = head.summary
    if summary.execution != record.head_execution:
        yield (
            f"By the records the head, snapshot {record.head}, holds execution {record.head_execution}, "
            f"by the file {summary.execution}."
        )
    if summary.incarnation > session.incarnation:
        yield f"The head is of incarnation {summary.incarnation}, and the session's is {session.incarnation}."
    # What replaced the session may be a copy, with the digests of where it came from; an export renews the seed.
    if max(record.since, record.renewed) < summary.sequence and record.seed is not None and summary.seed != record.seed:
        yield "The head's digests were made under another seed than the session's."


def _of_the_listing(listing: SavedListing, head: StoredSnapshot) -> Iterator[str]:
    manifest = head.manifest
    if listing.python != manifest.python:
        yield f"By the records the head is of Python {listing.python}, by the file {manifest.python}."
    listed, held = len(listing.names) + listing.unlisted, len(manifest.names) + manifest.unlisted_names
    if listed != held:
        yield f"The records list {listed:,} names of the head, and the file has {held:,}."
    known = set(manifest.names)
    strange = [name.name for name in listing.names if name not in known]
    if strange:
        yield f"{len(strange):,} names of the head are others in the records than in the file, such as {strange[0]}."
