"""Fixtures of the official suite that are about how arguments are described, and what is completed."""

from typing import Annotated, Any

from mcp.server.mcpserver.tools.base import Tool
from mcp_types import Completion
from pydantic import Field

from orchestrator.faces.mcp_server import ToolServer

ADDRESS = {
    "$anchor": "addressDef",
    "type": "object",
    "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
}
# The suite's, word by word: keywords that no annotation of Python makes.
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": ADDRESS},
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def describe(server: ToolServer) -> None:
    """Install them."""

    def json_schema_2020_12_tool() -> str:
        return "done"

    tool = Tool.from_function(json_schema_2020_12_tool, description="Tool with JSON Schema 2020-12 features")
    server._tool_manager._tools[tool.name] = tool.model_copy(update={"parameters": SCHEMA})

    @server.tool(description="A fixture of the suite: an argument that its caller repeats in a header.")
    def test_header_mirrored(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
        return region

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]
    async def complete(*_asked: object) -> Completion:
        return Completion(values=["paris", "park", "party"], total=3, has_more=False)
