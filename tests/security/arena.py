"""Where hostile cells run: beside a bystander of another tenant; and what must hold after each of them.

Both sessions have the same name, in one real orchestrator on a real engine, as users get it.
"""

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.hardening import LABEL_INSTALLATION
from orchestrator.domain.model import ExecutionResult
from orchestrator.provisioning import CHANNELS_NAME
from orchestrator.settings import Settings
from tests import leaks
from tests.docker.conftest import records_left
from tests.pace import paced

ATTACK = Path(__file__).parents[2] / "sandbox-image" / "attack"
NUMBERS = json.loads((ATTACK / "system_calls.json").read_text("utf-8"))
PRELUDE = f"NUMBERS = {NUMBERS!r}\n{(ATTACK / 'prelude.py').read_text('utf-8')}"
CLEAN = """
import os, subprocess
os.chmod('/workspace', 0o700)
subprocess.run(['chmod', '-R', 'u+rwx', '/workspace'], stderr=subprocess.DEVNULL)
subprocess.run('rm -rf /workspace/..?* /workspace/.[!.]* /workspace/* /tmp/* /dev/shm/*', shell=True)
os.listdir('/workspace'), os.listdir('/dev/shm')
"""
MIB = 1024 * 1024
SESSION = "s"
ATTACKER, BYSTANDER = "attacker", "bystander"
SECRET = "a bystander's, of whom nobody knows"  # noqa: S105 - what nobody else may read
CALL_SECONDS = 10.0  # that a bystander's call may take, and thus all that an attack may cost it
OWNER_SECONDS = 5.0  # that a question to the orchestrator may take which no sandbox answers
MOST_MEMORY = 128 * MIB  # that the owner may grow by under one cell: some full frames and a manifest
MOST_DISK = 384 * MIB  # of the data directory: what one snapshot may be with the limits below, and its history
SETTLED_PROCESSES = 4  # supervisor, zygote, worker, savepoint
SETTLING_SECONDS = 20.0  # in which what saves, is rehearsed or was killed has gone
_PAUSE = 0.05  # seconds between two calls of the bystander


@dataclass
class Latencies:
    """In seconds, of one cell: the bystander's calls beside it and after it, and the orchestrator's own answer."""

    beside: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    owner: list[float] = field(default_factory=list)


class Arena:
    """One orchestrator; `latencies` are of the cell that ran last."""

    def __init__(self, orchestrator: Orchestrator, settings: Settings) -> None:
        self.orchestrator = orchestrator
        self.settings = settings
        self.latencies = Latencies()
        self.fresh = True  # the attacker's namespace lacks what hostile cells use
        self._memory_before = 0
        self.installation, _ = records_left(settings.data_dir / RECORDS_NAME)

    async def begin(self) -> None:
        """Both sessions stand, and only the bystander's holds anything."""
        await self.bystander(f"x, secret = 41, {SECRET!r}\nopen('secret', 'w').write(secret)")
        await self.run("6 * 7")

    async def run(self, code: str, *, limit: float = 20.0) -> ExecutionResult:
        """A cell of the attacker's."""
        return await self.orchestrator.sessions.execute(code, session_id=SESSION, tenant=ATTACKER, timeout=limit)

    async def reset(self) -> None:
        """Nothing of the attacker's is left that a cell could have made; what hostile cells use is there."""
        await self.orchestrator.sessions.clear(SESSION, tenant=ATTACKER)
        assert await self.value(CLEAN) == "([], [])"
        await self.value(PRELUDE)
        self.fresh = False

    async def value(self, code: str) -> str | None:
        """Of a cell of the attacker's that has to succeed."""
        result = await self.run(code)
        assert result.error is None, result.error
        return result.value

    async def bystander(self, code: str) -> str | None:
        """The value of a cell of somebody else's, which has to succeed within its call's bound."""
        async with asyncio.timeout(paced(CALL_SECONDS)):
            result = await self.orchestrator.sessions.execute(
                code, session_id=SESSION, tenant=BYSTANDER, timeout=paced(CALL_SECONDS)
            )
        assert result.error is None, result.error
        assert not [note for note in result.notes if "ost:" in note], result.notes
        return result.value

    @asynccontextmanager
    async def under_attack(self) -> AsyncIterator[None]:
        """Have the bystander work beside a hostile cell; afterwards nothing may be worse than before."""
        self.latencies = Latencies()
        self._memory_before = forget_peak()
        working = asyncio.create_task(self._work(), name="the bystander works")
        try:
            yield
        finally:
            working.cancel()
            await asyncio.wait([working])
        if not working.cancelled():
            working.result()
        await self.unharmed()

    async def _work(self) -> None:
        while True:
            self.latencies.beside.append(await self._asked())
            await asyncio.sleep(_PAUSE)

    async def _asked(self) -> float:
        began = time.monotonic()
        assert await self.bystander("x") == "41"
        return time.monotonic() - began

    async def unharmed(self) -> None:
        """What must hold after each hostile cell."""
        began = time.monotonic()
        async with asyncio.timeout(paced(OWNER_SECONDS)):
            listed = await self.orchestrator.sessions.list_sessions(tenant=BYSTANDER)
        self.latencies.owner.append(time.monotonic() - began)
        assert [session.session_id for session in listed] == [SESSION]
        self.latencies.after.append(await self._asked())
        grown = peak_memory() - self._memory_before
        assert grown < MOST_MEMORY, f"the owner has grown by {grown:,} bytes"
        stored = sum(path.stat().st_size for path in self.settings.data_dir.rglob("*") if path.is_file())
        assert stored < MOST_DISK, f"the data directory has {stored:,} bytes"
        await self._nothing_left()

    async def _nothing_left(self) -> None:
        # What lives on in the session that made it may: so far it has to settle, and then it has to go with it.
        if await self._settled(1.0):
            await self.orchestrator.sessions.clear(SESSION, tenant=ATTACKER)
            self.fresh = True
            left = await self._settled(paced(SETTLING_SECONDS))
            assert not left, left

    async def _settled(self, seconds: float) -> list[str]:
        left: list[str] = []
        for _ in range(int(seconds / 0.1)):
            if not (left := self._left()):
                return []
            await asyncio.sleep(0.1)
        return left

    def _left(self) -> list[str]:
        with closing(api_client(find_engine())) as api:
            found = api.containers(all=True, filters={"label": [f"{LABEL_INSTALLATION}={self.installation}"]})
            inits = [int(api.inspect_container(row["Id"])["State"]["Pid"]) for row in found]
        channels = list((self.settings.runtime_dir / CHANNELS_NAME).iterdir())
        processes = {init: processes_beside(init) for init in inits}
        return [
            *(f"{len(found)} containers for {2} sessions" for _ in range(len(found) > 2)),
            *(f"{len(channels)} directories of channels" for _ in range(len(channels) > len(found))),
            *(f"{pids} in a sandbox" for pids in processes.values() if len(pids) > SETTLED_PROCESSES),
        ]

    async def end(self) -> None:
        """Both sessions go, with all that they had."""
        for tenant in (ATTACKER, BYSTANDER):
            try:
                await self.orchestrator.sessions.delete(SESSION, tenant=tenant)
            except OrchestratorError:
                continue


def processes_beside(init: int) -> list[str]:
    """All that live in the sandbox of that PID 1, by its namespace, as the host sees them."""
    try:
        namespace = Path(f"/proc/{init}/ns/pid").readlink()
    except OSError:
        return []
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if (process / "ns/pid").readlink() == namespace:
                found.append((process / "comm").read_text("utf-8", "replace").strip())
    return found


def forget_peak() -> int:
    """Let the most memory that this process has had be what it has; in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return peak_memory()


def peak_memory() -> int:
    """The most that this process has had since, in bytes."""
    lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024


@asynccontextmanager
async def opened_arena(folder: Path) -> AsyncIterator[Arena]:
    """An arena, and nothing of it afterwards."""
    settings = Settings.load(
        data_dir=folder / "data",
        runtime_dir=folder / "run",
        channel="unix",
        interrupt_grace=1.0,
        sandbox_workspace=64 * MIB,
        session_limit=50 * MIB,
        disk_floor=0,
    )
    async with Orchestrator.open(settings) as orchestrator:
        arena = Arena(orchestrator, settings)
        await arena.begin()
        try:
            yield arena
        finally:
            await arena.end()
    with closing(api_client(find_engine())) as api:
        left = [*leaks.containers(api, arena.installation), *leaks.files(settings.runtime_dir / CHANNELS_NAME)]
    assert not left, left
