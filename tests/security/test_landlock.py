"""What Landlock adds: cells cannot choose who dies first, and what is forked beside the worker is out of reach."""

import pytest

from orchestrator.adapters.channel import agent_channel
from tests.security.conftest import Inside

KIND = "agent and channel"

# What is asked while it is saved, and while it is loaded by the rehearsal, writes what it was answered.
ASKING = """
import os
class Asking:
    def __init__(self, worker):
        self.worker = worker
    def __getstate__(self):
        with open('/workspace/saving', 'w') as file:
            file.write(open('/proc/self/oom_score_adj').read().strip())
        return {'worker': self.worker}
    def __setstate__(self, state):
        with open('/workspace/rehearsing', 'w') as file:
            file.write(' '.join([
                open('/proc/self/oom_score_adj').read().strip(),
                tried(os.kill, state['worker'], 0),
                write('/proc/self/oom_score_adj', '1000'),
                read(f"/proc/{state['worker']}/environ"),
            ]))
asking = Asking(os.getpid())
"""
TOLD = "[open(f'/workspace/{name}').read() for name in ('saving', 'rehearsing')]"


@pytest.mark.asyncio(loop_scope="module")
async def test_what_saves_and_what_is_rehearsed_go_first_and_reach_no_worker(inside: Inside) -> None:
    sandbox = await inside(None)
    assert sandbox.agent.landlock, "this kernel has no Landlock"
    await sandbox.run(ASKING)
    saved = await sandbox.save()
    assert {row.name: row.status for row in saved.manifest.names}["asking"] == "saved"
    assert await sandbox.value(TOLD) == repr(["1000", "1000 EPERM EACCES EACCES"])


@pytest.mark.asyncio(loop_scope="module")
async def test_the_worker_goes_before_the_supervisor_and_the_zygote(inside: Inside) -> None:
    code = "[int(open(f'/proc/{who}/oom_score_adj').read()) for who in ('self', 1, zygote())]"
    assert await (await inside(None)).value(code) == "[500, 0, 0]"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_kernel_without_landlock_is_told_of_and_costs_nothing_else(inside: Inside) -> None:
    sandbox = await inside("no landlock")
    assert sandbox.agent.landlock == 0
    await sandbox.run(ASKING)
    saved = await sandbox.save()
    assert {row.name: row.status for row in saved.manifest.names}["asking"] == "saved"
    assert await sandbox.value(TOLD) == repr(["1000", "1000 done done told"])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_worker_made_after_another_is_locked_in_as_well(inside: Inside) -> None:
    sandbox = await inside(None)
    dead = await sandbox.run("os._exit(3)")
    assert dead.outcome == "crashed"
    code = "open('/proc/self/oom_score_adj').read().strip(), open('/proc/self/oom_score_adj', 'w')"
    report = await sandbox.run(code)
    assert (report.outcome, report.error_type) == ("exception", "PermissionError")


@pytest.mark.asyncio(loop_scope="module")
async def test_children_of_the_worker_are_locked_in_and_reach_each_other(inside: Inside) -> None:
    sandbox = await inside("engine's ulimits")
    code = """
child = subprocess.Popen(['sleep', '60'])
refused = subprocess.run(['sh', '-c', 'echo 1000 > /proc/self/oom_score_adj'], capture_output=True).returncode != 0
child.kill()
refused, child.wait()
"""
    assert await sandbox.value(code) == "(True, -9)"


@pytest.mark.asyncio(loop_scope="module")
async def test_savepoint_that_has_taken_over_is_locked_in_and_goes_first_as_any_worker(inside: Inside) -> None:
    sandbox = await inside(None)
    await sandbox.kept("x = 1")
    assert (await sandbox.run("os._exit(3)")).resumed is not None
    code = "open('/proc/self/oom_score_adj').read().strip(), write('/proc/self/oom_score_adj', '0')"
    assert await sandbox.value(code) == "('500', 'EACCES')"


BOMB = """
import os, time
def child():
    try:
        with open('/proc/self/oom_score_adj', 'w') as file: file.write('0')  # as PID 1 has it
    except OSError: pass
    held = bytearray()
    while True:
        held += b'x' * (1 << 20)
children = []
for _ in range(180):
    children.append(os.fork())
    if children[-1] == 0:
        child()
while True:
    time.sleep(1)
"""


@pytest.mark.asyncio(loop_scope="module")
async def test_a_memory_bomb_that_would_shield_itself_takes_no_supervisor(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_channel, "EXECUTE_MARGIN_SECONDS", 60.0)  # hundreds of processes end at their own pace
    sandbox = await inside(None)
    report = await sandbox.run(BOMB, limit=3.0)
    assert report.outcome in ("oom", "timeout"), report.traceback
    assert await sandbox.value("6 * 7") == "42"
