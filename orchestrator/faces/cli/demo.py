"""`orchestrator demo`: a real MCP client over stdio, real containers, and proof that nothing is left of them."""

import asyncio
import base64
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from orchestrator import places
from orchestrator.faces.cli.demo_places import check_output, installation
from orchestrator.faces.cli.demo_script import ACTS, Act, Chapter, Step
from orchestrator.faces.cli.failures import EXIT_FAILED, told_to_the_terminal

if TYPE_CHECKING:
    from mcp import Client
    from mcp_types import CallToolResult

    from orchestrator.settings import Settings

_CALL_SECONDS = 180.0  # the first container on a cold disk takes its time
_SLEEP_SECONDS = 60.0  # until every session sleeps
_LOOK_SECONDS = 0.25  # between two looks whether it does
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HOPELESS = ("engine_unavailable", "store_full", "internal", "shutting_down")


class _AbandonedError(Exception):
    """What is left of the tour would fail for the same reason."""


def demo(
    output: Annotated[Path, typer.Option(help="Where the figures are written.")] = Path("demo-output"),
) -> None:
    """Watch an MCP client drive Python sessions in real containers; ends by showing that nothing is left."""
    began = time.monotonic()
    with told_to_the_terminal(), installation() as (settings, keep_records):
        check_output(output)
        tour = _Tour(output, settings)
        try:
            asyncio.run(tour.run())
        finally:
            if tour.may_be_left:
                keep_records()
        tour.summarise(time.monotonic() - began)
    if tour.failures:
        raise typer.Exit(EXIT_FAILED)


class _Tour:
    """Runs the chapters, prints what a model would see, and keeps count of what went wrong."""

    def __init__(self, output: Path, settings: "Settings") -> None:
        self.failures: list[str] = []
        self.may_be_left = False
        self._hurried = False
        self._output = output
        self._figures: list[Path] = []
        self._calls = 0
        self._settings = settings
        self._console = Console(highlight=False, soft_wrap=True)

    async def run(self) -> None:
        """The whole tour, and the proof after it. A signal ends it early; a second one does not wait for the engine."""
        from orchestrator.leftovers import end_owner, leftovers, recorded  # noqa: PLC0415 - dear, and only needed here

        settings = self._settings
        tour = asyncio.create_task(self._drive(), name="tour")
        with self._stopped_by_signals(tour):
            await asyncio.wait([tour])
            self._heading("The end: the owner process is told to stop")
            self.may_be_left = True
            ended = await end_owner(settings)
            self.may_be_left = self._hurried or await recorded(settings)
            self._say(f"Owner process {ended} has ended.")
            left = await leftovers(settings)
            self.may_be_left = bool(left)
        for what in left:
            self._fail(f"left behind: {what}")
        if not left:
            self._say(
                "Asked the engine, the process list and the file system: no container, process or socket is left."
            )
        if tour.cancelled():
            self._fail("ended by a signal")
        else:
            tour.result()

    @contextmanager
    def _stopped_by_signals(self, tour: "asyncio.Task[None]") -> Iterator[None]:
        from orchestrator.leftovers import hurry_owner  # noqa: PLC0415 - as above

        asked = False

        def stop() -> None:
            nonlocal asked
            if asked:
                self._hurried = True
                hurry_owner(self._settings)
            else:
                asked = True
                tour.cancel()

        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, stop)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
                if asked:
                    signal.signal(number, signal.SIG_IGN)  # it ends already, and has yet to say how

    async def _drive(self) -> None:
        try:
            for act in ACTS:
                await self._act(act)
                await self._end_owner(act)
        except _AbandonedError:
            self._say("The rest would fail alike and is left out.")

    async def _act(self, act: Act) -> None:
        from mcp import Client, MCPError, StdioServerParameters  # noqa: PLC0415 - dear, and only the demo needs it

        command = ["-m", "orchestrator", "mcp", "--data-dir", str(self._settings.data_dir)]
        runtime = {places.RUNTIME_DIR_VARIABLE: str(self._settings.runtime_dir)}
        self._heading(act.heading)
        shown = " ".join(f"{name}={value}" for name, value in act.environment.items())
        self._say(f"$ {shown} {Path(sys.executable).name} {' '.join(command)}")
        server = StdioServerParameters(
            command=sys.executable, args=command, env={**os.environ, **runtime, **act.environment}
        )
        try:
            async with Client(server, read_timeout_seconds=_CALL_SECONDS) as client:
                tools = await client.list_tools()
                self._say(f"It offers {', '.join(tool.name for tool in tools.tools)}.")
                for chapter in act.chapters:
                    await self._chapter(client, chapter)
                if act is ACTS[-1]:
                    await self._delete_all(client)
        except* MCPError as failures:
            self._fail(f"the connection to the server ended: {failures.exceptions[0]}")
            raise _AbandonedError from None

    async def _end_owner(self, act: Act) -> None:
        from orchestrator.leftovers import end_owner, kill_owner  # noqa: PLC0415 - dear, and only needed here

        if act.owner == "is told to end":
            self._heading("The client has left, and the owner process is told to end")
            self._say(f"Owner process {await end_owner(self._settings)} has saved its sessions and ended.")
        elif act.owner == "is killed":
            self._heading("The client has left, and the owner process is killed with SIGKILL")
            self._say(f"Owner process {await kill_owner(self._settings)} is gone, without a chance to save anything.")

    def summarise(self, seconds: float) -> None:
        """Name the figures and what failed."""
        for path in self._figures:
            self._say(f"Figure: {path}")
        for failure in self.failures:
            self._console.print(Text(f"FAILED: {failure}", style="bold red"))
        verdict = f"{len(self.failures)} failed" if self.failures else "all as it should be"
        self._say(f"{self._calls} calls in {seconds:.1f} s, {verdict}.")

    async def _chapter(self, client: "Client", chapter: Chapter) -> None:
        self._heading(chapter.heading)
        for step in chapter.steps:
            await self._step(client, step)
        if chapter.left_alone:
            await self._until_all_sleep(client)
        for session_id in chapter.lists:
            await self._call(client, "python_list_variables", {"session_id": session_id})
        for session_id in chapter.deletes:
            await self._call(client, "python_delete_session", {"session_id": session_id})

    async def _until_all_sleep(self, client: "Client") -> None:
        from orchestrator.leftovers import containers_left  # noqa: PLC0415 - dear, and only needed here

        self._say("\nNobody calls for a while.")
        sleeping = False
        with suppress(TimeoutError):
            async with asyncio.timeout(_SLEEP_SECONDS):
                while not sleeping:
                    await asyncio.sleep(_LOOK_SECONDS)
                    listed = (await client.call_tool("python_list_sessions", {})).structured_content or {}
                    states = {session["state"] for session in listed["sessions"]}
                    sleeping = states == {"hibernated"} and not await containers_left(self._settings)
        await self._call(client, "python_list_sessions", {})
        if sleeping:
            self._say("Asked the engine: there is no container of these sessions.")
        else:
            self._fail("a session that was left alone did not fall asleep, or its container stayed")

    async def _delete_all(self, client: "Client") -> None:
        self._heading("What is there, and how it goes")
        answer = await self._call(client, "python_list_sessions", {})
        for session in answer["sessions"]:
            await self._call(client, "python_delete_session", {"session_id": session["session_id"]})

    async def _step(self, client: "Client", step: Step) -> None:
        where = f"session {step.session_id!r}" if step.session_id else "no session"
        self._console.print(Text(f"\n{step.says} ({where})", style="bold"))
        self._console.print(Text("\n".join(f"  >>> {line}" for line in step.code.splitlines()), style="cyan"))
        arguments: dict[str, Any] = {"code": step.code}
        if step.session_id is not None:
            arguments["session_id"] = step.session_id
        self._calls += 1
        result = await client.call_tool("python_repl", arguments)
        text = self._show(result)
        figures = self._keep_figures(result, step.session_id or "stateless")
        answer = result.structured_content if isinstance(result.structured_content, dict) else {}
        error = (answer.get("error") or {}).get("code")
        if error != step.fails:
            self._fail(f"{step.says}: {error or 'it succeeded'}, expected {step.fails or 'success'}")
        if error in _HOPELESS:
            raise _AbandonedError
        for part in step.shows:
            if part not in text:
                self._fail(f"{step.says}: the answer lacks {part!r}")
        for part in step.lacks:
            if part in text:
                self._fail(f"{step.says}: the answer has {part!r}")
        if figures != step.figures:
            self._fail(f"{step.says}: {figures} figures, expected {step.figures}")

    async def _call(self, client: "Client", tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        self._console.print(Text(f"\n{tool}({shown})", style="bold"))
        self._calls += 1
        result = await client.call_tool(tool, arguments)
        self._show(result)
        if result.is_error:
            self._fail(f"{tool}({shown})")
            raise _AbandonedError
        return result.structured_content if isinstance(result.structured_content, dict) else {}

    def _show(self, result: "CallToolResult") -> str:
        text = "\n".join(block.text for block in result.content if block.type == "text")
        self._console.print(Text(text))
        return text

    def _keep_figures(self, result: "CallToolResult", name: str) -> int:
        images = [block for block in result.content if block.type == "image"]
        for image in images:
            path = self._output / f"{len(self._figures) + 1}-{name}.png"
            try:
                path.unlink(missing_ok=True)  # an older one may be another user's
                path.write_bytes(base64.b64decode(image.data))
            except OSError as failure:
                self._fail(f"the figure {path} cannot be written: {failure.strerror}")
                continue
            self._figures.append(path)
            self._console.print(Text(f"  (image content, written to {path})", style="green"))
        return len(images)

    def _heading(self, text: str) -> None:
        self._console.print(Text(f"\n=== {text} ===", style="bold magenta"))

    def _say(self, text: str) -> None:
        self._console.print(Text(text))

    def _fail(self, failure: str) -> None:
        self.failures.append(failure)
        self._console.print(Text(f"FAILED: {failure}", style="bold red"))
