"""`orchestrator purge`: takes the installation off this machine."""

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.faces.cli.failures import EXIT_FAILED, told_to_the_terminal
from orchestrator.faces.cli.output import AsJson, DataDir, DryRun, Yes, confirmed
from orchestrator.faces.cli.shown import plain, size

if TYPE_CHECKING:
    from orchestrator.purging import Thing


def purge(
    *,
    images: Annotated[bool, typer.Option("--images", help="Images, too, which other installations may share.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Remove this installation's containers and all that it has stored, for good. No server may run.

    Exit code 1 where something had to stay, such as files of others in the data directory.
    """
    from orchestrator.purging import planned  # noqa: PLC0415 - imports of a server, which no help needs
    from orchestrator.purging import purge as remove  # noqa: PLC0415
    from orchestrator.settings import Settings  # noqa: PLC0415

    async def work() -> list["Thing"]:
        settings = Settings.load(data_dir=data_dir)
        things = await planned(settings, images=images)
        plan = [_told(thing) for thing in things]
        if as_json and dry_run:
            for thing in things:
                typer.echo(json.dumps(asdict(thing)))
        question = f"Remove all of that, and {settings.data_dir} with every session in it?"
        if not await confirmed(plan, question, yes=yes, dry_run=dry_run):
            return []
        return await remove(settings, things)

    with told_to_the_terminal():
        left = asyncio.run(work())
        for thing in left:
            typer.echo(json.dumps(asdict(thing)) if as_json else f"left: {plain(thing.name)}")
        if left:
            raise typer.Exit(EXIT_FAILED)


def _told(thing: "Thing") -> str:
    if thing.what == "left":
        return f"would leave {thing.name}, which is not ours"
    return f"would remove the {thing.what} {thing.name}" + ("" if thing.bytes is None else f", {size(thing.bytes)}")
