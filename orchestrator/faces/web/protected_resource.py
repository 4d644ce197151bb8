"""Where to get a token for this server, for clients that have none (RFC 9728, and the authorization part of MCP)."""

import json
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from mcp.server.auth.routes import build_resource_metadata_url
from pydantic import AnyHttpUrl
from starlette.types import Receive, Scope, Send

from orchestrator.faces.web.answers import JSON, answer

_SCOPES: Final = ("use", "read", "admin")


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """What tokens are for, and who gives them out. The resource is the audience that tokens must have: a client asks
    its issuer for a token for the one, and gets one with the other in it.
    """

    resource: str  # as clients reach it, with its path
    issuer: str

    @classmethod
    def of(cls, audience: str | None, issuer: str | None) -> "ProtectedResource | None":
        """None where nobody else's tokens are taken, or audience or issuer is a name and no URL: it leads nowhere."""
        if audience is None or issuer is None or not (_is_url(audience) and _is_url(issuer)):
            return None
        return cls(audience, issuer)

    @property
    def url(self) -> AnyHttpUrl:
        """Where this is told to everybody; refusals name it."""
        return build_resource_metadata_url(AnyHttpUrl(self.resource))

    @property
    def path(self) -> str:
        """The same, without the host."""
        return self.url.path or "/"

    async def told(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """The document. Pages of others may read it too, as clients in browsers must."""
        # Issuer and resource exactly as they were set: clients compare them letter by letter.
        document = {
            "resource": self.resource,
            "authorization_servers": [self.issuer],
            "scopes_supported": list(_SCOPES),
            "bearer_methods_supported": ["header"],
        }
        await answer(send, 200, json.dumps(document).encode(), JSON, {b"access-control-allow-origin": b"*"})


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.fragment
