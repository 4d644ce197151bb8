"""Where the demo lives: directories of its own, which go with it."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from orchestrator import places
from orchestrator.domain.errors import OrchestratorError

if TYPE_CHECKING:
    from orchestrator.settings import Settings

_NAME = "demo"


def check_output(output: Path) -> None:
    """Before anything is started: the figures come late in the tour."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as failure:
        raise OrchestratorError(
            f"The directory {output} for the figures cannot be written to: {failure.strerror}.",
            hint="Remove it (with sudo where an earlier demo ran through sudo), or name another one with --output.",
        ) from failure


@contextmanager
def installation() -> "Iterator[tuple[Settings, Callable[[], None]]]":
    """A data directory and a runtime directory of the demo's own, gone at its end.

    The data directory can be kept: its records are all by which anybody finds the containers that it names.
    """
    from orchestrator.settings import Settings  # noqa: PLC0415 - pydantic is dear

    runtime = places.runtime_directory()
    try:
        places.private_directory(runtime)
    except places.PlaceError as failure:
        raise OrchestratorError(failure.message, hint=failure.hint) from failure
    data = tempfile.mkdtemp(prefix="orchestrator-demo-")
    # Beside the usual place and not in it: what lies there at the end is the demo's own.
    own = f"{runtime}/{_NAME}-{os.getpid()}"
    with ExitStack() as directories:
        directories.callback(shutil.rmtree, own, ignore_errors=True)
        records = directories.enter_context(ExitStack())
        records.callback(shutil.rmtree, data, ignore_errors=True)

        def keep_records() -> None:
            records.pop_all()
            typer.echo(
                f"To remove what may be left: {sys.executable} -m orchestrator owner --data-dir {data}", err=True
            )

        yield Settings.load(data_dir=Path(data), runtime_dir=Path(own)), keep_records
