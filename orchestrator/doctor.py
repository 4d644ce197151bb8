"""The composition root of `orchestrator doctor`: asks the engine what it enforces, beside whoever owns the data.

It takes no data directory. Its throw-away sandboxes bear a label of its own, under a lock of its own, so that what a
killed run has left is the next one's to remove, and nobody else's.
"""

import asyncio
import fcntl
import hashlib
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from orchestrator import __version__, places
from orchestrator.adapters.engine.docker_engine import DockerEngine
from orchestrator.adapters.engine.endpoint import Probe, api_client, find_engine
from orchestrator.adapters.engine.failures import engine_failures
from orchestrator.adapters.engine.install import describe
from orchestrator.adapters.image.sources import image_folder
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.checkup import checks_of, engine_checks, versions
from orchestrator.domain.enforcement import profile_digest
from orchestrator.domain.errors import BusyError, InvalidRequestError, OrchestratorError
from orchestrator.domain.examination import Attacked, Examination, no_boundaries
from orchestrator.domain.model import SandboxRecord, SandboxState
from orchestrator.domain.ports import SandboxImage
from orchestrator.domain.probes import PROBES
from orchestrator.provisioning import build_engine
from orchestrator.services.attacking import Attack
from orchestrator.settings import Settings

_LOCK_NAME: Final = "doctor.lock"
_WAIT_SECONDS: Final = 60.0  # for another doctor
_UID: Final = 65_001
_ASK_SECONDS: Final = 15

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Label:
    """Whose the sandboxes are; nothing is remembered, so that everything is asked anew."""

    installation: str

    async def remembered(self, key: str) -> str | None:
        """Nothing."""
        del key
        return None

    async def remember(self, key: str, value: str) -> None:
        """Nothing."""
        del key, value


async def examine(settings: Settings, *, attack: bool, report: Report) -> Examination:
    """What the engine enforces, and with `attack` what hostile cells reach. Failures are in the examination.

    `report` is told of steps that take long.
    """
    logging.getLogger("orchestrator").addHandler(logging.NullHandler())  # what it would warn of stands in the report
    found = Examination(__version__, {}, allowed=settings.allowed, versions=versions())
    try:
        async with _alone(settings.runtime_dir, report):
            found = await _examined(settings, found, attack=attack, report=report)
    except OrchestratorError as error:
        found = replace(found, problem=error.message, hint=error.hint)
    report("looking at what lies here")
    engine = await asyncio.to_thread(engine_checks, settings.docker_host)
    checks = await asyncio.to_thread(checks_of, settings, engine.containers)
    return replace(found, checks=(*engine.checks, *checks))


async def _examined(settings: Settings, found: Examination, *, attack: bool, report: Report) -> Examination:
    probe = await asyncio.to_thread(find_engine, settings.docker_host)
    info = await asyncio.to_thread(_info, probe)
    found = replace(found, facts=_facts_of_engine(probe, info))
    everything = ",".join(one.name for one in PROBES if one.required)  # what is missing is for the report to say
    asking = settings.model_copy(update={"allow_unenforced": everything})
    engine = build_engine(asking, _Label(_installation(settings.runtime_dir)), SystemClock())
    try:
        for left in await engine.containers():
            report(f"removing what an earlier run has left: sandbox {left.sandbox_id[:8]}")
            await engine.destroy(left.sandbox_id)
        report("asking a throw-away sandbox what the engine enforces")
        image = await engine.prepare()
        found = await _with_answers(found, settings, engine, image, probe)
        found = replace(found, warnings=_warnings(found, info, probe))
        if attack:
            report("attacking another one")
            found = replace(found, attacks=await _attacked(engine, image, info))
    except OrchestratorError as error:
        return replace(found, problem=error.message, hint=error.hint)
    finally:
        await engine.close()
    return found


async def _with_answers(
    found: Examination, settings: Settings, engine: DockerEngine, image: SandboxImage, probe: Probe
) -> Examination:
    kind, seen = engine.found_out(image)
    facts = {
        **found.facts,
        "runtime": str(seen.container.get("HostConfig", {}).get("Runtime", "unknown")),
        "image": f"{image.tag} ({await asyncio.to_thread(_digest_of, probe, image.tag)})",
        "environment": f"{image.environment}, Python {image.python}",
        "agent": image.agent,
        "seccomp profile": f"{settings.sandbox_seccomp or 'ours'}, sha256:{profile_digest(engine.isolation)}",
        "channel": kind,
    }
    return replace(found, facts=facts, protections=seen.findings)


def _warnings(found: Examination, info: Mapping[str, Any], probe: Probe) -> tuple[str, ...]:
    ids = next((one.answer for one in found.protections if one.name == "user-namespace"), "")
    plain = probe.endpoint.tls is None and not probe.endpoint.base_url.startswith("unix:")
    return no_boundaries(info, runtime=found.facts["runtime"], remapped=not ids.startswith("[0, 0, "), plain_tcp=plain)


def _facts_of_engine(probe: Probe, info: Mapping[str, Any]) -> dict[str, str]:
    return {
        "engine": describe(probe),
        "kernel": f"{info.get('KernelVersion', '')} on {info.get('Architecture', '')}, "
        f"{info.get('OperatingSystem', '')}",
        "cgroup": f"version {info.get('CgroupVersion', 'unknown')}, by {info.get('CgroupDriver', 'unknown')}",
        "storage driver": str(info.get("Driver", "unknown")),
    }


def _info(probe: Probe) -> dict[str, Any]:
    with closing(api_client(probe, timeout_seconds=_ASK_SECONDS)) as api, engine_failures("Asking the engine"):
        return dict(api.info())


def _digest_of(probe: Probe, tag: str) -> str:
    with closing(api_client(probe, timeout_seconds=_ASK_SECONDS)) as api, engine_failures("Looking at the image"):
        return str(api.inspect_image(tag)["Id"])  # type: ignore[no-untyped-call]


async def _attacked(engine: DockerEngine, image: SandboxImage, info: Mapping[str, Any]) -> tuple[Attacked, ...]:
    """In a sandbox as every session has it."""
    record = SandboxRecord(
        id=secrets.token_hex(16),
        state=SandboxState.CREATING,
        uid=_UID,
        secret=secrets.token_hex(32),
        image=image.tag,
        handle=None,
        session=None,
        incarnation=0,
    )
    folder = image_folder() / "attack"
    numbers = (folder / "system_calls.json").read_text("utf-8")
    prelude = f"NUMBERS = {numbers}\n{(folder / 'prelude.py').read_text('utf-8')}"
    try:
        _, agent = await engine.launch(record, image)
        await agent.claim("doctor", 1)
        return await Attack(agent, prelude).run(machine=str(info.get("Architecture", "")), landlock=agent.landlock or 0)
    finally:
        removing = asyncio.create_task(engine.destroy(record.id), name="remove the attacked sandbox")
        try:
            await asyncio.shield(removing)
        except asyncio.CancelledError:
            await asyncio.wait([removing])
            raise


def _installation(runtime_dir: Path) -> str:
    """One for all runs under that lock, on whatever engine."""
    return hashlib.sha256(f"doctor\0{os.uname().nodename}\0{runtime_dir}".encode()).hexdigest()[:32]


@asynccontextmanager
async def _alone(runtime_dir: Path, report: Report) -> AsyncIterator[None]:
    """No other doctor of this runtime directory is at work; the lock dies with the process."""
    try:
        places.private_directory(str(runtime_dir))
    except places.PlaceError as failure:
        raise InvalidRequestError(failure.message, hint=failure.hint) from failure
    descriptor = os.open(runtime_dir / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        await _locked(descriptor, report)
        yield
    finally:
        os.close(descriptor)


async def _locked(descriptor: int, report: Report) -> None:
    loop = asyncio.get_running_loop()
    deadline, told = loop.time() + _WAIT_SECONDS, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if loop.time() > deadline:
                raise BusyError("Another `orchestrator doctor` is at work here.", hint="Wait until it ends.") from None
            if not told:
                report("waiting for another doctor to end")
            told = True
            await asyncio.sleep(0.1)
        else:
            return
