"""A cold session until its agent's hello, beside a bare create and start of the same image and spec.

Run by `make bench`. The two take turns; the first result is printed beside them, and what a start of the
orchestrator takes that has to ask what the engine enforces, and one that need not.
"""

import asyncio
import secrets
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

import docker

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.adapters.engine.isolation import read_isolation
from orchestrator.adapters.store.records import open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.app import Orchestrator
from orchestrator.domain.hardening import Channel, SandboxProfile, container_name, container_spec
from orchestrator.domain.model import CellOrder, SandboxState
from orchestrator.domain.ports import Engine, Records, SandboxImage
from orchestrator.provisioning import build_engine
from orchestrator.settings import Settings

ROUNDS = 15
STARTS = 6


def bare(api: docker.APIClient, image: SandboxImage, directory: Path) -> float:
    """Milliseconds of a create and a start by the SDK."""
    sandbox = secrets.token_hex(16)
    spec = container_spec(
        installation="bench",
        sandbox_id=sandbox,
        uid=59_998,
        secret="00" * 32,
        image=image.tag,
        environment=image.environment,
        created=0,
        profile=SandboxProfile(),
        isolation=read_isolation(),
        channel=Channel("unix", str(directory)),
    )
    began = time.perf_counter()
    container = api.create_container_from_config(spec, container_name(sandbox))["Id"]  # type: ignore[no-untyped-call]
    api.start(container)
    took = time.perf_counter() - began
    api.remove_container(container, force=True)
    return took * 1000


async def ours(engine: Engine, records: Records, image: SandboxImage) -> tuple[float, float]:
    """Milliseconds until the hello, and until the first result."""
    began = time.perf_counter()
    record = await records.open_sandbox(image.tag)
    _, agent = await engine.launch(record, image)
    hello = time.perf_counter() - began
    await agent.claim("bench", 1)
    await agent.execute(CellOrder(1, "x = 1", 10, 1, 1000, 1000))
    result = time.perf_counter() - began
    await agent.close()
    await records.sandbox_ending(record.id, SandboxState.DESTROYING)
    await engine.destroy(record.id)
    await records.close_sandbox(record.id)
    return hello * 1000, result * 1000


async def starts(place: Path) -> list[tuple[float, float]]:
    """Milliseconds of opening a data directory, and from there to the first result: the first time, and the next."""
    settings = Settings.load(data_dir=place / "again", runtime_dir=place / "again run", channel="unix")
    taken = []
    for _ in range(STARTS):
        began = time.perf_counter()
        async with Orchestrator.open(settings) as orchestrator:
            opened = time.perf_counter()
            await orchestrator.execute("x = 1")
            taken.append(((opened - began) * 1000, (time.perf_counter() - opened) * 1000))
    return taken


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="so-") as scratch:
        place = Path(scratch)
        settings = Settings.load(data_dir=place / "data", runtime_dir=place / "run", channel="unix")
        clock = SystemClock()
        with closing(api_client(find_engine())) as api:
            async with open_records(place / "r.sqlite3", clock) as records:
                engine = build_engine(settings, records, clock)
                image = await engine.prepare()
                rows = [
                    (await asyncio.to_thread(bare, api, image, place), *await ours(engine, records, image))
                    for _ in range(ROUNDS)
                ]
                await engine.close()
        first, *later = await starts(place)
    create, hello, result = (statistics.median(column) for column in zip(*rows, strict=True))
    ratio = statistics.median(row[1] / row[0] for row in rows)
    print(f"bare create and start        {create:8.0f} ms")
    print(f"cold session until hello     {hello:8.0f} ms   {ratio:.2f} times (aim: at most 1.25)")
    print(f"cold session, first result   {result:8.0f} ms   {result / create:.2f} times")
    again = [statistics.median(column) for column in zip(*later, strict=True)]
    print(f"first start, first result    {first[0]:8.0f} ms + {first[1]:.0f} ms: what the engine enforces is asked")
    print(f"later start, first result    {again[0]:8.0f} ms + {again[1]:.0f} ms: the answer was kept")


if __name__ == "__main__":
    asyncio.run(main())
