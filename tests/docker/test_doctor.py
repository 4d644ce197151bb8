"""`orchestrator doctor` on the real engine: beside an owner, without an engine, interrupted and killed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from orchestrator import doctor
from orchestrator.adapters.engine.docker_engine import DockerEngine
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.app import Orchestrator
from orchestrator.domain.hostile_cells import CELLS, TRIALS
from orchestrator.domain.probes import PROBES
from orchestrator.provisioning import Memory, build_engine
from orchestrator.settings import Settings
from tests import leaks
from tests.mcp.harness import eventually
from tests.pace import paced
from tests.security.weakened import Weakening, weaken

REQUIRED = [probe.name for probe in PROBES if probe.required]


def quiet(_line: str) -> None:
    pass


class Installed:
    """The command as users start it, in directories of its own."""

    def __init__(self, root: Path) -> None:
        self.settings = Settings.load(data_dir=root / "data", runtime_dir=root / "run")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")},
            "ORCHESTRATOR_DATA_DIR": str(root / "data"),
            "ORCHESTRATOR_RUNTIME_DIR": str(root / "run"),
            "ORCHESTRATOR_CHANNEL": "unix",
        }

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "doctor", *arguments],
            env={**self.environment, **variables},
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run_into(self, place: str) -> tuple[int, str]:
        with Path(place).open("w", encoding="ascii") as out:
            command = [sys.executable, "-m", "orchestrator", "doctor", "--json"]
            ended = subprocess.run(
                command, env=self.environment, cwd="/", stdout=out, stderr=subprocess.PIPE, text=True, check=False
            )
        return ended.returncode, ended.stderr

    def run(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        started = self.start(*arguments, **variables)
        out, err = started.communicate(timeout=paced(120))
        return started.returncode, out, err

    def left(self, api: docker.APIClient) -> list[str]:
        installation = doctor._installation(self.settings.runtime_dir)
        return [
            *leaks.containers(api, installation),
            *leaks.files(self.settings.runtime_dir / "channels"),
        ]


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


def test_everything_holds_and_is_told_line_by_line_without_touching_the_data(
    installed: Installed, engine: docker.APIClient
) -> None:
    code, out, err = installed.run()
    assert code == 0, err
    for name in ("engine", "kernel", "cgroup", "storage driver", "runtime", "image", "seccomp profile", "channel"):
        assert f"\n{name}" in f"\n{out}"
    for probe in PROBES:
        assert any(line.split()[:2] == ["enforced", probe.name] for line in out.splitlines()), probe.name
    assert "no boundary   The kernel: " in out
    assert out.endswith("Everything that is required is enforced.\n")
    assert not installed.settings.data_dir.exists()
    assert installed.left(engine) == []


def test_programs_get_json_and_nothing_else_on_standard_output(installed: Installed) -> None:
    code, out, _ = installed.run("--json")
    told = json.loads(out)
    assert (code, told["schema"], told["exit_code"], told["lacking"], told["problem"]) == (0, 1, 0, [], None)
    assert [row["name"] for row in told["protections"]] == [probe.name for probe in PROBES]
    assert told["facts"]["runtime"] == "runc"
    assert "sha256:" in told["facts"]["image"]


def test_a_report_that_cannot_be_written_is_no_success_and_no_verdict(installed: Installed) -> None:
    code, err = installed.run_into("/dev/full")
    assert code == 3
    assert err.endswith("doctor: the report could not be written: No space left on device\n")


def test_the_attack_is_held(installed: Installed, engine: docker.APIClient) -> None:
    began = time.monotonic()
    code, out, err = installed.run("--attack", "--json")
    told = json.loads(out)
    assert code == 0, ([one for one in told["attacks"] if one["verdict"] == "got through"], err)
    assert len(told["attacks"]) >= len(CELLS) + len(TRIALS) - sum(cell.machine is not None for cell in CELLS)
    assert sum(one["verdict"] == "held" for one in told["attacks"]) > 70
    assert time.monotonic() - began < 60
    assert installed.left(engine) == []


def test_without_an_engine_it_says_what_to_do(installed: Installed, tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/nothing.sock"
    code, out, err = installed.run(ORCHESTRATOR_DOCKER_HOST=nowhere)
    assert code == 3
    assert f"No Docker Engine is usable: {nowhere}" in out
    assert "Traceback" not in out + err
    code, out, _ = installed.run("--json", ORCHESTRATOR_DOCKER_HOST=nowhere)
    told = json.loads(out)
    assert (code, told["exit_code"], told["protections"]) == (3, 3, [])
    assert nowhere in told["problem"]["message"]
    assert told["problem"]["hint"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ORCHESTRATOR_SANDBOX_RUNTIME", "no-such"),
        ("ORCHESTRATOR_IMAGE", "no-such-image:1"),
        ("ORCHESTRATOR_IMAGE", "debian:no name at all"),
        ("ORCHESTRATOR_DOCKER_HOST", "tcp://127.0.0.1:99999"),
        ("ORCHESTRATOR_SANDBOX_CPUS", "1000"),
        ("ORCHESTRATOR_SANDBOX_PIDS", "one"),
    ],
)
def test_what_cannot_be_asked_is_no_success(variable: str, value: str, installed: Installed) -> None:
    code, out, err = installed.run(**{variable: value})
    assert code == 3
    assert "Traceback" not in out + err
    assert variable in out
    code, out, _ = installed.run("--json", **{variable: value})
    assert (code, json.loads(out)["exit_code"]) == (3, 3)


async def test_it_works_beside_an_owner_whose_sessions_notice_nothing(settings: Settings) -> None:
    beside = Settings.load(data_dir=settings.data_dir, runtime_dir=settings.runtime_dir, channel="unix")
    async with Orchestrator.open(settings) as orchestrator:
        await orchestrator.execute("x = 41", session_id="s")
        found = await doctor.examine(beside, attack=False, report=quiet)
        assert (found.exit_code, found.problem) == (0, None)
        assert (await orchestrator.execute("x + 1", session_id="s")).value == "42"
        await orchestrator.delete("s")


@pytest.fixture
def weakened(monkeypatch: pytest.MonkeyPatch) -> Callable[[Weakening], None]:
    def begin(weakening: Weakening) -> None:
        def build(settings: Settings, records: Memory, clock: SystemClock) -> DockerEngine:
            engine = build_engine(settings, records, clock)
            weaken(engine, weakening)
            return engine

        monkeypatch.setattr(doctor, "build_engine", build)

    return begin


async def test_what_is_missing_is_a_failure_unless_it_is_allowed_by_name(
    settings: Settings, weakened: Callable[[Weakening], None]
) -> None:
    weakened("writable root")
    found = await doctor.examine(settings, attack=False, report=quiet)
    assert (found.exit_code, found.lacking) == (1, ("root",))
    allowing = settings.model_copy(update={"allow_unenforced": "root"})
    assert (await doctor.examine(allowing, attack=False, report=quiet)).exit_code == 0


async def test_attacks_that_get_through_are_named(settings: Settings, weakened: Callable[[Weakening], None]) -> None:
    weakened("docker's filter")
    found = await doctor.examine(settings, attack=True, report=quiet)
    assert found.exit_code == 1
    expected = {cell.outcome for cell in CELLS if cell.without == "docker's filter" and cell.machine is None}
    assert expected <= set(found.got_through)
    assert not {cell.outcome for cell in CELLS if cell.without == "engine's masks"} & set(found.got_through)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_what_an_interrupted_one_has_made_is_gone_and_what_a_killed_one_has_left_the_next_removes(
    number: signal.Signals, installed: Installed, engine: docker.APIClient
) -> None:
    started = installed.start()
    await eventually(
        lambda: bool(leaks.containers(engine, doctor._installation(installed.settings.runtime_dir))), "one"
    )
    started.send_signal(number)
    _, err = await asyncio.to_thread(started.communicate, timeout=60)
    assert "Traceback" not in err
    if number == signal.SIGKILL:
        assert installed.left(engine)
        code, _, err = await asyncio.to_thread(installed.run)
        assert code == 0
        assert "removing what an earlier run has left" in err
    else:
        assert started.returncode == 130
    assert installed.left(engine) == []


async def test_two_at_once_take_turns_and_leave_each_other_alone(
    installed: Installed, engine: docker.APIClient
) -> None:
    answers = await asyncio.gather(*(asyncio.to_thread(installed.run) for _ in range(3)))
    assert [code for code, _, _ in answers] == [0, 0, 0]
    assert any("waiting for another doctor" in err for _, _, err in answers)
    assert not any("an earlier run" in err for _, _, err in answers)
    assert installed.left(engine) == []
