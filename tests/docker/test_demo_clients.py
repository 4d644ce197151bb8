"""Two official client SDKs drive the demo's script through HTTP with a key, on real sandboxes."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pytest
from mcp import Client
from mcp_types import ImageContent, TextContent

from orchestrator.faces.cli.demo_script import ACTS, Chapter, Step
from orchestrator.settings import Settings
from tests.conformance.tools import PLACE, node
from tests.docker.test_serve import client, keys_of, server

CHAPTERS = ACTS[0].chapters
BOUND = 300.0  # seconds
Told = Mapping[str, Any]


async def by_typescript(url: str, key: str) -> AsyncIterator[Told]:
    """What the program in JavaScript says, as it says it."""
    process = await asyncio.create_subprocess_exec(
        *(str(node()), str(PLACE / "demo.mjs"), url, key),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=16 * 1024 * 1024,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([asdict(chapter) for chapter in CHAPTERS]).encode())
        process.stdin.close()
        async for line in process.stdout:
            yield json.loads(line)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def by_python(url: str, key: str) -> AsyncIterator[Told]:
    """The same through the SDK of Python."""
    async with client(url, key) as speaking:
        for chapter in CHAPTERS:
            for step in chapter.steps:
                given = {"code": step.code, **({} if step.session_id is None else {"session_id": step.session_id})}
                yield {"said": "step", **await called(speaking, "python_repl", given)}
            if chapter.left_alone:
                yield {"said": "alone", "states": await asleep(speaking)}
            for session_id in chapter.lists:
                told = await called(speaking, "python_list_variables", {"session_id": session_id})
                yield {"said": "listed", "names": [one["name"] for one in told["structured"]["variables"]]}
            for session_id in chapter.deletes:
                await called(speaking, "python_delete_session", {"session_id": session_id})
        left = [
            one["session_id"] for one in (await called(speaking, "python_list_sessions", {}))["structured"]["sessions"]
        ]
        for session_id in left:
            await called(speaking, "python_delete_session", {"session_id": session_id})
    yield {"said": "end", "left": left}


async def called(speaking: Client, tool: str, given: Mapping[str, Any]) -> dict[str, Any]:
    answer = await speaking.call_tool(tool, dict(given))
    structured = answer.structured_content or {}
    return {
        "text": "\n".join(part.text for part in answer.content if isinstance(part, TextContent)),
        "figures": sum(isinstance(part, ImageContent) for part in answer.content),
        "code": (structured.get("error") or {}).get("code"),
        "structured": structured,
    }


async def asleep(speaking: Client) -> list[str]:
    """The states of all sessions as soon as they sleep."""
    async with asyncio.timeout(60):
        while True:
            listed = (await called(speaking, "python_list_sessions", {}))["structured"]["sessions"]
            states = [one["state"] for one in listed]
            if set(states) == {"hibernated"}:
                return states
            await asyncio.sleep(0.2)


def check(told: Sequence[Told]) -> None:
    """As `orchestrator demo` checks its answers."""
    answers = iter(told)
    for chapter in CHAPTERS:
        for step in chapter.steps:
            check_step(step, next(answers))
        check_rest(chapter, answers)
    assert next(answers) == {"said": "end", "left": ["field", "ledger"]}


def check_step(step: Step, answer: Told) -> None:
    assert answer["said"] == "step", step.says
    assert answer["code"] == step.fails, (step.says, answer["text"])
    assert answer["figures"] == step.figures, step.says
    for part in step.shows:
        assert part in answer["text"], step.says
    for part in step.lacks:
        assert part not in answer["text"], step.says


def check_rest(chapter: Chapter, answers: Any) -> None:  # noqa: ANN401 - an iterator of parsed JSON
    if chapter.left_alone:
        assert set(next(answers)["states"]) == {"hibernated"}
    for _ in chapter.lists:
        assert next(answers)["names"], chapter.heading


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("drive", [by_typescript, by_python])
async def test_the_demo_is_driven_by_an_official_client_over_http(drive: Any, settings: Settings) -> None:  # noqa: ANN401
    keys = await keys_of(settings)
    async with server(settings, **ACTS[0].environment) as (url, _), asyncio.timeout(BOUND):
        check([told async for told in drive(url, keys["red"])])
