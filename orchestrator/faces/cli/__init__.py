"""The command line. Each module adds its commands to `app`; none of them decides anything."""

import typer

from orchestrator.faces.cli.audit import audit_commands
from orchestrator.faces.cli.capsules import add_to, trust_commands
from orchestrator.faces.cli.config import config_commands
from orchestrator.faces.cli.containers import container_commands
from orchestrator.faces.cli.db import db_commands
from orchestrator.faces.cli.demo import demo
from orchestrator.faces.cli.doctor import doctor
from orchestrator.faces.cli.engine import engine_commands
from orchestrator.faces.cli.image import image_commands
from orchestrator.faces.cli.keys import key_commands
from orchestrator.faces.cli.owner import mcp, owner
from orchestrator.faces.cli.purge import purge
from orchestrator.faces.cli.repl import repl
from orchestrator.faces.cli.run import run
from orchestrator.faces.cli.serve import serve
from orchestrator.faces.cli.sessions import session_commands
from orchestrator.faces.cli.status import reap, status
from orchestrator.faces.cli.tenants import tenant_commands

app = typer.Typer(
    name="orchestrator",
    help="Every Python session in its own locked-down container.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command()(demo)
app.command()(doctor)
app.command()(mcp)
app.command()(serve)
app.command(hidden=True)(owner)
app.command()(status)
app.command()(run)
app.command()(repl)
app.command()(purge)
app.command()(reap)
add_to(session_commands)
app.add_typer(session_commands, name="session")
app.add_typer(container_commands, name="container")
app.add_typer(trust_commands, name="trust")
app.add_typer(db_commands, name="db")
app.add_typer(config_commands, name="config")
app.add_typer(engine_commands, name="engine")
app.add_typer(image_commands, name="image")
app.add_typer(tenant_commands, name="tenant")
app.add_typer(key_commands, name="key")
app.add_typer(audit_commands, name="audit")

__all__ = ["app"]
