"""`orchestrator session`: what every tenant's sessions are doing, and what an operator may do with them."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from orchestrator.domain.model import LOCAL_TENANT
from orchestrator.faces.cli.completion import session_names, tenant_names
from orchestrator.faces.cli.failures import told_to_the_terminal
from orchestrator.faces.cli.orders import tell_act, tell_list, tell_one
from orchestrator.faces.cli.output import AsJson, Column, DataDir, DryRun, Yes
from orchestrator.faces.cli.shown import moment, seconds, size

session_commands = typer.Typer(help="Sessions of all tenants.", no_args_is_help=True)

_Session = Annotated[str, typer.Argument(help="The tenant's name for it.", autocompletion=session_names)]
_Tenant = Annotated[str, typer.Option(help="By name or id.", autocompletion=tenant_names)]
_LIST: Final = (
    Column("SESSION", "session"),
    Column("TENANT", "tenant"),
    Column("STATE", "state"),
    Column("CELLS", "executions", right=True),
    Column("SAVED", "saved_through", right=True),
    Column("VARS", "variables", right=True),
    Column("USED", "used_at", moment),
    Column("CREATED", "created_at", moment),
)
_SHOW: Final = (
    *_LIST,
    Column("KEY", "key"),
    Column("INCARNATION", "incarnation"),
    Column("ENVIRONMENT", "environment"),
    Column("UNTOLD LOSS", "untold_loss"),
    Column("UNTOLD NOTES", "untold_notes"),
)
_SNAPSHOT: Final = (
    Column("SEQUENCE", "sequence", right=True),
    Column("CELL", "execution", right=True),
    Column("CREATED", "created_at", moment),
    Column("NAMES", "names", right=True),
    Column("REFUSED", "refused", right=True),
    Column("STORED", "stored_bytes", size, right=True),
    Column("NEW", "new_bytes", size, right=True),
    Column("PYTHON", "python"),
)
_VARIABLES: Final = (
    Column("NAME", "name"),
    Column("KIND", "kind"),
    Column("TYPE", "type"),
    Column("SIZE", "size_bytes", size, right=True),
)
_EXECUTIONS: Final = (
    Column("CELL", "execution", right=True),
    Column("OUTCOME", "outcome"),
    Column("STARTED", "started_at", moment),
    Column("TOOK", "seconds", seconds, right=True),
    Column("BOUND", "bound"),
    Column("REMOVED", "removed"),
)


@session_commands.command("list")
def list_sessions(
    *,
    tenant: Annotated[str | None, typer.Option(help="By name or id.", autocompletion=tenant_names)] = None,
    state: Annotated[str | None, typer.Option(help="Such as ready or hibernated.")] = None,
    limit: Annotated[int | None, typer.Option(help="So many at most, the oldest.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List sessions in every state, oldest first."""
    with told_to_the_terminal():
        given = {"tenant": tenant, "state": state, "limit": limit}
        tell_list(data_dir, "session.list", given, _LIST, as_json=as_json)


@session_commands.command("show")
def show_session(
    session: _Session, *, tenant: _Tenant = LOCAL_TENANT, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Show a session, and what its next caller will be told."""
    with told_to_the_terminal():
        given = {"session": session, "tenant": tenant}
        tell_one(data_dir, "session.show", given, _SHOW, as_json=as_json)


@session_commands.command("variables")
def list_variables(
    session: _Session, *, tenant: _Tenant = LOCAL_TENANT, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """List what the namespace holds, without waking the session."""
    with told_to_the_terminal():
        given = {"session": session, "tenant": tenant}
        tell_list(data_dir, "session.variables", given, _VARIABLES, as_json=as_json)


@session_commands.command("history")
def history(
    session: _Session, *, tenant: _Tenant = LOCAL_TENANT, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """List the snapshots, newest first."""
    with told_to_the_terminal():
        given = {"session": session, "tenant": tenant}
        tell_list(data_dir, "session.history", given, _SNAPSHOT, as_json=as_json, whole=True)


@session_commands.command("executions")
def executions(
    session: _Session,
    *,
    tenant: _Tenant = LOCAL_TENANT,
    limit: Annotated[int, typer.Option(help="So many, the newest.")] = 200,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the newest cells, newest first."""
    with told_to_the_terminal():
        given = {"session": session, "tenant": tenant, "limit": limit}
        tell_list(data_dir, "session.executions", given, _EXECUTIONS, as_json=as_json)


def _act(name: str, about: str, columns: tuple[Column, ...]) -> None:
    @session_commands.command(name, help=about)
    def act(
        session: _Session, *, tenant: _Tenant = LOCAL_TENANT, data_dir: DataDir = None, as_json: AsJson = False
    ) -> None:
        with told_to_the_terminal():
            given = {"session": session, "tenant": tenant}
            tell_one(data_dir, f"session.{name}", given, columns, as_json=as_json, whole=True)


_NAME: Final = Column("SESSION", "session")
_act("interrupt", "Have the cell end early that runs.", (_NAME, Column("INTERRUPTED", "interrupted")))
_act("hibernate", "Save the session, and remove its sandbox.", (_NAME, Column("HIBERNATED", "hibernated")))
_act("wake", "Have a sandbox hold the session.", (_NAME, Column("AWAKE", "awake")))
_act("snapshot", "Save the session now.", _SNAPSHOT)


@session_commands.command("fork")
def fork(
    session: _Session,
    new: str,
    *,
    sequence: Annotated[int | None, typer.Option(help="Of an earlier snapshot; the newest state by default.")] = None,
    tenant: _Tenant = LOCAL_TENANT,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Begin a session as a copy of another."""
    with told_to_the_terminal():
        given = {"session": session, "tenant": tenant, "new": new, "sequence": sequence}
        tell_one(data_dir, "session.fork", given, (_NAME, *_SNAPSHOT), as_json=as_json, whole=True)


@session_commands.command("rollback")
def roll_back(
    session: _Session,
    sequence: int,
    *,
    tenant: _Tenant = LOCAL_TENANT,
    yes: Yes = False,
    dry_run: DryRun = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Let a session stand at an earlier snapshot. What is there now is saved first, where it can be."""
    plan = f"would let session {session} of {tenant} stand at snapshot {sequence}, and interrupt what runs"
    _destroy(
        data_dir,
        "rollback",
        {"session": session, "tenant": tenant, "sequence": sequence},
        plan,
        yes=yes,
        dry_run=dry_run,
        columns=_SNAPSHOT,
        as_json=as_json,
    )


@session_commands.command("clear")
def clear(
    session: _Session,
    *,
    tenant: _Tenant = LOCAL_TENANT,
    yes: Yes = False,
    dry_run: DryRun = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Empty a session's namespace; its files stay."""
    plan = f"would empty session {session} of {tenant}, and interrupt what runs"
    _destroy(
        data_dir,
        "clear",
        {"session": session, "tenant": tenant},
        plan,
        yes=yes,
        dry_run=dry_run,
        columns=(_NAME, Column("CLEARED", "cleared")),
        as_json=as_json,
    )


@session_commands.command("delete")
def delete(
    session: _Session,
    *,
    tenant: _Tenant = LOCAL_TENANT,
    yes: Yes = False,
    dry_run: DryRun = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """End a session for good, with its snapshots and files."""
    plan = f"would delete session {session} of {tenant} with its snapshots and files, for good"
    _destroy(
        data_dir,
        "delete",
        {"session": session, "tenant": tenant},
        plan,
        yes=yes,
        dry_run=dry_run,
        columns=(_NAME, Column("DELETED", "deleted")),
        as_json=as_json,
    )


def _destroy(
    data_dir: Path | None,
    verb: str,
    given: dict[str, Any],
    plan: str,
    *,
    yes: bool,
    dry_run: bool,
    columns: tuple[Column, ...],
    as_json: bool,
) -> None:
    asked = {"session": given["session"], "tenant": given["tenant"]}
    with told_to_the_terminal():
        tell_act(
            data_dir,
            f"session.{verb}",
            given,
            columns,
            looks=("session.show", asked),
            plan=lambda _: [plan],
            yes=yes,
            dry_run=dry_run,
            as_json=as_json,
        )
