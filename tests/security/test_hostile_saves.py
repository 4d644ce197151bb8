"""Sessions that turn on their own saves: each costs itself a variable or a save, and never the session."""

import asyncio
import time
from contextlib import suppress

import pytest

from orchestrator.domain.errors import NamespaceLostError
from orchestrator.domain.snapshots import SaveFailedError
from tests.docker.saved_sandbox import Fresh, reasons, statuses

KIND = "hostile objects"
pytestmark = pytest.mark.asyncio(loop_scope="module")

BAD = """
import os, time, ctypes
before, after = [1], [2]
class Bad:
    def __reduce__(self):
        {act}
        return Bad, ()
bad = Bad()
last = {{"k": after}}
"""


@pytest.mark.parametrize(
    ("act", "why"),
    [
        ("ctypes.string_at(0)", "SIGSEGV"),
        ("os._exit(7)", "exit code 7"),
        ("os.kill(os.getpid(), 9)", "SIGKILL"),
        ("raise SystemExit(3)", "SystemExit"),
        ("time.sleep(1000)", "timed out"),
    ],
)
async def test_value_that_ends_or_hangs_what_saves_is_refused_alone(fresh: Fresh, act: str, why: str) -> None:
    async with fresh() as box:
        await box.value(BAD.format(act=act))
        saved = await box.save()
        assert set(reasons(saved)) == {"bad"}
        assert why in reasons(saved)["bad"]
        began = time.monotonic()
        again = await box.save(head=1)
        assert time.monotonic() - began < 3.0, "it is known, and not tried again"
        assert set(reasons(again)) == {"bad"}
        await box.value("bad = 'good'")
        assert reasons(await box.save(head=2)) == {}
        assert (await box.run("before, after")).notes == ()


LOADS_BADLY = """
import os, time, ctypes
class Bad:
    def __setstate__(self, state):
        if os.getpid() != {worker}:
            {act}
good = [1]
bad = Bad()
bad.x = 1
"""


LIVING = "len([p for p in os.listdir('/proc') if p.isdigit()])"


@pytest.mark.parametrize(
    ("act", "why"),
    [
        ("ctypes.string_at(0)", "ended the process"),
        ("os._exit(7)", "ended the process"),
        ("raise ValueError('never')", "ValueError: never"),
        ("time.sleep(1000)", "timed out"),
    ],
)
async def test_what_would_not_load_is_refused_when_it_is_saved(fresh: Fresh, act: str, why: str) -> None:
    async with fresh() as box:
        worker = await box.value("import os\nos.getpid()")
        await box.value(LOADS_BADLY.format(act=act, worker=worker))
        saved = await box.save()
        assert why in reasons(saved)["bad"]
        assert statuses(saved)["good"] == "saved"
        async with asyncio.timeout(10):  # until init, zygote, worker and savepoint are all
            while await box.kept(LIVING) != "4":  # noqa: ASYNC110 - other processes decide
                await asyncio.sleep(0.1)


# Writes to all descriptors, as fast as it can, of its own process and of every other that it may open.
GARBAGE = """
import os, threading, time
def flood(rounds=200):
    for _ in range(rounds):
        for pid in ["self", *filter(str.isdigit, os.listdir("/proc"))]:
            try: names = os.listdir(f"/proc/{pid}/fd")
            except OSError: continue
            for name in names:
                try:
                    if pid == "self" and int(name) > 2:
                        os.set_blocking(int(name), False)
                        os.write(int(name), os.urandom(4096))
                    elif pid != "self" and int(name) > 2:
                        fd = os.open(f"/proc/{pid}/fd/{name}", os.O_WRONLY | os.O_NONBLOCK)
                        try: os.write(fd, os.urandom(4096))
                        finally: os.close(fd)
                except OSError: pass
"""


async def test_garbage_from_what_saves_costs_its_own_save(fresh: Fresh) -> None:
    async with fresh() as box:
        code = GARBAGE.replace('["self", *filter(str.isdigit, os.listdir("/proc"))]', '["self"]')
        await box.value(
            code + "class Bad:\n    def __reduce__(self):\n        flood(3)\n        return Bad, ()\nbad = Bad()"
        )
        for _ in range(3):
            with pytest.raises(SaveFailedError):
                await box.save()
        report = await box.run("del bad\n'here'")
        assert (report.value, report.namespace_kept, report.notes) == ("'here'", True, ())
        assert "Bad" in statuses(await box.save())


async def test_forged_records_are_refused_or_harmless(fresh: Fresh) -> None:
    """Records of the right form, written by a value while it is pickled."""
    forging = """
import os, struct, fcntl
def pipes():
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("pipe:"): yield int(name)
        except OSError: pass
class Forger:
    def __init__(self, record): self.record = record
    def __reduce__(self):
        for fd in pipes():
            try: os.write(fd, self.record)
            except OSError: pass
        return Forger, (b"",)
header = struct.Struct(">cBxxII16s")
kinds = [b"M", b"N", b"W", b"K", b"L", b"H", b"T"]
everything = b"".join(header.pack(kind, 0, 0, 2, bytes(16)) + b"{}" for kind in kinds)
everything += header.pack(b"R", 0, 0, 22, bytes(16)) + b'{"cpu":1,"refused":[]}'
"""
    records = [
        'header.pack(b"P", 0, 4, 2**31, bytes(16))',
        'header.pack(b"P", 0, 2**31, 4, bytes(16)) + b"abcd"',
        'header.pack(b"P", 0, 8, 4, bytes(16)) + b"abcd"',
        'header.pack(b"P", 9, 4, 4, bytes(16)) + b"abcd"',
        'header.pack(b"P", 0, 0, 0, bytes(16))',
        'header.pack(b"F", 0, 1, 0, bytes(16))',
        'header.pack(b"?", 0, 0, 0, bytes(16))',
        'header.pack(b"R", 0, 0, 2, bytes(16)) + b"{}"',
        'header.pack(b"R", 0, 0, 9, bytes(16)) + b"[[[[[[[[["',
        'header.pack(b"Q", 0, 0, 0, bytes(16)) * 300',
        "everything",
    ]
    async with fresh() as box:
        await box.value(forging + "kept = 1")
        for record in records:
            await box.value(f"forger = Forger({record})")
            with pytest.raises(SaveFailedError):
                await asyncio.wait_for(box.save(), 30)
        assert await box.value("del forger\nkept") == "1"
        assert statuses(await box.save())["kept"] == "saved"


async def test_threads_that_flood_every_descriptor_cost_saves_and_at_most_their_own_worker(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value(GARBAGE + "import subprocess, sys\nkept = bytearray(os.urandom(5_000_000))")
        flooding = "threading.Thread(target=flood, args=(30,), daemon=True).start()"
        for _ in range(4):
            with suppress(SaveFailedError, NamespaceLostError):
                await box.run(flooding)
                await asyncio.wait_for(box.save(), 60)
            assert box.agent.lost is None
        await asyncio.sleep(3)
        await box.agent.clear()
        await box.value("fresh = 1")
        assert statuses(await box.save()) == {"fresh": "saved"}


async def test_session_that_replaces_what_saving_uses_costs_itself_a_save(fresh: Fresh) -> None:
    patches = [
        "import os; os.writev = None",
        "import json; json.dumps = lambda *a, **k: 'x'",
        "import random; random.getstate = lambda: 1 / 0",
        "import socket; socket.recv_fds = None",
        "import builtins, time; time.monotonic = None",
        "import sys; sys.modules['random'] = 5",
    ]
    async with fresh() as box:
        for patch in patches:
            await box.value(patch + "\nx = 1")
            with suppress(SaveFailedError):
                await asyncio.wait_for(box.save(), 60)
            assert await box.value("x") == "1"
            assert (await box.agent.list_variables()).variables
            await box.agent.clear()
        await box.value("y = 1")
        assert statuses(await box.save()) == {"y": "saved"}


@pytest.mark.parametrize(
    "patch",
    [
        "json.dumps = json.loads = lambda *_, **__: 'none'",
        "json.JSONEncoder.item_separator = json.JSONEncoder.key_separator = '; '",
        "json.JSONEncoder.encode = json.JSONEncoder.iterencode = json.JSONDecoder.decode = None",
        "socket.socket = lambda *_, **__: 1 / 0",
        "json.encoder.c_make_encoder = json.scanner.c_make_scanner = json.encoder.encode_basestring_ascii = None",
    ],
)
async def test_session_that_patches_json_or_sockets_is_saved_and_wakes(fresh: Fresh, patch: str) -> None:
    async with fresh() as box:
        await box.value(f"import json, socket\nclass Point: pass\npoint, x = Point(), [1]\n{patch}")
        assert {row.name for row in (await box.agent.list_variables()).variables} >= {"point", "x"}
        saved = await box.save()
        assert set(statuses(saved).values()) == {"saved"}
    async with fresh() as box:
        assert (await box.wake(saved)).lost == ()
        assert await box.value("x, type(point) is Point") == "([1], True)"
        assert set(statuses(await box.save(head=1)).values()) == {"saved"}


async def test_memory_that_a_save_takes_is_its_own_loss(fresh: Fresh) -> None:
    async with fresh() as box:
        await box.value(BAD.format(act="[bytearray(os.urandom(1000) * 100_000) for _ in range(100)]"))
        try:
            saved = await box.save()
        except SaveFailedError:
            pass
        else:
            assert set(reasons(saved)) <= {"bad"}
        report = await box.run("before")
        assert (report.value, report.namespace_kept, report.notes) == ("[1]", True, ())
