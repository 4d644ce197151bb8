"""`orchestrator status` and `orchestrator reap`: how the installation stands, and what is due in it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from orchestrator.faces.cli.failures import told_to_the_terminal
from orchestrator.faces.cli.orders import tell_list, tell_one
from orchestrator.faces.cli.output import AsJson, Column, DataDir, DryRun, Yes, confirmed, show_one
from orchestrator.faces.cli.reach import Office, at_office, lines_of

_STATUS: Final = (
    Column("INSTALLATION", "installation"),
    Column("TENANTS", "tenants"),
    Column("DISABLED", "disabled_tenants"),
    Column("SESSIONS", "sessions"),
    Column("SANDBOXES", "sandboxes"),
    Column("READY", "ready"),
)
_DUE: Final = (Column("ACT", "act"), Column("SUBJECT", "subject"), Column("WHY", "why"))


def status(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Say how the installation stands: tenants, sessions and sandboxes by state, and what a call needs."""
    with told_to_the_terminal():
        tell_one(data_dir, "status.show", {}, _STATUS, as_json=as_json)


def reap(*, yes: Yes = False, dry_run: DryRun = False, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Do now what is due: save, hibernate, age, remove what belongs to nobody."""
    if dry_run:
        with told_to_the_terminal():
            tell_list(data_dir, "reap.plan", {}, _DUE, as_json=as_json, whole=True)
        return

    async def work(office: Office) -> None:
        await confirmed(_plan(await lines_of(office, "reap.plan", {})), "Do it?", yes=yes, dry_run=False)
        for line in await lines_of(office, "reap.run", {}):
            show_one(line, _DUE, as_json=as_json)

    with told_to_the_terminal():
        at_office(data_dir, work, whole=True)


def _plan(due: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"would {line['act']} {line['subject']}" for line in due if line["act"] != "withheld"] or ["nothing is due"]
