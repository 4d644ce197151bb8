"""`orchestrator owner`, which relays start for themselves, and the help line of `orchestrator mcp`."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.faces.cli.failures import told_to_the_terminal

DataDir = Annotated[
    Path | None, typer.Option(metavar="DIRECTORY", help="Where sessions are kept.", show_default="the user's own")
]


def owner(
    data_dir: DataDir = None,
    report_descriptor: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Own a data directory and serve the relays of `orchestrator mcp` until the last one has left."""
    # Imported here: no other command needs the server, and its imports take most of a second.
    from orchestrator.app import Orchestrator  # noqa: PLC0415
    from orchestrator.owner_process import run_owner  # noqa: PLC0415
    from orchestrator.settings import Settings  # noqa: PLC0415

    with told_to_the_terminal():
        run_owner(
            lambda: Settings.load(data_dir=data_dir),
            lambda settings: Orchestrator.open(settings, kind="owner"),
            report_descriptor=report_descriptor,
        )


def mcp(data_dir: DataDir = None) -> None:
    """Speak MCP over standard input and output, for MCP clients that start their servers themselves."""
    # `__main__` takes the short way before this module is imported; this is how the command gets into the help.
    from orchestrator.faces.relay import main  # noqa: PLC0415

    del data_dir
    main()
