"""What the official suite asks for by name: tools, resources and prompts that stand beside ours in its tests only."""

import asyncio
import base64
from typing import Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp_types import (
    AudioContent,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    TextContent,
    TextResourceContents,
)

from orchestrator.faces.mcp_server import ToolServer
from tests.conformance.schemas import describe

PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8cfc0f01f0005000"
        "1ff56c7c2a80000000049454e44ae426082"
    )
).decode()
WAV = base64.b64encode(b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\0\0\0\0").decode()


def furnish(server: ToolServer) -> None:
    """Install it all."""
    _contents(server)
    _lasting(server)
    _resources(server)
    _prompts(server)
    describe(server)


def embedded(uri: str, text: str, kind: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=kind, text=text))


def _contents(server: ToolServer) -> None:
    text = TextContent(type="text", text="This is a simple text response for testing.")
    picture = ImageContent(type="image", data=PNG, mime_type="image/png")
    mixed = embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")

    @server.tool(description="A fixture of the suite.")
    def test_simple_text() -> CallToolResult:
        return CallToolResult(content=[text])

    @server.tool(description="A fixture of the suite.")
    def test_image_content() -> CallToolResult:
        return CallToolResult(content=[picture])

    @server.tool(description="A fixture of the suite.")
    def test_audio_content() -> CallToolResult:
        return CallToolResult(content=[AudioContent(type="audio", data=WAV, mime_type="audio/wav")])

    @server.tool(description="A fixture of the suite.")
    def test_embedded_resource() -> CallToolResult:
        return CallToolResult(content=[embedded("test://embedded-resource", "This is an embedded resource content.")])

    @server.tool(description="A fixture of the suite.")
    def test_multiple_content_types() -> CallToolResult:
        return CallToolResult(content=[text, picture, mixed])

    @server.tool(description="A fixture of the suite.")
    def test_error_handling() -> CallToolResult:
        told = TextContent(type="text", text="This tool intentionally returns an error for testing")
        return CallToolResult(content=[told], is_error=True)


def _lasting(server: ToolServer) -> None:
    @server.tool(description="A fixture of the suite.")
    async def test_tool_with_progress(ctx: Context[Any, Any]) -> str:
        for step in (0, 50, 100):
            await ctx.report_progress(step, 100)
            await asyncio.sleep(0.05)
        return "done"


def _resources(server: ToolServer) -> None:
    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        return base64.b64decode(PNG)

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:  # noqa: A002 - the suite's
        return f'{{"id":"{id}","templateTest":true,"data":"Data for ID: {id}"}}'


def _prompts(server: ToolServer) -> None:
    @server.prompt(description="A fixture of the suite.")
    def test_simple_prompt() -> str:
        return "This is a simple prompt for testing."

    @server.prompt(description="A fixture of the suite.")
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt(description="A fixture of the suite.")
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:  # noqa: N803 - the suite's
        return [UserMessage(embedded(resourceUri, "Embedded resource content for testing.")), UserMessage("Use it.")]

    @server.prompt(description="A fixture of the suite.")
    def test_prompt_with_image() -> list[UserMessage]:
        return [UserMessage(ImageContent(type="image", data=PNG, mime_type="image/png")), UserMessage("Look at it.")]
