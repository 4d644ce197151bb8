"""The console command `orchestrator`, also `python -m orchestrator`."""

import sys


def main() -> None:
    """Dispatch; the relay of `orchestrator mcp` starts in milliseconds because nothing heavy is imported for it."""
    if sys.argv[1:2] == ["mcp"]:
        from orchestrator.faces.relay import main as relay  # noqa: PLC0415

        relay()
        return
    from orchestrator.faces.cli import app  # noqa: PLC0415

    app(prog_name="orchestrator")


if __name__ == "__main__":
    main()
