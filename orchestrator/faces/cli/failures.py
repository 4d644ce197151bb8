"""How a failure reaches the terminal: one sentence, what to do, and an exit code."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import typer

from orchestrator.domain.errors import Code, OrchestratorError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_NOT_FOUND: Final = 3
EXIT_REFUSED: Final = 4
EXIT_UNAVAILABLE: Final = 5
EXIT_INTERRUPTED: Final = 130  # as shells say it of SIGINT

_EXITS: Final[Mapping[Code, int]] = {
    "invalid_request": EXIT_USAGE,
    "not_found": EXIT_NOT_FOUND,
    "deleted": EXIT_NOT_FOUND,
    "forbidden": EXIT_REFUSED,
    "quota": EXIT_REFUSED,
    "owned": EXIT_REFUSED,
    "not_enforced": EXIT_REFUSED,
    "busy": EXIT_UNAVAILABLE,
    "engine_unavailable": EXIT_UNAVAILABLE,
    "sandbox_lost": EXIT_UNAVAILABLE,
    "shutting_down": EXIT_UNAVAILABLE,
    "store_full": EXIT_UNAVAILABLE,
    "store_unusable": EXIT_UNAVAILABLE,
}


def exit_of(code: Code) -> int:
    """The exit code of a command that met that error."""
    return _EXITS.get(code, EXIT_FAILED)


@contextmanager
def told_to_the_terminal() -> Iterator[None]:
    """Print an `OrchestratorError` to standard error and leave with its exit code."""
    try:
        yield
    except OrchestratorError as failure:
        typer.secho(f"error: {failure.message}", fg=typer.colors.RED, err=True)
        if failure.hint:
            typer.echo(failure.hint, err=True)
        raise typer.Exit(exit_of(failure.code)) from failure
