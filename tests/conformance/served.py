"""The real site, with what the official suite asks for installed beside our tools, and a key added to its requests.

As a program: serves at the port that is given, until its standard input ends.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from tests.conformance.fixtures import furnish
from tests.web.harness import KEY, serving


def with_a_key(app: ASGIApp) -> ASGIApp:
    """The suite sends no key."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"] = [*scope["headers"], (b"authorization", f"Bearer {KEY}".encode())]
        await app(scope, receive, send)

    return wrapped


async def main() -> None:
    """Serve."""
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder), port=int(sys.argv[1]), furnish=furnish, wrap=with_a_key) as place:
            print(place.url, flush=True)  # noqa: T201 - for whoever waits for it
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
