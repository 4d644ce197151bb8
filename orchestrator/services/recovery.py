"""What an owner does first: whatever the one before it left half done is decided, by what is on the disk."""

import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from orchestrator.domain.errors import OrchestratorError, StoreUnusableError
from orchestrator.domain.model import SandboxRecord, SessionState
from orchestrator.domain.ports import Records
from orchestrator.domain.snapshot_ports import Pieces, SnapshotRecords
from orchestrator.domain.snapshots import SnapshotDamagedError, SnapshotNotFoundError
from orchestrator.services.about import about

logger = logging.getLogger(__name__)


async def recover(records: Records, snapshots: SnapshotRecords, pieces: Pieces, cause: str) -> Sequence[SandboxRecord]:
    """Adopt snapshots that were committed and not yet made head; remove the files of sessions that were being deleted;
    tell what was lost for `cause`, and set aside the files of no session. May be cut short anywhere, and begun again.

    Returns the sandboxes that may have outlived that owner, for `Sandboxes`.
    """
    for record in await snapshots.snapshot_records():
        if record.intended is None:
            continue
        try:
            stored = await pieces.snapshot(record.session, record.intended.sequence)
        except (SnapshotNotFoundError, SnapshotDamagedError, StoreUnusableError):
            continue  # it never came so far
        if await snapshots.adopt_snapshot(record.session, stored):
            logger.info("snapshot %d was found whole", stored.summary.sequence, extra=about(record.session))
    # While their rows are there, so that a start that is cut short here does the same again.
    doomed = {session.key for session in await records.all_sessions() if session.state is SessionState.DESTROYING}
    for key in doomed:
        try:
            await pieces.delete(key)
        except StoreUnusableError as error:  # no reason not to start
            logger.warning("the snapshots of a session that was deleted are not removed: %s", error)
    # After the adoptions: what they hold is not lost.
    survivors = await records.recover(cause)
    await _set_aside(pieces, {session.key for session in await records.all_sessions()} | doomed)
    return survivors


async def _set_aside(pieces: Pieces, known: AbstractSet[str]) -> None:
    """What these records do not know may be all that is left of a session that is newer than they are."""
    try:
        strays = await pieces.keys() - known
        for key in sorted(strays):
            logger.warning("the snapshots of %s, which no session here has, are set aside for a month", key)
        await pieces.set_aside(strays)
    except OrchestratorError as error:  # nor is this
        logger.warning("files of no session are not set aside: %s", error)
