"""Both official SDKs drive the demo's workflow through a served orchestrator, with a key, on real sandboxes."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from orchestrator.faces.cli import demo_script
from orchestrator.faces.cli.demo_script import Step
from orchestrator.settings import Settings
from tests.conformance.tools import PLACE, run
from tests.docker.test_serve import client, keys_of, server

CHAPTERS = (
    demo_script.CUSTOMERS,
    demo_script.MODEL,
    demo_script.PRICES,
    demo_script.ISOLATION,
    demo_script.STATELESS,
    demo_script.ASLEEP,
    demo_script.AWAKE,
)
SLEEP = "import time\nprint('begun', flush=True)\ntime.sleep(600)"


@dataclass(frozen=True)
class Call:
    """One call, and what is checked of its answer."""

    tool: str
    arguments: dict[str, Any]
    check: Callable[[dict[str, Any]], None]
    left_alone: bool = False  # until every session sleeps
    cancel_after: float = 0.0  # seconds; 0: never

    @property
    def order(self) -> dict[str, Any]:
        return {"tool": self.tool, "arguments": self.arguments, "left_alone": self.left_alone} | (
            {"cancel_after": self.cancel_after} if self.cancel_after else {}
        )


def of_step(step: Step, *, left_alone: bool = False) -> Call:
    def check(answer: dict[str, Any]) -> None:
        error = (answer["fields"].get("error") or {}).get("code")
        assert (error, answer["figures"]) == (step.fails, step.figures), (step.says, answer)
        assert all(part in answer["text"] for part in step.shows), (step.says, answer)
        assert not any(part in answer["text"] for part in step.lacks), (step.says, answer)

    arguments = {"code": step.code} | ({} if step.session_id is None else {"session_id": step.session_id})
    return Call("python_repl", arguments, check, left_alone)


def succeeds(answer: dict[str, Any]) -> None:
    assert not answer["fields"].get("error"), answer


def times_out(answer: dict[str, Any]) -> None:
    assert answer["fields"]["error"]["code"] == "timeout", answer
    assert answer["progress"] >= 1, "signs of life came"


def is_cancelled(answer: dict[str, Any]) -> None:
    assert answer["cancelled"]


def is_kept(answer: dict[str, Any]) -> None:
    assert answer["fields"]["value"] == "'kept'", "neither time-out nor cancellation loses anything"


def is_gone(answer: dict[str, Any]) -> None:
    assert answer["fields"]["error"]["code"] == "exception", answer


def nothing_left(answer: dict[str, Any]) -> None:
    assert answer["fields"]["sessions"] == []


def workflow() -> Iterator[Call]:
    alone = False
    for chapter in CHAPTERS:
        for step in chapter.steps:
            yield of_step(step, left_alone=alone)
            alone = False
        alone = chapter.left_alone
        for name in chapter.lists if not alone else ():
            yield Call("python_list_variables", {"session_id": name}, succeeds)
        for name in chapter.deletes:
            yield Call("python_delete_session", {"session_id": name}, succeeds)
    yield Call("python_delete_session", {"session_id": "field"}, succeeds)
    yield Call("python_repl", {"code": "x = 'kept'", "session_id": "s"}, succeeds)
    yield Call("python_repl", {"code": SLEEP, "session_id": "s", "timeout": 3}, times_out)
    yield Call("python_repl", {"code": SLEEP, "session_id": "s"}, is_cancelled, cancel_after=3)
    yield Call("python_repl", {"code": "x", "session_id": "s"}, is_kept)
    yield Call("python_clear_session", {"session_id": "s"}, succeeds)
    yield Call("python_repl", {"code": "x", "session_id": "s"}, is_gone)
    yield Call("python_delete_session", {"session_id": "s"}, succeeds)
    yield Call("python_list_sessions", {}, nothing_left)


async def called(speaking: Client, call: Call) -> dict[str, Any]:
    seen = 0

    async def noted(progress: float, total: float | None, message: str | None) -> None:
        nonlocal seen
        del progress, total, message
        seen += 1

    try:
        async with asyncio.timeout(call.cancel_after or 120):
            answer = await speaking.call_tool(call.tool, call.arguments, progress_callback=noted)
    except TimeoutError:
        assert call.cancel_after, call
        return {"cancelled": True}
    text = "\n".join(part.text for part in answer.content if part.type == "text")
    figures = sum(part.type == "image" for part in answer.content)
    return {"text": text, "figures": figures, "fields": answer.structured_content, "progress": seen}


async def until_all_sleep(speaking: Client) -> None:
    async with asyncio.timeout(120):
        while True:
            listed = (await speaking.call_tool("python_list_sessions", {})).structured_content or {}
            if all(entry["state"] == "hibernated" for entry in listed["sessions"]):
                return
            await asyncio.sleep(0.2)


async def by_python(url: str, key: str, calls: list[Call], _folder: Path) -> list[dict[str, Any]]:
    answers = []
    async with client(url, key) as speaking:
        for call in calls:
            if call.left_alone:
                await until_all_sleep(speaking)
            answers.append(await called(speaking, call))
    return answers


async def by_typescript(url: str, key: str, calls: list[Call], folder: Path) -> list[dict[str, Any]]:
    orders = folder / "calls.json"
    await asyncio.to_thread(orders.write_text, json.dumps([call.order for call in calls]))
    code, said = await run(str(PLACE / "calls.mjs"), url, key, str(orders))
    assert code == 0, said
    answers: list[dict[str, Any]] = json.loads(said.splitlines()[-1])
    return answers


@pytest.mark.parametrize("drive", [by_python, by_typescript])
async def test_an_official_sdk_drives_the_demos_workflow_with_a_key(
    tmp_path: Path, drive: Callable[[str, str, list[Call], Path], Awaitable[list[dict[str, Any]]]]
) -> None:
    settings = Settings.load(data_dir=tmp_path / "d", runtime_dir=tmp_path / "r")
    keys = await keys_of(settings)
    calls = list(workflow())
    async with server(settings, ORCHESTRATOR_SNAPSHOT_AFTER="0.3", ORCHESTRATOR_HIBERNATE_AFTER="1.5") as (url, _):
        answers = await drive(url, keys["red"], calls, tmp_path)
    assert len(answers) == len(calls)
    for call, answer in zip(calls, answers, strict=True):
        call.check(answer)
