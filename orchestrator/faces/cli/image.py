"""`orchestrator image`: build the image that sandboxes start from, and see to those that there are."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from orchestrator.faces.cli.failures import EXIT_FAILED, told_to_the_terminal
from orchestrator.faces.cli.output import AsJson, Column, DryRun, Listing, Yes, confirmed
from orchestrator.faces.cli.shown import moment, size

if TYPE_CHECKING:
    from orchestrator.provisioning import HeldImage

image_commands = typer.Typer(help="Build the image that sandboxes start from.", no_args_is_help=True)

_LIST: Final = (
    Column("IMAGE", "tag"),
    Column("KIND", "kind"),
    Column("PYTHON", "python"),
    Column("ENVIRONMENT", "environment"),
    Column("AGENT", "agent"),
    Column("SIZE", "bytes", size, right=True),
    Column("CONTAINERS", "containers", right=True),
    Column("CREATED", "created_at", moment),
)
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
    from orchestrator import provisioning  # noqa: PLC0415 - the engine's library, which no help needs

    began = time.monotonic()

    def report(line: str) -> None:
        typer.echo(f"image {time.monotonic() - began:6.1f} s  {line}")

    with told_to_the_terminal():
        made = provisioning.build_image(report, chosen_base=base, requirements=requirements, rebuild=rebuild)
    report(f"{made.tag}: Python {made.python}, environment {made.environment}, agent {made.agent}")


@image_commands.command()
def show(*, base: _Base = None, requirements: _Requirements = None) -> None:
    """Print the tag of the image that sandboxes would start from; exit code 1 where it is not built."""
    from orchestrator import provisioning  # noqa: PLC0415 - the engine's library, which no help needs

    with told_to_the_terminal():
        found = provisioning.find_image(chosen_base=base, requirements=requirements)
    if found is None:
        typer.echo("The sandbox image is not built. Run `orchestrator image build`.", err=True)
        raise typer.Exit(EXIT_FAILED)
    typer.echo(found.tag)


@image_commands.command("list")
def list_images(*, as_json: AsJson = False) -> None:
    """List the product's images on the engine, newest first; sizes count what they share."""
    from orchestrator import provisioning  # noqa: PLC0415 - the engine's library, which no help needs

    with told_to_the_terminal():
        listing = Listing(_LIST, as_json=as_json)
        for image in provisioning.list_images():
            listing.add(_line(image))
        listing.close()


@image_commands.command()
def prune(*, yes: Yes = False, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Remove sandbox images with an earlier agent that no container uses. A session that needs one gets it anew."""
    from orchestrator import provisioning  # noqa: PLC0415 - the engine's library, which no help needs

    def chosen(images: list["HeldImage"]) -> bool:
        plan = [f"would remove {image.tag}, agent {image.agent or '-'}" for image in images] or [
            "nothing is superfluous"
        ]
        return asyncio.run(confirmed(plan, "Remove them?", yes=yes or not images, dry_run=dry_run))

    with told_to_the_terminal():
        listing = Listing((_LIST[0], Column("REMOVED", "removed")), as_json=as_json)
        for image, removed in provisioning.prune_images(chosen):
            listing.add({**_line(image), "removed": removed})
        listing.close()


def _line(image: "HeldImage") -> Mapping[str, Any]:
    return {**asdict(image), "created_at": image.created_at.isoformat()}
