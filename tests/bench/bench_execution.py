"""`x += 1` in a live session, beside what it cannot do without: the two hops, the exec, and the two commits of its row.

Run by `make bench`. The median of each, all in one run.
"""

import asyncio
import socket
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.engine.isolation import read_isolation
from orchestrator.adapters.store.records import open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.app import Orchestrator
from orchestrator.domain.hardening import CHANNEL_MOUNT, Channel, SandboxProfile, container_name, container_spec
from orchestrator.domain.ports import SandboxImage
from orchestrator.provisioning import find_image
from orchestrator.settings import Settings

CALLS = 1_000
MESSAGE = b"x" * 100

# The same two hops with nothing in them: PID 1 hands each message on to a child and the answer back.
ECHO = f"""
import os, socket
host = socket.socket(socket.AF_UNIX); host.connect("{CHANNEL_MOUNT}/echo")
ours, its = socket.socketpair()
if os.fork() == 0:
    while data := its.recv(65536): its.sendall(data)
    os._exit(0)
while data := host.recv(65536):
    ours.sendall(data); host.sendall(ours.recv(65536))
"""


async def microseconds(act: Callable[[], Awaitable[object] | None]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    pending = act()
    if pending is not None:
        await pending
    return (time.perf_counter() - began) * 1e6


class EchoSandbox:
    """A container with the product's spec whose entry point is the echo above."""

    def __init__(self, image: SandboxImage, directory: Path) -> None:
        directory.chmod(0o711)
        self._api = api_client(find_engine())
        listener = socket.socket(socket.AF_UNIX)
        with closing(listener):
            listener.bind(str(directory / "echo"))
            (directory / "echo").chmod(0o666)
            listener.listen(1)
            spec = container_spec(
                installation="bench",
                sandbox_id="bench-echo",
                uid=59_999,
                secret="00" * 32,
                image=image.tag,
                environment=image.environment,
                created=0,
                profile=SandboxProfile(),
                isolation=read_isolation(),
                channel=Channel("unix", str(directory)),
            )
            spec["Entrypoint"] = ["/opt/environment/bin/python", "-S", "-c", ECHO]
            self._id = self._api.create_container_from_config(spec, container_name("bench-echo"))["Id"]  # type: ignore[no-untyped-call]
            self._api.start(self._id)
            listener.settimeout(20)
            self._link = listener.accept()[0]

    def echo(self) -> None:
        self._link.sendall(MESSAGE)
        self._link.recv(65536)

    def close(self) -> None:
        self._link.close()
        self._api.remove_container(self._id, force=True)
        self._api.close()


async def main() -> None:
    image = find_image()
    assert image is not None, "run `make image` first"
    with tempfile.TemporaryDirectory(prefix="so-") as scratch:
        place = Path(scratch)
        (place / "echo").mkdir()
        settings = Settings.load(data_dir=place / "data", runtime_dir=place / "run", channel="unix")
        code = compile("x += 1", "<cell>", "exec")
        with closing(EchoSandbox(image, place / "echo")) as bare:
            async with Orchestrator.open(settings) as o, open_records(place / "r.sqlite3", SystemClock()) as records:
                await o.execute("x = 0", session_id="s")
                session = await records.ensure_session("t", "s", "e")
                session = await records.begin_creating(session.key, session.incarnation) or session
                await records.session_ready(session.key, session.incarnation)

                async def commits() -> None:
                    number = await records.open_execution(session.key, session.incarnation)
                    assert number is not None
                    await records.close_execution(session.key, number, "ok", bound=("x",), removed=(), variable_count=1)

                # One of each in turn: caches and processors are then as cold for the parts as for the whole.
                acts: list[Callable[[], Awaitable[object] | None]] = [
                    bare.echo,
                    lambda: exec(code, {"x": 0}),  # noqa: S102 - what the cell itself costs
                    commits,
                    lambda: o.execute("x += 1", session_id="s"),
                ]
                rows = [[await microseconds(act) for act in acts] for _ in range(CALLS)]
    echo, execution, committing, call = (statistics.median(column) for column in zip(*rows, strict=True))
    floor = echo + execution + committing
    print(f"echo over the same two hops  {echo:8.0f} µs")
    print(f"exec of x += 1               {execution:8.1f} µs")
    print(f"two commits of its row       {committing:8.0f} µs")
    print(f"x += 1 through the library   {call:8.0f} µs   {call / floor:.2f} times their sum (aim: at most 3)")


if __name__ == "__main__":
    asyncio.run(main())
