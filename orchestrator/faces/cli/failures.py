"""How a failure reaches the terminal: one sentence, what to do, and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from orchestrator.domain.errors import OrchestratorError

EXIT_FAILED = 1


@contextmanager
def told_to_the_terminal() -> Iterator[None]:
    """Print an `OrchestratorError` to standard error and leave with exit code 1."""
    try:
        yield
    except OrchestratorError as failure:
        typer.secho(f"error: {failure.message}", fg=typer.colors.RED, err=True)
        if failure.hint:
            typer.echo(failure.hint, err=True)
        raise typer.Exit(EXIT_FAILED) from failure
