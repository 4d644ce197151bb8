"""What a restore takes back: how the records in a backup stand against those that it would replace."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MOST: Final = 1_000  # that are named
_WAIT_SECONDS: Final = 5.0
_SESSIONS: Final = """
SELECT now.tenant, now.session_id, now.executions, then_.executions
FROM main.sessions AS now LEFT JOIN backup.sessions AS then_ ON then_.key = now.key
WHERE now.state <> 'destroying' AND (then_.key IS NULL OR then_.executions < now.executions)
ORDER BY now.tenant, now.session_id
"""


@dataclass(frozen=True, slots=True)
class SetBack:
    """A session that goes back. `after`: the execution that the backup knows last; None: the session is not in it."""

    tenant: str
    session_id: str
    before: int
    after: int | None


@dataclass(frozen=True, slots=True)
class Setback:
    """Of `sessions` the first thousand are named, of `count`."""

    count: int = 0
    sessions: tuple[SetBack, ...] = ()
    tenants: tuple[str, ...] = ()  # by name, that came since
    keys: int = 0  # of the API, that came since


def setback(records: Path, backup: Path) -> Setback:
    """What those records know and the backup's do not. Blocking; nothing is changed. Raises sqlite3.Error where one
    of them cannot be read, or is of a schema without tenants.
    """
    if not records.exists():
        return Setback()
    with closing(sqlite3.connect(f"{records.resolve().as_uri()}?mode=ro", uri=True, timeout=_WAIT_SECONDS)) as raw:
        raw.execute("ATTACH ? AS backup", (f"{backup.resolve().as_uri()}?mode=ro&immutable=1",))
        tenants = raw.execute(
            "SELECT name FROM main.tenants WHERE id NOT IN (SELECT id FROM backup.tenants) ORDER BY name"
        ).fetchall()
        keys = raw.execute("SELECT count(*) FROM main.keys WHERE id NOT IN (SELECT id FROM backup.keys)").fetchone()
        rows = [SetBack(*row) for row in raw.execute(_SESSIONS)]
    return Setback(len(rows), tuple(rows[:_MOST]), tuple(name for (name,) in tenants), int(keys[0]))
