"""`orchestrator container`: the installation's containers, whose they are, and the end of one."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from orchestrator.faces.cli.failures import told_to_the_terminal
from orchestrator.faces.cli.orders import tell_act, tell_list, tell_one
from orchestrator.faces.cli.output import AsJson, Column, DataDir, DryRun, Yes
from orchestrator.faces.cli.shown import moment

container_commands = typer.Typer(help="Containers of this installation.", no_args_is_help=True)

_SHORT: Final = 12  # characters of an id
_Container = Annotated[str, typer.Argument(help="The beginning of its sandbox's or its own id.")]
_LIST: Final = (
    Column("SANDBOX", "sandbox", lambda name: str(name)[:_SHORT]),
    Column("STATE", "state"),
    Column("RUNNING", "running"),
    Column("SESSION", "session"),
    Column("TENANT", "tenant"),
    Column("CREATED", "created_at", moment),
)
_ONE: Final = (
    Column("SANDBOX", "sandbox"),
    Column("CONTAINER", "container"),
    *_LIST[1:],
    Column("KEY", "key"),
    Column("INCARNATION", "incarnation"),
    Column("IMAGE", "image"),
    Column("UID", "uid"),
)


@container_commands.command("list")
def list_containers(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List them. Without a server only the records are looked at, and nothing is woken or ended."""
    with told_to_the_terminal():
        tell_list(data_dir, "container.list", {}, _LIST, as_json=as_json)


@container_commands.command("inspect")
def inspect_container(container: _Container, *, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show one."""
    with told_to_the_terminal():
        tell_one(data_dir, "container.inspect", {"container": container}, _ONE, as_json=as_json)


@container_commands.command("kill")
def kill_container(
    container: _Container,
    *,
    yes: Yes = False,
    dry_run: DryRun = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Remove one at once, with what its session has not saved; the session goes on from its last snapshot."""

    def plan(found: Sequence[Mapping[str, Any]]) -> list[str]:
        whose = [f" of session {one['session']}, tenant {one['tenant']}" if one["session"] else "" for one in found]
        return [
            f"would remove the container of sandbox {one['sandbox']}{of}, with what was not saved"
            for one, of in zip(found, whose, strict=True)
        ]

    with told_to_the_terminal():
        tell_act(
            data_dir,
            "container.kill",
            {"container": container},
            (Column("SANDBOX", "sandbox"), Column("SESSION", "session"), Column("REMOVED", "removed")),
            looks=("container.inspect", {"container": container}),
            plan=plan,
            yes=yes,
            dry_run=dry_run,
            as_json=as_json,
        )
