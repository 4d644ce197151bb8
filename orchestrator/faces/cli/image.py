"""`orchestrator image`: build the image that sandboxes start from."""

import time
from pathlib import Path
from typing import Annotated

import typer

from orchestrator import provisioning
from orchestrator.faces.cli.failures import EXIT_FAILED, told_to_the_terminal

image_commands = typer.Typer(help="Build the image that sandboxes start from.", no_args_is_help=True)

_Base = Annotated[
    str | None, typer.Option("--from", metavar="IMAGE", help="Build on this image (Python 3.11+, glibc) of yours.")
]
_Requirements = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Install this requirements file instead of the default stack.")
]


@image_commands.command()
def build(
    *,
    base: _Base = None,
    requirements: _Requirements = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the environment anew from fresh packages.")] = False,
) -> None:
    """Build the sandbox image; takes minutes once, and a second where nothing changed."""
    began = time.monotonic()

    def report(line: str) -> None:
        typer.echo(f"image {time.monotonic() - began:6.1f} s  {line}")

    with told_to_the_terminal():
        made = provisioning.build_image(report, chosen_base=base, requirements=requirements, rebuild=rebuild)
    report(f"{made.tag}: Python {made.python}, environment {made.environment}, agent {made.agent}")


@image_commands.command()
def show(*, base: _Base = None, requirements: _Requirements = None) -> None:
    """Print the tag of the image that sandboxes would start from; exit code 1 where it is not built."""
    with told_to_the_terminal():
        found = provisioning.find_image(chosen_base=base, requirements=requirements)
    if found is None:
        typer.echo("The sandbox image is not built. Run `orchestrator image build`.", err=True)
        raise typer.Exit(EXIT_FAILED)
    typer.echo(found.tag)
