"""Sessions, executions, snapshots and variables as objects for JSON. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from orchestrator.domain.model import ExecutionRecord, Namespace, Session, Variable
from orchestrator.domain.snapshots import SnapshotSummary

Line = Mapping[str, Any]


def session_line(session: Session, tenant: str) -> Line:
    """A session; `tenant` is the name of its tenant."""
    return {
        "session": session.session_id,
        "tenant": tenant,
        "key": session.key,
        "state": str(session.state),
        "incarnation": session.incarnation,
        "executions": session.executions,
        "variables": session.variable_count,
        "saved_through": session.saved_through or None,
        "created_at": session.created_at.isoformat(),
        "used_at": session.used_at.isoformat(),
    }


def execution_line(record: ExecutionRecord) -> Line:
    """A row of the ledger; an outcome of null: it is open."""
    ended = record.finished_at
    return {
        "execution": record.number,
        "incarnation": record.incarnation,
        "outcome": record.outcome,
        "started_at": record.started_at.isoformat(),
        "finished_at": _moment(ended),
        "seconds": None if ended is None else (ended - record.started_at).total_seconds(),
        "bound": list(record.bound),
        "removed": list(record.removed),
    }


def snapshot_line(summary: SnapshotSummary) -> Line:
    """A line of a history. The seed of its digests is nobody's business."""
    return {
        "sequence": summary.sequence,
        "incarnation": summary.incarnation,
        "execution": summary.execution,
        "environment": summary.environment,
        "python": summary.python,
        "created_at": summary.created_at.isoformat(),
        "names": summary.names,
        "refused": summary.refused,
        "raw_bytes": summary.raw_bytes,
        "stored_bytes": summary.stored_bytes,
        "new_bytes": summary.new_bytes,
    }


def variable_lines(namespace: Namespace) -> list[Line]:
    """Variables, then modules."""
    return [
        *(_variable(variable, "variable") for variable in namespace.variables),
        *(_variable(variable, "import") for variable in namespace.imports),
    ]


def _variable(variable: Variable, kind: str) -> Line:
    return {"name": variable.name, "kind": kind, "type": variable.type, "size_bytes": variable.size_bytes}


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
