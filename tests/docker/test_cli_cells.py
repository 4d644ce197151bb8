"""Code run by commands: scripts, pipes, a prompt; output while it runs, interrupts that cost no session."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from orchestrator.app import Orchestrator
from orchestrator.faces.cli.repl import is_whole
from orchestrator.settings import Settings
from tests.docker.terminal import terminal
from tests.docker.test_cli_sessions import PATIENCE
from tests.docker.test_serve import server

# It does not end when it is asked to, and is killed after its grace.
DEAF = "import signal, time; signal.signal(2, signal.SIG_IGN); print('beg' + 'un', flush=True); time.sleep(300)"


async def ran(settings: Settings, *order: str, code: int = 0, given: bytes = b"") -> tuple[str, str]:
    """What `orchestrator run` prints, and what it says beside that."""
    process = await begun(settings, *order)
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate(given)
    assert process.returncode == code, err.decode()
    return out.decode(), err.decode()


async def begun(settings: Settings, *order: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator", "run", *order, "--data-dir", str(settings.data_dir)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "ORCHESTRATOR_RUNTIME_DIR": str(settings.runtime_dir)},
    )


@pytest.mark.usefixtures("engine")
async def test_code_runs_in_a_session_or_in_none_and_ends_with_its_exit_code(
    settings: Settings, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text("x = 41\nprint('from a file')\n")
    assert (await ran(settings, str(script), "-s", "s"))[0] == "from a file\n"
    assert (await ran(settings, "-c", "x + 1", "-s", "s"))[0] == "42\n"
    out, err = await ran(settings, "-", "--json", code=1, given=b"print('said')\nx")
    answer = json.loads(out)
    assert (answer["session"], answer["outcome"], answer["error"]["type"]) == (None, "exception", "NameError")
    out, err = await ran(settings, "-c", "print('before'); 1/0", code=1)
    assert out == "before\n"
    assert "ZeroDivisionError" in err
    out, err = await ran(settings, "-c", "import time; time.sleep(60)", "--timeout", "1", code=1)
    assert "time limit of 1 s" in err
    _, err = await ran(settings, code=2)
    assert "What is to be run?" in err
    _, err = await ran(settings, str(tmp_path / "absent.py"), code=2)
    assert "cannot be read" in err
    big = f"print('é' * 150_000)\n# {'x' * 400_000}"
    out, _ = await ran(settings, "-", "-s", "s", given=big.encode())
    assert "bytes are not shown" in out
    assert len(out.encode()) > 60_000
    async with Orchestrator.open(settings) as o:
        await o.delete("s")


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("serving", [True, False], ids=["beside a server", "without one"])
async def test_output_comes_while_code_runs_and_ctrl_c_interrupts_it_and_not_the_session(
    settings: Settings, *, serving: bool
) -> None:
    async def walk() -> None:
        await ran(settings, "-c", "x = 1", "-s", "s")
        process = await begun(settings, "-c", "print('begun', flush=True)\nimport time; time.sleep(300)", "-s", "s")
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await process.stdout.readline() == b"begun\n"
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
        assert process.returncode == 130
        assert b"KeyboardInterrupt" in err, "its answer still comes"
        process = await begun(settings, "-c", "print('begun', flush=True)\nimport time; time.sleep(300)")
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await process.stdout.readline() == b"begun\n"
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
        assert (process.returncode, b"not waited for" in err) == (130, True), "without a session, nobody can be asked"
        assert (await ran(settings, "-c", "x", "-s", "s"))[0] == "1\n"

    if serving:
        async with server(settings):
            await walk()
    else:
        await walk()
    async with Orchestrator.open(settings) as o:
        await o.delete("s")


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("serving", [True, False], ids=["beside a server", "without one"])
async def test_a_prompt_keeps_its_session_over_blocks_interrupts_and_errors(
    settings: Settings, *, serving: bool
) -> None:
    async def walk() -> None:
        async with terminal(settings, "repl", "s") as typed:
            await typed.sees(">>>")
            typed.types("x = 41\r")
            await typed.sees(">>>")
            typed.types("for n in range(2):\rprint('line', n)\r\r")
            await typed.sees("line 0\nline 1")
            await typed.sees(">>>")
            typed.types("import time; print('beg' + 'un', flush=True); time.sleep(300)\r")
            await typed.sees("begun\n")
            typed.types("\x03")
            await typed.sees("KeyboardInterrupt")
            await typed.sees(">>>")
            typed.types("1/0\r")
            await typed.sees("ZeroDivisionError")
            await typed.sees(">>>")
            typed.types("half a thought\x03")
            await typed.sees(">>>")
            typed.types("x + 1\r")
            await typed.sees("42\n")
            await typed.sees(">>>")
            typed.types("\x04")
            await typed.sees("stays")
            assert await typed.ended() == 0
        history = settings.data_dir / "repl.history"
        assert history.stat().st_mode & 0o777 == 0o600
        assert "+x + 1" in history.read_text()
        async with terminal(settings, "repl", "s") as typed:
            await typed.sees(">>>")
            typed.types(f"{DEAF}\r")
            await typed.sees("begun\n")
            for _ in range(3):
                typed.types("\x03")
                await asyncio.sleep(0.1)
            await typed.sees("stays")
            assert await typed.ended() == 0
        async with terminal(settings, "repl", "s") as typed:
            await typed.sees(">>>")
            typed.types("\x1b[A\x1b[A\r")  # the last line but one of those before
            await typed.sees("42\n")
            await typed.sees(">>>")
            typed.types("\x04")
            assert await typed.ended() == 0

    if serving:
        async with server(settings):
            await walk()
    else:
        await walk()
    async with Orchestrator.open(settings) as o:
        await o.delete("s")


async def test_a_prompt_without_a_terminal_is_refused(settings: Settings) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator", "repl", "--data-dir", str(settings.data_dir)),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        _, err = await process.communicate()
    assert (process.returncode, b"needs a terminal" in err) == (2, True)


@pytest.mark.parametrize(
    ("code", "whole"),
    [
        ("x = 1", True),
        ("for n in x:", False),
        ("for n in x:\n    print(n)", False),
        ("for n in x:\n    print(n)\n", True),
        ("for n in x:\n    print(n)\n    ", True),
        ("f(1,", False),
        ('"""text', False),
        ("await f()", True),
        ("x = = 1", True),
        ("a = 1\nb = 2", True),
    ],
)
def test_a_cell_goes_on_until_python_would_run_it(*, code: str, whole: bool) -> None:
    assert is_whole(code) is whole
