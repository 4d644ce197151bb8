"""`orchestrator db`: all that is stored, checked, measured, made smaller, backed up and put back."""

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from orchestrator.faces.cli.failures import EXIT_FAILED, told_to_the_terminal
from orchestrator.faces.cli.orders import tell_one, tell_progress
from orchestrator.faces.cli.output import AsJson, Column, DataDir, DryRun, Yes, confirmed, show_one
from orchestrator.faces.cli.reach import Office, at_office
from orchestrator.faces.cli.shown import moment, plain, size

if TYPE_CHECKING:
    from orchestrator.offline import BackupSeen

db_commands = typer.Typer(help="All that is stored: check, measure, shrink, back up, restore.", no_args_is_help=True)

_NAMED: Final = 20  # sessions in a plan
_CHECKED: Final = (Column("SESSIONS", "sessions"), Column("SNAPSHOTS", "snapshots"), Column("PIECES", "pieces"))
_SIZES: Final = (
    Column("SCHEMA", "schema"),
    Column("RECORDS", "records_bytes", size),
    Column("LOG", "log_bytes", size),
    Column("FREE IN RECORDS", "free_bytes", size),
    Column("SESSIONS' FILES", "files"),
    Column("THEIR SIZE", "files_bytes", size),
)
_FREED: Final = (
    Column("RECORDS GAVE BACK", "records_bytes", size),
    Column("FILES GAVE BACK", "files_bytes", size),
    Column("RECORDS IN USE", "records_in_use"),
)
_MADE: Final = (Column("BACKUP", "target"), Column("SESSIONS", "sessions"))
_RESTORED: Final = (
    Column("RESTORED", "data_dir"),
    Column("AS OF", "created_at", moment),
    Column("OLD ONE", "set_aside"),
    Column("INSTALLATION", "installation"),
    Column("IS THE SAME", "is_same_installation"),
)
_MIGRATED: Final = (Column("FROM SCHEMA", "before"), Column("TO SCHEMA", "after"), Column("COPY OF BEFORE", "copy"))


@db_commands.command("check")
def check(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Read and verify all that is stored; exit code 1 where something is wrong."""

    async def work(office: Office) -> Mapping[str, Any]:
        found: Mapping[str, Any] = {}
        async with aclosing(office.answers("db.check", {})) as answers:
            async for answer in answers:
                if isinstance(answer, Mapping):
                    found = answer
        return found

    with told_to_the_terminal():
        found = at_office(data_dir, work, whole=True)
        show_one(found, _CHECKED, as_json=as_json)
        if not as_json:
            for problem in found["problems"]:
                typer.echo(f"wrong: {plain(problem)}")
            if not found["problems"]:
                typer.echo("All is as it should be.")
        if found["problems"]:
            raise typer.Exit(EXIT_FAILED)


@db_commands.command("stats")
def stats(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Say what takes how much."""

    async def work(office: Office) -> None:
        async with aclosing(office.answers("db.stats", {})) as answers:
            async for answer in answers:
                if isinstance(answer, Mapping):
                    show_one(answer, _SIZES, as_json=as_json)
                    if not as_json:
                        _show_parts(answer)

    with told_to_the_terminal():
        at_office(data_dir, work, whole=True)


def _show_parts(found: Mapping[str, Any]) -> None:
    for table in found["tables"]:
        typer.echo(f"  table {table['table'].ljust(24)} {table['rows']:>10} rows  {size(table['bytes']):>9}")
    for file in found["largest"]:
        name = "of no session" if file["session"] is None else f"{plain(file['session'])} of {plain(file['tenant'])}"
        typer.echo(f"  file  {file['key']}  {size(file['bytes']):>9}  {name}")


@db_commands.command("vacuum")
def vacuum(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Give back to the disk what nothing needs, beside calls and without holding any up."""
    with told_to_the_terminal():
        tell_one(data_dir, "db.vacuum", {}, _FREED, as_json=as_json, whole=True)


@db_commands.command("backup")
def backup(
    target: Annotated[Path, typer.Argument(help="The directory to make; it must not be there yet.")],
    *,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a backup while sessions go on. It holds all that users have stored, and is not encrypted."""

    async def work(office: Office) -> None:
        async with aclosing(office.answers("db.backup", {"target": str(target.absolute())})) as answers:
            async for answer in answers:
                if isinstance(answer, Mapping):
                    show_one(answer, _MADE, as_json=as_json)
                elif not isinstance(answer, bytes):
                    tell_progress(answer)

    with told_to_the_terminal():
        at_office(data_dir, work, whole=True)


@db_commands.command("restore")
def restore(
    source: Annotated[Path, typer.Argument(help="The directory of the backup.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Also where the data directory holds something.")] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Go on as the installation it was made of, which is gone for good.")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of the data directory, which nobody may own now. The old one is set aside whole."""
    import asyncio  # noqa: PLC0415 - with the rest that only this command needs

    from orchestrator.offline import look_at_backup, put_back  # noqa: PLC0415
    from orchestrator.settings import Settings  # noqa: PLC0415

    with told_to_the_terminal():
        target = Settings.load(data_dir=data_dir).data_dir
        seen = look_at_backup(source, target)
        if not asyncio.run(confirmed(_plan(seen, source, target), "Do it?", yes=yes, dry_run=dry_run)):
            return
        done = put_back(source, target, force=force, take_over=take_over)
        lost = seen.setback
        said = {
            "data_dir": str(target),
            "created_at": seen.created_at.isoformat(),
            "set_aside": None if done.set_aside is None else str(done.set_aside),
            "installation": done.installation,
            "is_same_installation": done.is_same_installation,
            "set_back": None if lost is None else asdict(lost),
        }
        show_one(said, _RESTORED, as_json=as_json)


def _plan(seen: "BackupSeen", source: Path, target: Path) -> list[str]:
    lines = [f"would let {target} hold the backup {source} of {moment(seen.created_at.isoformat())}"]
    lost = seen.setback
    if lost is None:
        return [*lines, "  what was done there since cannot be told: its records, or the backup's, cannot be compared"]
    for one in lost.sessions[:_NAMED]:
        to = "is not in it" if one.after is None else f"goes back to execution {one.after}"
        lines.append(f"  session {one.session_id} of {one.tenant}, at execution {one.before}, {to}")
    if lost.count > _NAMED:
        lines.append(f"  and {lost.count - _NAMED} more")
    if lost.tenants or lost.keys:
        lines.append(f"  tenants that came since: {', '.join(lost.tenants) or 'none'}; API keys: {lost.keys}")
    return lines


@db_commands.command("migrate")
def migrate(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Bring the records to this version's schema, with a copy of them made before. Every owner does so at its start."""
    from orchestrator.offline import migrate as migrate_records  # noqa: PLC0415 - imports of a server
    from orchestrator.settings import Settings  # noqa: PLC0415

    with told_to_the_terminal():
        done = migrate_records(Settings.load(data_dir=data_dir).data_dir)
        copy = None if done.copy is None else str(done.copy)
        show_one({"before": done.before, "after": done.after, "copy": copy}, _MIGRATED, as_json=as_json)
