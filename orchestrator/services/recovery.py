"""What an owner does first: whatever the one before it left half done is decided, by what is on the disk."""

import logging

from orchestrator.domain.errors import StoreUnusableError
from orchestrator.domain.ports import Records
from orchestrator.domain.snapshot_ports import Pieces, SnapshotRecords
from orchestrator.domain.snapshots import SnapshotDamagedError, SnapshotNotFoundError

logger = logging.getLogger(__name__)


async def recover(records: Records, snapshots: SnapshotRecords, pieces: Pieces, cause: str) -> None:
    """Adopt snapshots that were committed and not yet made head; then tell what was lost for `cause`, and remove the
    files of sessions that are no more. May be cut short anywhere, and begun again.
    """
    for record in await snapshots.snapshot_records():
        if record.intended is None:
            continue
        try:
            stored = await pieces.snapshot(record.session, record.intended.sequence)
        except (SnapshotNotFoundError, SnapshotDamagedError, StoreUnusableError):
            continue  # it never came so far
        if await snapshots.adopt_snapshot(record.session, stored):
            logger.info("session %s: snapshot %d was found whole", record.session, stored.summary.sequence)
    # After the adoptions: what they hold is not lost.
    await records.recover(cause)
    known = {session.key for session in await records.all_sessions()}
    for key in await pieces.keys() - known:
        try:
            await pieces.delete(key)
        except StoreUnusableError as error:  # no reason not to start
            logger.warning("the snapshots of a session that is no more are not removed: %s", error)
