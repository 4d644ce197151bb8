"""The short way from a command to its order: ask, and print what is answered."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import typer

from orchestrator.domain.orders import Progress
from orchestrator.faces.cli.output import Column, Listing, confirmed, show_one
from orchestrator.faces.cli.reach import Office, at_office, lines_of

Line = Mapping[str, Any]


def tell_list(
    data_dir: Path | None, order: str, given: Line, columns: Sequence[Column], *, as_json: bool, whole: bool = False
) -> None:
    """Print every object of the answer as it comes; progress goes to standard error."""
    listing = Listing(columns, as_json=as_json)

    async def work(office: Office) -> None:
        async with aclosing(office.answers(order, given)) as answers:
            async for answer in answers:
                if isinstance(answer, Mapping):
                    listing.add(answer)
                elif isinstance(answer, Progress):
                    tell_progress(answer)
        listing.close()

    at_office(data_dir, work, whole=whole)


def tell_one(
    data_dir: Path | None, order: str, given: Line, columns: Sequence[Column], *, as_json: bool, whole: bool = False
) -> None:
    """Print the one object that the order answers with."""

    async def work(office: Office) -> None:
        for line in await lines_of(office, order, given):
            show_one(line, columns, as_json=as_json)

    at_office(data_dir, work, whole=whole)


def tell_progress(progress: Progress) -> None:
    """A line on standard error."""
    total = "" if progress.total is None else f" of {progress.total}"
    typer.echo(f"{progress.what}: {progress.done}{total} {progress.unit}", err=True)


def tell_act(
    data_dir: Path | None,
    order: str,
    given: Line,
    columns: Sequence[Column],
    *,
    looks: tuple[str, Line],
    plan: Callable[[Sequence[Line]], Sequence[str]],
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Carry out what destroys something: look at what it is about, which must be there, show the plan, ask."""

    async def work(office: Office) -> None:
        found = await lines_of(office, *looks)
        if not await confirmed(plan(found), "Do it?", yes=yes, dry_run=dry_run):
            return
        async with aclosing(office.answers(order, given)) as answers:
            async for answer in answers:
                if isinstance(answer, Mapping):
                    show_one(answer, columns, as_json=as_json)
                elif isinstance(answer, Progress):
                    tell_progress(answer)

    at_office(data_dir, work, whole=True)
