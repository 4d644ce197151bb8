"""Clients without a token are told where to get one, where somebody else gives them out."""

import json
import signal
from pathlib import Path

import pytest

from orchestrator.faces.web.protected_resource import ProtectedResource
from tests.mcp.harness import INITIALIZE, Installation
from tests.web.harness import KEY, MODERN, NO_SCOPE_KEY, calling, serving
from tests.web.test_serve import Server

RESOURCE = ProtectedResource("https://py.example.org/mcp", "https://login.example.org")
WHERE = "/.well-known/oauth-protected-resource/mcp"


async def test_the_document_names_resource_and_issuer_letter_by_letter_to_whoever_asks(tmp_path: Path) -> None:
    async with serving(tmp_path, resource=RESOURCE) as place:
        told = await place.request("GET", WHERE, key=None, headers={"Origin": "https://app.example.org"})
        assert told.status == 200
        assert told.headers["access-control-allow-origin"] == "*"
        assert told.json == {
            "resource": "https://py.example.org/mcp",
            "authorization_servers": ["https://login.example.org"],
            "scopes_supported": ["use", "read", "admin"],
            "bearer_methods_supported": ["header"],
        }


@pytest.mark.parametrize(("key", "status"), [(None, 401), ("wrong", 401), (NO_SCOPE_KEY, 403)])
async def test_a_refusal_says_where_the_document_is(tmp_path: Path, key: str | None, status: int) -> None:
    async with serving(tmp_path, resource=RESOURCE) as place:
        for body, headers in ((calling("1"), MODERN), (INITIALIZE, {})):
            answer = await place.request(body=body, headers=headers, key=key)
            assert answer.status == status
            challenge = answer.headers["www-authenticate"]
            assert challenge.startswith("Bearer ")
            assert f'resource_metadata="https://py.example.org{WHERE}"' in challenge
        assert (await place.request(body=calling("1"), headers=MODERN, key=KEY)).status == 200


async def test_without_an_issuer_there_is_no_document_and_no_word_of_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as place:
        assert (await place.request("GET", WHERE, key=None)).status == 404
        refused = await place.request(body=calling("1"), headers=MODERN, key=None)
        assert "resource_metadata" not in refused.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("audience", "issuer"),
    [
        (None, "https://i.example"),
        ("https://r.example/mcp", None),
        ("sandboxes", "https://i.example"),
        ("https://r.example/mcp", "us"),
        ("https://r.example/mcp#part", "https://i.example"),
        ("https://[::/mcp", "https://i.example"),
    ],
)
def test_what_leads_nowhere_is_not_told(audience: str | None, issuer: str | None) -> None:
    assert ProtectedResource.of(audience, issuer) is None


def test_the_documents_path_follows_the_resources() -> None:
    assert RESOURCE.path == WHERE
    below = ProtectedResource.of("https://example.org/team/mcp", "https://i.example")
    assert below is not None
    assert below.path == "/.well-known/oauth-protected-resource/team/mcp"


@pytest.mark.parametrize(("audience", "status"), [("https://py.example.org/mcp", 200), ("sandboxes", 404)])
async def test_the_server_tells_its_audience_where_that_is_a_url_and_else_says_why_not(
    tmp_path_factory: pytest.TempPathFactory, audience: str, status: int
) -> None:
    installation = Installation(tmp_path_factory.mktemp("s"))
    keys = installation.root / "keys.json"
    keys.write_text(json.dumps({"keys": []}))
    server = await Server.start(
        installation, jwt_issuer="https://login.example.org", jwt_audience=audience, jwt_keys=str(keys)
    )
    try:
        wire = await server.connect()
        await wire.send("GET", WHERE, key=None)
        told = await wire.answer()
    finally:
        server.signal(signal.SIGTERM)
        log = await server.end()
    assert told.status == status
    assert ("not both URLs" in log) == (status == 404)
