"""Which names a session's namespace holds by the answers' word, and which execution bound each of them last.

Each function runs inside one transaction.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from orchestrator.adapters.store.connection import Transaction
from orchestrator.domain.snapshots import NameKind, NameStatus, SavedListing, SavedName

# Of one session. More is counted by nobody: what is bound last is what somebody misses.
KEPT_NAMES: Final = 1_000

_REFUSED: Final[NameStatus] = "refused"
_MODULE: Final[NameKind] = "module"


def note(tx: Transaction, key: str, execution: int, bound: Sequence[str], removed: Sequence[str]) -> None:
    """What an execution bound and removed."""
    tx.change_each("DELETE FROM names WHERE session = ? AND name = ?", [(key, name) for name in removed])
    if not bound:
        return
    tx.change_each(
        """
        INSERT INTO names (session, name, execution) VALUES (?, ?, ?)
        ON CONFLICT (session, name) DO UPDATE SET execution = excluded.execution
        """,
        [(key, name, execution) for name in bound[:KEPT_NAMES]],
    )
    _trim(tx, key)


def bound_between(tx: Transaction, key: str, first: int, last: int) -> Sequence[str]:
    """The names whose last binding was in one of those executions, in the order of their binding."""
    rows = tx.rows(
        "SELECT name FROM names WHERE session = ? AND execution BETWEEN ? AND ? ORDER BY execution, name",
        (key, first, last),
    )
    return [row["name"] for row in rows]


def bindings(tx: Transaction, key: str, wanted: Sequence[str] | None) -> Mapping[str, int]:
    """Which execution last bound each of those names (None: of all), where that is known."""
    rows = tx.rows(
        """
        SELECT name, execution FROM names
        WHERE session = :key AND (:wanted IS NULL OR name IN (SELECT value FROM json_each(:wanted)))
        """,
        {"key": key, "wanted": None if wanted is None else json.dumps(list(wanted))},
    )
    return {row["name"]: row["execution"] for row in rows}


def fall_back(tx: Transaction, key: str, last: int, head: SavedListing | None) -> int:
    """What was bound after the head up to `last` is gone, and what the head holds is there: how many variables."""
    held_by = 0 if head is None else head.execution
    tx.change("DELETE FROM names WHERE session = ? AND execution BETWEEN ? AND ?", (key, held_by + 1, last))
    if head is None:
        return 0
    held = _variables(head.names)
    # A name that the head has and that was bound anew since was bound by nobody knows which execution before.
    tx.change_each(
        "INSERT INTO names (session, name, execution) VALUES (?, ?, ?) ON CONFLICT (session, name) DO NOTHING",
        [(key, name, held_by) for name in held[:KEPT_NAMES]],
    )
    _trim(tx, key)
    # What is not listed is in all likelihood saved: where there are too many, those that were refused are listed.
    return len(held) + head.unlisted


def take_back(tx: Transaction, key: str, savepoint: int, last: int, head: SavedListing | None) -> None:
    """What was bound and removed after that savepoint up to `last` is as it was then, as far as the ledger knows."""
    rows = tx.rows(
        "SELECT number, bound, removed FROM executions WHERE session = ? AND number <= ? ORDER BY number DESC",
        (key, last),
    )
    changed = set(bound_between(tx, key, savepoint + 1, last))
    changed.update(*(json.loads(row["removed"]) for row in rows if row["number"] > savepoint))
    tx.change("DELETE FROM names WHERE session = ? AND execution BETWEEN ? AND ?", (key, savepoint + 1, last))
    held: dict[str, int] = {}
    for row in rows:
        if row["number"] <= savepoint:
            held.update(dict.fromkeys(changed.intersection(json.loads(row["bound"])), row["number"]))
            changed.difference_update(json.loads(row["bound"]), json.loads(row["removed"]))
    if head is not None:
        held.update(dict.fromkeys(changed.intersection(_variables(head.names)), head.execution))
    tx.change_each(
        "INSERT INTO names (session, name, execution) VALUES (?, ?, ?) ON CONFLICT (session, name) DO NOTHING",
        [(key, name, execution) for name, execution in held.items()],
    )
    _trim(tx, key)


def stand_at(tx: Transaction, key: str, head: SavedListing) -> int:
    """What the head holds is there and nothing else: how many variables."""
    forget(tx, key)
    return fall_back(tx, key, 0, head)


def forget(tx: Transaction, key: str) -> None:
    """All of them."""
    tx.change("DELETE FROM names WHERE session = ?", (key,))


def _variables(saved: Sequence[SavedName]) -> Sequence[str]:
    """The names under which a restore brings variables, each once; they are claims."""
    return list(
        dict.fromkeys(
            name.name
            for name in saved
            if name.status != _REFUSED and name.kind != _MODULE and not name.name.startswith("_")
        )
    )


def _trim(tx: Transaction, key: str) -> None:
    (kept,) = tx.rows("SELECT count(*) AS names FROM names WHERE session = ?", (key,))
    if kept["names"] > KEPT_NAMES:
        tx.change(
            """
            DELETE FROM names WHERE session = ? AND name IN
                (SELECT name FROM names WHERE session = ? ORDER BY execution, name LIMIT ?)
            """,
            (key, key, kept["names"] - KEPT_NAMES),
        )
