"""`orchestrator serve`: sessions for a team, over HTTP."""

import typer

from orchestrator.faces.cli.failures import told_to_the_terminal
from orchestrator.faces.cli.owner import DataDir


def serve(data_dir: DataDir = None) -> None:
    """Serve MCP over streamable HTTP to tenants with keys, until a signal; clients of `orchestrator mcp` join in."""
    # Imported here: no other command needs the server, and its imports take most of a second.
    from orchestrator.app import Orchestrator  # noqa: PLC0415
    from orchestrator.serve_process import run_server  # noqa: PLC0415
    from orchestrator.settings import Settings  # noqa: PLC0415

    with told_to_the_terminal():
        run_server(
            lambda: Settings.load(data_dir=data_dir),
            lambda settings: Orchestrator.open(settings, kind="server"),
            started=lambda address: typer.echo(f"serving at {address}"),
        )
