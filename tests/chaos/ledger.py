"""What the records say of a call whose answer never came."""

import sqlite3
from contextlib import closing
from pathlib import Path

_UNHEARD = """
    SELECT count(*) FROM executions JOIN sessions ON sessions.key = executions.session
    WHERE session_id = ? AND finished_at >= ? AND outcome NOT IN ('interrupted', 'outcome_unknown', 'never_arrived')
"""


def was_on_its_way(records: Path, session_id: str, since: float) -> bool:
    """Whether an execution of that session was answered since that time of time.time: its answer told what there was
    to tell, and went to a connection that had ended. What was interrupted, or never answered, has told nobody anything.
    """
    with closing(sqlite3.connect(records)) as file:
        (answered,) = file.execute(_UNHEARD, (session_id, int(since * 1_000_000))).fetchone()
    return bool(answered)
