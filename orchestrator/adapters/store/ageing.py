"""The age of sessions in SQLite: counted time, and who has reached what. Each function runs inside one transaction."""

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import timedelta

from orchestrator.adapters.store.connection import Transaction, microseconds, moment
from orchestrator.adapters.store.sessions import states
from orchestrator.domain.ageing import AgedSession, AgeingCounts
from orchestrator.domain.lifecycle import SESSION_TRANSITIONS
from orchestrator.domain.model import SessionState
from orchestrator.domain.ticks import Counted

_MICROSECOND = timedelta(microseconds=1)

# By which column a session in that state has its age, and which clock that was read from.
_CLOCKS = {
    SessionState.HIBERNATED: ("used_count", "counted"),
    SessionState.INACTIVE: ("used_count", "counted"),
    SessionState.EXPIRED: ("expired_watch", "watched"),
}


def counted(tx: Transaction) -> Counted:
    """As of the last accepted tick."""
    (row,) = tx.rows("SELECT * FROM ageing")
    seen_at = None if row["seen_at"] is None else moment(row["seen_at"])
    return Counted(_seconds(row["counted"]), _seconds(row["watched"]), seen_at)


def count(tx: Transaction, now: Counted, late: float, began_at: float) -> None:
    """Note it, and stamp anew what was used since the last tick."""
    # Stamps of uses are one above the count of their tick; stamped anew, they are not found again by the next one. All
    # states are named for the index's sake.
    stamped = "UPDATE sessions SET used_count = {} WHERE state IN (SELECT value FROM json_each(:states)) AND {}"
    parameters = {
        "states": states(SessionState),
        "punctual": _whole(now.seconds) - _whole(late),
        "late": _whole(late),
        "began_at": _whole(began_at),
    }
    tx.change(stamped.format(":punctual", "used_count = (SELECT counted FROM ageing) + 1"), parameters)
    if late:
        tx.change(stamped.format("used_count + :late", "used_count > :began_at"), parameters)
    seen_at = None if now.seen_at is None else microseconds(now.seen_at)
    tx.change(
        "UPDATE ageing SET counted = ?, watched = ?, seen_at = ?", (_whole(now.seconds), _whole(now.watched), seen_at)
    )


def unused(tx: Transaction, tenant: str) -> Mapping[str, float]:
    """By key: what has counted since the last use."""
    rows = tx.rows(
        "SELECT key, counted - used_count AS unused FROM sessions, ageing WHERE tenant = ? AND state <> 'destroying'",
        (tenant,),
    )
    return {row["key"]: max(0.0, _seconds(row["unused"])) for row in rows}


def aged(
    tx: Transaction, state: SessionState, seconds: float, after: AgedSession | None, limit: int
) -> Sequence[AgedSession]:
    """A page of those in that state and of at least that age, in the order of their stamps."""
    column, clock = _CLOCKS[state]
    rows = tx.rows(
        f"""
        SELECT key, tenant, session_id, state, incarnation, activity, {column} AS stamp,
               (SELECT {clock} FROM ageing) - {column} AS age
        FROM sessions
        WHERE state = :state AND {column} <= (SELECT {clock} FROM ageing) - :age AND ({column}, key) > (:stamp, :key)
        ORDER BY {column}, key LIMIT :limit
        """,  # noqa: S608 - the names stand above
        {
            "state": state,
            "age": _whole(seconds),
            "stamp": -1 if after is None else after.stamp,
            "key": "" if after is None else after.key,
            "limit": limit,
        },
    )
    return [_aged(row) for row in rows]


def counts(tx: Transaction, seconds: float) -> AgeingCounts:
    """How many there are, and how many would expire at that age."""
    (everything,) = tx.rows("SELECT count(*) AS number FROM sessions WHERE state <> 'destroying'")
    (expiring,) = tx.rows(
        """
        SELECT count(*) AS number FROM sessions
        WHERE state IN ('hibernated', 'inactive') AND used_count <= (SELECT counted FROM ageing) - ?
        """,
        (_whole(seconds),),
    )
    return AgeingCounts(everything["number"], expiring["number"])


def age(tx: Transaction, session: AgedSession, target: SessionState) -> bool:
    """The guarded change of a session that is still as it was seen."""
    if session.state not in _CLOCKS or target not in SESSION_TRANSITIONS[session.state]:
        return False
    column, _ = _CLOCKS[session.state]
    changed = tx.change(
        f"""
        UPDATE sessions SET state = :target,
                            expired_watch = iif(:target = 'expired', (SELECT watched FROM ageing), expired_watch)
        WHERE key = :key AND incarnation = :incarnation AND activity = :activity AND state = :state
          AND {column} = :stamp
        """,  # noqa: S608 - the column stands above
        {
            "target": target,
            "key": session.key,
            "incarnation": session.incarnation,
            "activity": session.activity,
            "state": session.state,
            "stamp": session.stamp,
        },
    )
    return changed == 1


def spare(tx: Transaction, session: AgedSession) -> bool:
    """The guarded change back from `destroying`."""
    # OR IGNORE: another session may have its name by now.
    changed = tx.change(
        """
        UPDATE OR IGNORE sessions SET state = 'expired'
        WHERE key = ? AND incarnation = ? AND activity = ? AND state = 'destroying'
        """,
        (session.key, session.incarnation, session.activity),
    )
    return changed == 1


def use(tx: Transaction, key: str) -> None:
    """Somebody uses it."""
    tx.change(
        """
        UPDATE sessions SET used_at = ?, state = iif(state IN ('inactive', 'expired'), 'hibernated', state)
        WHERE key = ? AND state <> 'destroying'
        """,
        (tx.now, key),
    )


def _aged(row: sqlite3.Row) -> AgedSession:
    return AgedSession(
        key=row["key"],
        tenant=row["tenant"],
        session_id=row["session_id"],
        state=SessionState(row["state"]),
        incarnation=row["incarnation"],
        activity=row["activity"],
        stamp=row["stamp"],
        seconds=_seconds(row["age"]),
    )


def _whole(seconds: float) -> int:
    return timedelta(seconds=seconds) // _MICROSECOND


def _seconds(whole: int) -> float:
    return timedelta(microseconds=whole).total_seconds()
